import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asegen.lattice import unpack
from asegen.symmetry.errors import SymmetryError
from asegen.symmetry.groups import space_group
from asegen.symmetry.lattices import DIMENSIONS, STRAIN_BASES, conventional_cell, reference_cell, unpacked

SYSTEMS = list(STRAIN_BASES)


def test_dimensions():
    assert list(DIMENSIONS.values()) == [6, 4, 3, 2, 2, 2, 1]
    for basis in STRAIN_BASES.values():
        assert np.allclose(basis @ basis.T, np.eye(len(basis)))


@given(st.integers(1, 230), st.integers(0, 1000))
def test_cells_have_the_symmetry_of_their_groups_and_the_volume(number, seed):
    group = space_group(number)
    cell = conventional_cell(group.lattice_system, 70.0, np.random.default_rng(seed).normal(size=6) * 0.3)
    metric = cell @ cell.T
    assert np.allclose(group.rotations.transpose(0, 2, 1) @ metric @ group.rotations, metric)
    assert np.isclose(np.linalg.det(cell), 70.0) and np.allclose(cell, np.tril(cell))


def test_the_strains_of_a_system_are_all_that_its_holohedry_keeps():
    # the group of highest symmetry with a primitive (or R) lattice of each system
    for system, number in zip(SYSTEMS, (2, 10, 47, 123, 166, 191, 221), strict=True):
        group, cell = space_group(number), reference_cell(system)
        turns = cell.T @ group.rotations @ np.linalg.inv(cell.T)
        projector = np.array([[(np.mean(turns @ b @ turns.transpose(0, 2, 1), 0) * a).sum() for a in BASIS] for b in BASIS])
        own = np.array([[(unpacked(v) * a).sum() for a in BASIS] for v in STRAIN_BASES[system]])
        assert np.allclose(own @ projector, own) and np.isclose(np.trace(projector), len(own))


def test_unpacked_is_unpack():
    vector = np.random.default_rng(0).normal(size=6)
    assert np.allclose(unpacked(vector), unpack(torch.from_numpy(vector)).numpy())


def test_a_system_that_does_not_exist():
    with pytest.raises(SymmetryError, match="no lattice system 'trigonal'; they are triclinic"):
        reference_cell("trigonal")


BASIS = [unpacked(v) for v in np.eye(6)]
