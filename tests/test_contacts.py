import time
from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st

from asegen.contacts import TOO_CLOSE, closest_contact, too_close
from asegen.errors import CrystalError
from asegen.symmetry import crystal_from_sites


def drawn(seed: int, skewed: bool = True) -> Atoms:
    """Some atoms anywhere in a cell of any shape, described by vectors that are not the short ones, and not wrapped."""
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 6))
    cell = np.diag(random.uniform(1.5, 7.0, 3)) + random.normal(size=(3, 3))
    atoms = Atoms(numbers=random.choice([1, 6, 8, 26, 55, 92], n), scaled_positions=random.normal(size=(n, 3)), cell=cell, pbc=True)
    if skewed:
        turn = np.array([[1, random.integers(-2, 3), random.integers(-2, 3)], [0, 1, random.integers(-2, 3)], [0, 0, 1]])
        atoms.set_cell(turn @ cell, scale_atoms=False)
    return atoms


def brute_force(atoms: Atoms, cell: np.ndarray) -> tuple[float, float]:
    """Smallest ratio and its distance over many images of every pair, in a cell that is not skewed."""
    frac = atoms.positions @ np.linalg.inv(cell)
    best = (np.inf, 0.0)
    steps = np.array(list(product(range(-5, 6), repeat=3)))
    for i in range(len(atoms)):
        for j in range(i, len(atoms)):
            away = frac[j] - frac[i]
            length = np.linalg.norm((away - np.rint(away) + steps) @ cell, axis=1)
            length = length[length > 1e-9] if i == j else length
            radii = covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]
            best = min(best, (length.min() / radii, length.min()))
    return best


@given(st.integers(0, 10**6))
def test_the_closest_contact_is_that_of_brute_force_in_any_description_of_the_cell(seed):
    plain, skewed = drawn(seed, skewed=False), drawn(seed)
    ratio, distance = brute_force(plain, plain.cell.array)
    for atoms in (plain, skewed, make_supercell(plain, [[1, 1, 0], [0, 1, 0], [0, 0, 2]])):
        found = closest_contact(atoms)
        assert found.ratio == pytest.approx(ratio, rel=1e-7) and found.distance == pytest.approx(distance, rel=1e-7)
    assert bool(too_close(plain)) == (ratio < TOO_CLOSE)


def test_small_atoms_far_apart_are_not_mistaken_for_the_closest():
    """Cs and Cs at 3.2 Å are closer for their size than H and H at 2.4 Å, though farther in Å and beyond the first look."""
    atoms = Atoms("H2Cs2", positions=[(0, 0, 0), (0, 0, 2.4), (9, 9, 0), (9, 9, 3.2)], cell=[18, 18, 18], pbc=True)
    found = closest_contact(atoms)
    assert found.pair == ("Cs", "Cs") and found.distance == pytest.approx(3.2) and found.ratio == pytest.approx(3.2 / 4.88)
    lonely = Atoms("H", cell=[30, 31, 32], pbc=True)
    assert closest_contact(lonely)[1:] == (pytest.approx(30), ("H", "H"), True)


def test_the_sentence():
    cell = [5, 5.5, 6]
    assert too_close(Atoms("O2", positions=[(0, 0, 0), (5, 0, 0.003)], cell=cell, pbc=True)) == (
        "O and O are 0.003 Å apart (less than 0.55 of the sum of their covalent radii)"
    )
    assert too_close(Atoms("OCa", positions=[(0, 0, 0), (0, 0, 0)], cell=cell, pbc=True)).startswith("Ca and O are 0 Å apart")
    assert too_close(Atoms("Cs", cell=[2.5, 6, 6], pbc=True)).startswith("Cs and its own image are 2.5 Å apart")
    assert too_close(Atoms("Cs", cell=[2.7, 6, 6], pbc=True)) == ""
    flat = Atoms("Fe2", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=[[4, 0, 0], [0, 4, 0], [3.999, 0.002, 0.02]], pbc=True)
    assert "its own image" in too_close(flat) or "Fe and Fe" in too_close(flat)


def test_crystals_with_short_contacts_that_are_real_pass():
    """A hydrogen molecule, an alpha-plutonium-like bond, uranyl, and the caesium chain of a hollandite (MP-20's shortest)."""
    for symbols, distance in (("H2", 0.74), ("Pu2", 2.334), ("UO", 1.763), ("N2", 1.10)):
        assert too_close(Atoms(symbols, positions=[(0, 0, 0), (0, 0, distance)], cell=[6, 6, 7], pbc=True)) == ""
    assert too_close(Atoms("Cs", cell=[3.039, 8, 8], pbc=True)) == ""
    for metal in ("Cs", "Fe", "Al", "Mg", "W", "Si"):
        assert too_close(bulk(metal)) == ""
    rutile, _ = crystal_from_sites(136, [("Ti", "a", ()), ("O", "f", (0.305,))], np.diag([4.59, 4.59, 2.96]))
    assert too_close(rutile) == "" and closest_contact(rutile).pair == ("O", "Ti")
    merged, _ = crystal_from_sites(136, [("Ti", "a", ()), ("O", "f", (0.499,))], np.diag([4.59, 4.59, 2.96]))
    assert too_close(merged).startswith("O and O are")


def test_what_is_no_crystal():
    with pytest.raises(CrystalError, match="no atoms"):
        closest_contact(Atoms(cell=[4, 4, 4], pbc=True))
    with pytest.raises(CrystalError, match="not periodic"):
        closest_contact(Atoms("H", cell=[4, 4, 4]))


def test_it_takes_a_fraction_of_a_millisecond():
    random = np.random.default_rng(0)
    atoms = Atoms("Sr2Ti2O6", scaled_positions=random.random((10, 3)), cell=[4, 4, 8], pbc=True)
    closest_contact(atoms)
    start = time.process_time()
    for _ in range(100):
        closest_contact(atoms)
    assert (time.process_time() - start) / 100 < 1e-3  # 0.15 ms when nothing else runs
