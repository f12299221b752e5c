"""One cell per crystal: the standard primitive cell, so that equal prototypes look equal to a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import spglib

Cell = tuple[np.ndarray, np.ndarray, np.ndarray]


def standard_primitive(cell: np.ndarray, frac: np.ndarray, numbers: np.ndarray, symprec: float = 0.1) -> Cell:
    """Standard primitive cell of a crystal (spglib's setting), or the Niggli cell where that changes the crystal.

    Every crystal has infinitely many primitive cells. In spglib's standard setting the axes follow the symmetry
    axes whatever the axial ratios are, so crystals of one prototype have neighbouring cells and coordinates. If the
    standard cell has another number of atoms than the cell given (the cell was not primitive, or becomes so within
    `symprec`), the given crystal is kept and only Niggli-reduced.

    Parameters
    ----------
    cell : ndarray, shape (3, 3), Å
        Rows are lattice vectors.
    frac : ndarray, shape (n, 3)
    numbers : ndarray, shape (n,)
    symprec : float, Å

    Returns
    -------
    (cell, frac, numbers)
        Cell of positive volume; fractional coordinates in [0, 1).
    """
    with np.errstate(all="ignore"):
        try:
            found: Any = spglib.standardize_cell((cell, frac, numbers), to_primitive=True, no_idealize=False, symprec=symprec)  # type: ignore[arg-type]
        except spglib.SpglibError:
            found = None
    if np.linalg.det(cell) < 0:
        cell, frac = -cell, -frac
    if found is not None and len(found[2]) == len(numbers):
        volume = abs(np.linalg.det(found[0])) / abs(np.linalg.det(cell))
        if 0.9 < volume < 1.1:
            return np.asarray(found[0]), np.asarray(found[1]) % 1.0, np.asarray(found[2])
    return niggli(cell, frac, numbers)


def niggli(cell: np.ndarray, frac: np.ndarray, numbers: np.ndarray) -> Cell:
    """The crystal in its Niggli-reduced cell; returned as given where the reduction fails."""
    try:
        reduced = spglib.niggli_reduce(cell)
    except spglib.SpglibError:
        reduced = None
    if reduced is None:
        return cell, frac % 1.0, numbers
    change = np.rint(cell @ np.linalg.inv(reduced))
    if abs(abs(np.linalg.det(change)) - 1.0) > 1e-6:
        return cell, frac % 1.0, numbers
    if np.linalg.det(reduced) < 0:
        reduced, change = -reduced, -change
    # the reduced axes are integer combinations of the given ones; spglib may turn them, the metric is what counts
    return reduced, (frac @ change) % 1.0, numbers
