"""Whether a crystal has atoms on each other: its closest contact, measured in covalent radii.

>>> from asegen.contacts import too_close
>>> too_close(atoms)
''
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from .crystals import check_atoms

TOO_CLOSE = 0.55
"""Share of the sum of two covalent radii below which atoms lie on each other; every crystal of MP-20 keeps more."""

# Reach of the first look, in sums of radii: bonds are found at once, without the shells beyond them.
_REACH = 1.1
_MOST_ROUNDS = 100
# One of every pair ±v of the 26 vectors around the origin.
_AROUND = np.array([steps for steps in product((-1, 0, 1), repeat=3) if steps > (0, 0, 0)])


class Contact(NamedTuple):
    """Two atoms, of all pairs the closest for their size."""

    ratio: float
    """Distance over the sum of the covalent radii."""
    distance: float
    """Å."""
    pair: tuple[str, str]
    """Their symbols, in alphabetical order."""
    image: bool
    """An atom and its own periodic image."""


def closest_contact(atoms: Atoms) -> Contact:
    """The pair of atoms with the smallest distance over the sum of covalent radii, own images included.

    Exact for any shape of cell; about 0.1 ms for ten atoms. Elements not yet decided (X) count with ASE's radius of 0.2 Å.

    Parameters
    ----------
    atoms : ase.Atoms
        Periodic in three directions; positions need not be wrapped.

    Returns
    -------
    Contact

    Raises
    ------
    CrystalError
        Not a crystal (no atoms, not periodic, no volume).
    """
    from vesin import NeighborList

    check_atoms(atoms)
    box = _short_vectors(atoms.cell.array)
    radii = covalent_radii[atoms.numbers]
    largest = 2 * float(radii.max())
    # every atom has an image this far off, so nothing farther can be the closest contact of the largest atoms
    own = float(np.sqrt((box**2).sum(1).min())) * (1 + 1e-9)
    frac = atoms.positions @ np.linalg.inv(box)
    points = (frac - np.floor(frac)) @ box
    cutoff = min(own, _REACH * largest)
    while True:
        finder = NeighborList(cutoff=cutoff, full_list=False)
        first, second, distance = finder.compute(points=points, box=box, periodic=True, quantities="ijd")
        if len(distance):
            ratio = distance / (radii[first] + radii[second])
            k = int(ratio.argmin())
            # a pair of smaller ratio is closer than the largest atoms would be at this ratio
            if cutoff >= min(own, ratio[k] * largest):
                i, j = int(first[k]), int(second[k])
                a, b = sorted(chemical_symbols[atoms.numbers[n]] for n in (i, j))
                return Contact(float(ratio[k]), float(distance[k]), (a, b), i == j)
            cutoff = min(own, float(ratio[k]) * largest * (1 + 1e-9))
        else:
            cutoff = min(own, 2 * cutoff)


def too_close(atoms: Atoms) -> str:
    """Which atoms lie on each other, in one sentence; an empty text for a crystal whose atoms keep apart.

    Examples
    --------
    >>> too_close(atoms)
    'O and O are 0.003 Å apart (less than 0.55 of the sum of their covalent radii)'
    """
    found = closest_contact(atoms)
    if found.ratio >= TOO_CLOSE:
        return ""
    a, b = found.pair
    whose = f"{a} and its own image" if found.image else f"{a} and {b}"
    return f"{whose} are {found.distance:.3g} Å apart (less than {TOO_CLOSE} of the sum of their covalent radii)"


def _short_vectors(cell: np.ndarray) -> np.ndarray:
    """A cell of the same lattice whose vectors cannot be made shorter by adding others; it contains the shortest vector."""
    box = np.array(cell, dtype=float)
    for _ in range(_MOST_ROUNDS):
        lengths = (box**2).sum(1)
        around = _AROUND @ box
        square = (around**2).sum(1)
        # a combination may take the place of any vector that is part of it
        gain = np.where(_AROUND != 0, lengths - square[:, None], -np.inf)
        k = int(gain.argmax())
        if gain.flat[k] <= 1e-12 * lengths.max():
            break
        box[k % 3] = around[k // 3]
    return box


__all__ = ["TOO_CLOSE", "Contact", "closest_contact", "too_close"]
