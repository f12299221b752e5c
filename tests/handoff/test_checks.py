"""What is refused, and what is stripped."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength, FixSymmetry

from asegen import SpaceGroup
from asegen.errors import HandoffError
from asegen.handoff import supercell_for
from asegen.handoff.checks import checked, free_axes


def _masked():
    return Atoms([0, 8], positions=[[0, 0, 0], [2, 2, 2]], cell=[4, 4, 4], pbc=True)


def _shared():
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.info["occupancy"] = {"0": {"Na": 0.5, "K": 0.5}}
    return atoms


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (_masked(), "element is not decided"),
        (Atoms("H2", positions=[[0, 0, 0], [0.3, 0, 0]], cell=[4, 4, 4], pbc=True), "0.30 Å apart"),
        (Atoms("H", positions=[[0, 0, 0]]), "not periodic"),
        (Atoms("H", positions=[[0, 0, 0]], pbc=True), "without volume"),
        (Atoms(cell=[4, 4, 4], pbc=True), "no atoms"),
        (Atoms("H", positions=[[np.nan, 0, 0]], cell=[4, 4, 4], pbc=True), "finite"),
        (Atoms("H", cell=[4, 4, 0.4], pbc=True), "0.40 Å apart"),
        (_shared(), "fractions of atoms"),
    ],
)
def test_no_crystal_is_refused_in_a_sentence(atoms, words):
    with pytest.raises(HandoffError, match=words) as caught:
        checked(atoms, "0003_H2")
    assert str(caught.value).startswith("0003_H2") and "\n" not in str(caught.value)


def test_symmetry_and_calculator_go_and_held_atoms_stay():
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    atoms.get_potential_energy()
    atoms.set_constraint([FixSymmetry(atoms), SpaceGroup(225, atoms), FixAtoms([0]), FixBondLength(1, 2)])
    clean, remarks = checked(atoms, "it")
    assert clean.calc is None and [type(c) for c in clean.constraints] == [FixAtoms]
    assert len(remarks) == 1 and "FixBondLength" in remarks[0]
    assert free_axes(clean).sum() == 9 and len(atoms.constraints) == 4 and atoms.calc is not None


def test_a_left_handed_cell_is_the_same_crystal_afterwards(crystal):
    left = crystal.copy()
    left.set_cell(crystal.cell.array[[1, 0, 2]])
    clean, _ = checked(left)
    assert np.linalg.det(left.cell.array) < 0 < np.linalg.det(clean.cell.array)
    assert np.array_equal(clean.positions, left.positions)
    # every vector of one lattice is in the other
    assert np.allclose(np.abs(np.linalg.det(clean.cell.array @ np.linalg.inv(left.cell.array))), 1)
    steps = clean.cell.array @ np.linalg.inv(crystal.cell.array)
    assert np.allclose(steps, np.rint(steps))


@pytest.mark.parametrize(
    ("lengths", "counts"),
    [((10, 10, 10), (1, 1, 1)), ((9.9999999999, 5, 5.01), (1, 2, 2)), ((3.9, 4.9, 2.0), (4, 4, 6)), ((30, 3.34, 2.5), (1, 4, 4))],
)
def test_supercells_are_long_enough_and_even(lengths, counts):
    assert supercell_for(np.diag(lengths), 10.0) == counts


def test_a_supercell_of_nothing_is_refused():
    with pytest.raises(HandoffError, match="no supercell"):
        supercell_for(np.zeros((3, 3)))
    with pytest.raises(HandoffError, match="no supercell"):
        supercell_for(np.eye(3), float("inf"))
