"""What can be said about a crystal before and during a relaxation without asking a potential: overlaps, gaps, collapse."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from ..crystals import check_atoms
from ..errors import CrystalError

OVERLAP = 0.5
"""Atoms closer than this, Å, are no start of a relaxation."""
COLLAPSE = 0.55
"""A relaxation is stopped where two atoms come closer than this share of the sum of their radii: a hole in the potential."""
NEAREST = 0.7
"""The least share in a relaxed crystal; every one of 35,333 crystals of MP-20 keeps more."""
VACUUM = 6.0
"""A layer without atoms that is thicker than this, Å, makes a slab; layered crystals have 3 to 4."""
_VANISHED = 8.0
"""Volume per atom, in units of what the elements usually take, at which a crystal has flown apart."""


def why_not_relax(atoms: Atoms, reach: float | None, cell: bool) -> str | None:
    """Why a relaxation makes no sense, or None.

    Parameters
    ----------
    atoms : ase.Atoms
    reach : float or None, Å
        Distance up to which the potential sees neighbours.
    cell : bool
        Whether the cell is to be relaxed as well.
    """
    try:
        check_atoms(atoms)
    except CrystalError as error:
        return str(error)
    first, second, distance = pairs(atoms, max(OVERLAP, reach or 0.0))
    symbols = atoms.get_chemical_symbols()
    if len(distance) and distance.min() < OVERLAP:
        k = int(distance.argmin())
        i, j = int(first[k]), int(second[k])
        whose = f"{symbols[i]}{i} and its own image" if i == j else f"{symbols[i]}{i} and {symbols[j]}{j}"
        return f"{whose} are {distance[k]:.2f} Å apart; move them apart first (below {OVERLAP} Å nothing is relaxed)"
    if reach is not None:
        alone = np.setdiff1d(np.arange(len(atoms)), first)
        if len(alone):
            k = int(alone[0])
            return f"{symbols[k]}{k} is an isolated atom: it has no neighbour within {reach:g} Å, which is all that the potential sees"
    if cell and (found := vacuum(atoms)) is not None:
        axis, gap = found
        return (
            f"it is a slab or molecule with {gap:.1f} Å of vacuum along {'abc'[axis]}: relaxing its cell means nothing;"
            " keep the cell (cell='fixed', --fixed-cell)"
        )
    return None


def vacuum(atoms: Atoms) -> tuple[int, float] | None:
    """Axis and thickness (Å) of the widest layer without atoms, if it is wider than `VACUUM`."""
    frac = np.sort(atoms.get_scaled_positions(wrap=True), axis=0)
    heights = atoms.get_volume() / np.linalg.norm(np.cross(atoms.cell[[1, 2, 0]], atoms.cell[[2, 0, 1]]), axis=1)
    gaps = np.diff(np.concatenate([frac, frac[:1] + 1.0]), axis=0).max(0) * heights
    # two covalent radii are not empty, but the atoms at both sides of the layer
    empty = gaps - 2 * float(covalent_radii[atoms.numbers].mean())
    axis = int(empty.argmax())
    return (axis, float(gaps[axis])) if empty[axis] > VACUUM else None


def radii(numbers: np.ndarray) -> np.ndarray:
    """Covalent radii (Cordero et al., Dalton Trans. 2832 (2008)), Å, shape (N,).

    At most 1.8 Å, for actinides 1.6 Å: the heaviest alkali metals and the actinides bond more closely than their size says.
    """
    return np.asarray(np.minimum(covalent_radii[numbers], np.where(np.asarray(numbers) >= 89, 1.6, 1.8)))


def pairs(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of atoms closer than a cutoff: first atom, second atom, distance in Å; both directions, images included."""
    from vesin import NeighborList

    found = NeighborList(cutoff=cutoff, full_list=True).compute(
        points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijd"
    )
    return found[0].astype(int), found[1].astype(int), found[2]


class Watch:
    """Looks every now and then whether a relaxation still is one of a crystal.

    Parameters
    ----------
    atoms : ase.Atoms
        The start.
    """

    def __init__(self, atoms: Atoms) -> None:
        from ..prior import atomic_volumes

        usual = float(np.nansum(atomic_volumes()[atoms.numbers]))
        self._most = _VANISHED * max(usual, atoms.get_volume())
        self._radii = radii(atoms.numbers)
        self._nearest = 2 * NEAREST * float(self._radii.max())
        # a random start may have atoms that are too close: they must come apart, not closer
        self._start = min(COLLAPSE, 0.9 * float(self._ratios(atoms)[2].min(initial=np.inf)))

    def complaint(self, atoms: Atoms, final: bool = False) -> str | None:
        """What is wrong, or None; the final state must have no atoms too close, whatever the start had."""
        volume = atoms.get_volume()
        if volume > self._most:
            return f"flew apart ({volume / len(atoms):.0f} Å³ per atom)"
        if volume < 0.5 * len(atoms):
            return f"collapsed ({volume / len(atoms):.2f} Å³ per atom)"
        first, second, ratio = self._ratios(atoms)
        if len(ratio) and ratio.min() < (NEAREST if final else self._start):
            k = int(ratio.argmin())
            i, j = int(first[k]), int(second[k])
            a, b = (chemical_symbols[atoms.numbers[n]] for n in (i, j))
            return f"collapsed ({a} and {b} are {ratio[k] * (self._radii[i] + self._radii[j]):.2f} Å apart)"
        return None

    def _ratios(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Close pairs and their distances over the sums of covalent radii."""
        first, second, distance = pairs(atoms, self._nearest)
        return first, second, distance / (self._radii[first] + self._radii[second])
