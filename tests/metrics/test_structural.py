"""Validity of single crystals, as CDVAE's functions decide it."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from asegen.metrics import diversity, fingerprints, validity
from asegen.metrics.structural import structure_fault


def cdvae_says(atoms):
    """CDVAE's rule, from its description: off-diagonal distances and the volume."""
    structure = Structure(Lattice(atoms.cell.array), atoms.numbers, atoms.get_scaled_positions())
    distances = structure.distance_matrix + np.diag([10.0] * len(structure))
    return distances.min() >= 0.5 and structure.volume >= 0.1


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(0, 10**6), st.floats(1.0, 6.0))
def test_the_same_verdict_on_random_crystals(n, seed, size):
    rng = np.random.default_rng(seed)
    cell = size * (np.eye(3) + 0.4 * rng.standard_normal((3, 3)))
    atoms = Atoms("H" * n, scaled_positions=rng.random((n, 3)), cell=cell, pbc=True)
    assert (structure_fault(atoms) == "") == cdvae_says(atoms)


def test_an_atom_s_own_images_are_not_looked_at():
    atoms = Atoms("H", cell=[0.45, 4, 4], pbc=True)
    assert structure_fault(atoms) == ""
    assert structure_fault(atoms * (2, 1, 1)) == "atoms closer than 0.5 Å"


def test_neighbours_in_the_next_cell_are():
    atoms = Atoms("H2", scaled_positions=[[0.01, 0, 0], [0.97, 0, 0]], cell=[5, 5, 5], pbc=True)
    assert structure_fault(atoms) == "atoms closer than 0.5 Å"


def test_shares_and_reasons():
    crystals = [
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("Cu"),
        Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3, 3, 3], pbc=True),
        bulk("NaAr", "rocksalt", a=5.6),
        Atoms("NaCl", positions=[[0, 0, 0], [0.2, 0, 0]], cell=[4, 4, 4], pbc=True),
        Atoms("Cu", cell=[4, 4, 4], pbc=[True, True, False]),
    ]
    found = validity(crystals)
    assert found.n == 6
    assert found.structure_rows.tolist() == [True, True, True, True, False, False]
    assert found.composition_rows.tolist() == [True, True, True, False, True, True]
    assert found.structure == pytest.approx(4 / 6) and found.composition == pytest.approx(5 / 6)
    assert found.both == pytest.approx(3 / 6)
    assert found.reasons["no crystal: not periodic in three directions"] == 1
    assert found.reasons["atoms closer than 0.5 Å"] == 1
    assert any("Ar" in reason for reason in found.reasons)


def test_a_crystal_without_fingerprint_is_not_valid():
    crystals = [
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("BkO", "rocksalt", a=5.0),
        Atoms("CuBk", positions=[[0, 0, 0], [2, 2, 2]], cell=[4, 4, 4], pbc=True),
    ]
    found = validity(crystals)
    assert found.structure == 1.0 and found.fingerprint == pytest.approx(1 / 3)
    assert found.fingerprint_rows.tolist() == found.valid_rows.tolist() == [True, False, False]
    assert found.both == pytest.approx(1 / 3)
    assert found.reasons["no fingerprint: Bk has no covalent radius"] == 2
    known = validity(crystals, prints=fingerprints(crystals))
    assert known.valid_rows.tolist() == found.valid_rows.tolist()
    assert diversity([*crystals, bulk("Cu")]).n == 2


def test_no_crystals():
    found = validity([])
    assert found.n == 0 and found.structure is None and found.both is None
