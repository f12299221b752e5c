"""What may be handed to another code: whole, ordered crystals of known elements, stripped of what only ASE understands."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian

from ..crystals import MASK, check_atoms
from ..errors import AsegenError, HandoffError

#: Å; atoms closer than this are an accident, and every code fails on them in a way of its own.
CLOSEST = 0.5
# these say how ASE may move the atoms, not which atoms are held
_SYMMETRY = ("FixSymmetry", "SpaceGroup")


def checked(atoms: Atoms, what: str = "the crystal") -> tuple[Atoms, list[str]]:
    """A crystal that other codes can be given.

    Parameters
    ----------
    atoms : ase.Atoms
        Is not changed.
    what : str
        What errors call it.

    Returns
    -------
    atoms : ase.Atoms
        A copy without calculator, with ``FixAtoms`` and ``FixCartesian`` as its only constraints, in the same order. A left-handed
        cell is turned to a right-handed one by reversing its three vectors: the lattice and the positions stay what they are.
    remarks : list of str
        Sentences about what was left out. Constraints that keep a space group go without a remark.

    Raises
    ------
    HandoffError
        No crystal, atoms of no element, atoms closer than 0.5 Å, or fractions of atoms.
    """
    from ..report import shortest_distance
    from ..symmetry.finding import refuse_partial_occupancy

    try:
        check_atoms(atoms, what)
        refuse_partial_occupancy(atoms)
    except AsegenError as error:
        text = str(error)
        raise HandoffError(text if text.startswith(what) else f"{what}: {text}") from error
    if (atoms.numbers == MASK).any() or atoms.numbers.max() > 118:
        count = int(((atoms.numbers == MASK) | (atoms.numbers > 118)).sum())
        raise HandoffError(f"{what} has {count} atoms whose element is not decided (X); generate the elements first")
    closest = shortest_distance(atoms)
    if closest < CLOSEST:
        raise HandoffError(f"{what} has atoms {closest:.2f} Å apart, closer than {CLOSEST} Å; relax or drop it first")
    clean = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True, info=dict(atoms.info))
    if np.linalg.det(clean.cell.array) < 0:
        clean.set_cell(-clean.cell.array)
    if atoms.has("initial_magmoms"):
        clean.set_initial_magnetic_moments(atoms.get_initial_magnetic_moments())
    kept, remarks = [], []
    for constraint in atoms.constraints:
        if isinstance(constraint, (FixAtoms, FixCartesian)):
            kept.append(constraint.copy() if isinstance(constraint, FixAtoms) else constraint)
        elif type(constraint).__name__ not in _SYMMETRY:
            remarks.append(f"{what}: the constraint {type(constraint).__name__} has no counterpart and was left out")
    clean.set_constraint(kept)
    return clean, remarks


def free_axes(atoms: Atoms) -> np.ndarray:
    """Which Cartesian coordinates may move, shape (n, 3), bool."""
    free = np.ones((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            free[constraint.index] = False
        elif isinstance(constraint, FixCartesian):
            free[constraint.index] = ~np.asarray(constraint.mask)
    return free
