"""Crystals put exactly on the space group that they have, or nearly have."""

from __future__ import annotations

import numpy as np
import spglib
from ase import Atoms
from ase.constraints import FixAtoms

from ..errors import AsegenError
from ..symmetry.constraint import SpaceGroup
from ..symmetry.finding import fit_of_operations
from ..symmetry.groups import space_group
from ..symmetry.tables import symmetry_of_atoms

EXACT = 0.01
"""Symprec, Å, at which the group of a start is found."""
NEARLY = 0.03
"""Symprec, Å, at which a relaxed crystal is put on a higher group."""


def exact_group(atoms: Atoms, symprec: float = EXACT, keep_cell: bool = False) -> SpaceGroup | None:
    """Give a crystal the constraint of the group that it has within `symprec`, in place.

    A `SpaceGroup` constraint that is there stays. With `FixAtoms` no group is looked for. In P1 there is nothing to keep. With
    `keep_cell` the cell is not moved, and the group is one that the cell has as it is.

    Returns
    -------
    SpaceGroup or None
    """
    for constraint in atoms.constraints:
        if isinstance(constraint, SpaceGroup):
            return constraint
        if isinstance(constraint, FixAtoms):
            return None
    group = _group_in_cell(atoms, symprec) if keep_cell else group_of(atoms, symprec)
    if group is not None:
        atoms.set_constraint([*atoms.constraints, group])
    return group


def put_on_group(atoms: Atoms, symprec: float = NEARLY, keep_cell: bool = False) -> bool:
    """Move a crystal exactly onto a higher group that it has within `symprec`, in place, and constrain it to that.

    Returns
    -------
    bool
        Whether there is a group with more operations than the crystal is constrained to.
    """
    now = next((c for c in atoms.constraints if isinstance(c, SpaceGroup)), None)
    trial = atoms.copy()
    trial.set_constraint()
    group = _group_in_cell(trial, symprec) if keep_cell else group_of(trial, symprec)
    if group is None or (now is not None and _order(group) <= _order(now)):
        return False
    atoms.set_constraint()
    atoms.set_cell(trial.cell)
    atoms.set_positions(trial.positions)
    atoms.set_constraint(group)
    return True


def _group_in_cell(atoms: Atoms, symprec: float) -> SpaceGroup | None:
    """The highest group of a crystal whose cell stays as it is, looked for ever more strictly."""
    cell = atoms.cell.array.copy()
    for limit in (symprec, 1e-3, 1e-4, 1e-5):
        trial = atoms.copy()
        trial.set_constraint()
        group = group_of(trial, min(limit, symprec))
        if group is None:
            return None
        if np.abs(trial.cell.array - cell).max() < 1e-6:
            atoms.set_positions(trial.get_scaled_positions(wrap=False) @ cell, apply_constraint=False)
            return group
    return None


def group_of(atoms: Atoms, symprec: float) -> SpaceGroup | None:
    """The constraint of the group that spglib finds; the crystal is moved exactly onto it. None in P1, or where it does not fit."""
    crystal = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        found = spglib.get_symmetry_dataset(crystal, symprec=symprec)
    except spglib.SpglibError:  # atoms closer than symprec
        return None
    if found is None or len(np.unique(found.rotations, axis=0)) * _centrings(found) <= 1:
        return None
    group = space_group(int(found.number))
    try:
        fit = fit_of_operations((found.rotations, found.translations), atoms, max(0.3, 3 * symprec))
    except AsegenError:
        return None
    assert fit.image is not None
    symmetry = symmetry_of_atoms(atoms.get_scaled_positions(wrap=False), fit.rotations, fit.translations, fit.image)
    symbols = atoms.get_chemical_symbols()
    sites = [(symbols[i], group.position(found.wyckoffs[i]).label) for i in symmetry.first.tolist()]
    constraint = SpaceGroup.of_symmetry(group, symmetry, atoms.numbers, sites)
    constraint.snap(atoms)
    return constraint


def _centrings(found: spglib.SpglibDataset) -> int:
    """Pure translations among the operations, the identity included."""
    return int((found.rotations == np.eye(3, dtype=int)).all(axis=(1, 2)).sum())


def _order(group: SpaceGroup) -> int:
    """Operations of a group in its cell, up to a factor: more of them leave fewer degrees of freedom."""
    symmetry = group.symmetry
    return int(symmetry.point_count[0]) * 1000 - int(symmetry.dof[0])
