"""Crystals in the standard setting of their space group, with every equivalent description of them.

The same prototype can be written in several ways: the origin can sit on another position of equal symmetry, axes can be
exchanged. The operations of the group's normalizer lead from one to the next; moyopy knows them. Two crystals are compared
over all of these descriptions (:mod:`asegen.prototypes.alignment`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..errors import MissingPackageError

Key = tuple[int, tuple[tuple[int, str], ...]]
"""Group number and, per element, minus its number of atoms and the letters of its sites, sorted."""

_Normalizer = tuple[list[tuple[np.ndarray, np.ndarray]], list[tuple[np.ndarray, np.ndarray, dict[str, str]]]]
_TOLERANCES = (0.1, 0.05, 0.02, 0.01, 1e-3)


@dataclass(frozen=True)
class StandardCrystal:
    """One crystal, all its descriptions that give it the same (least) key."""

    key: Key
    numbers: np.ndarray
    """Atomic numbers, shape (n,)."""
    letters: np.ndarray
    """Wyckoff letters of the atoms in each description, shape (k, n)."""
    orders: list[list[list[int]]]
    """Per description the orders of the elements that agree with the key (several if elements share an entry)."""
    frac: np.ndarray
    """Fractional coordinates in the primitive cell, shape (k, n, 3)."""
    metric: np.ndarray
    """Metric tensors of the primitive cell at volume 1, shape (k, 3, 3)."""
    volume: float
    """Of the primitive cell, Å³."""
    conventional: np.ndarray
    """``conventional_cell = conventional @ primitive_cell`` (rows), shape (3, 3)."""

    @property
    def number(self) -> int:
        """Space group."""
        return self.key[0]


def standard_crystal(cell: np.ndarray, frac: np.ndarray, numbers: np.ndarray) -> StandardCrystal | None:
    """Bring a crystal into the standard setting of its space group, in its primitive cell.

    The loosest tolerance from 0.1 Å down is used at which the cell has as many atoms as at the tightest one.

    Parameters
    ----------
    cell : ndarray, shape (3, 3), Å
    frac : ndarray, shape (n, 3)
    numbers : ndarray, shape (n,)

    Returns
    -------
    StandardCrystal or None
        None where no symmetry can be found.

    Raises
    ------
    MissingPackageError
        moyopy is not installed.
    """
    found_at = _dataset(cell, frac, numbers)
    if found_at is None:
        return None
    dataset, (stabilizer, cosets) = found_at
    primitive = np.array(dataset.prim_std_cell.basis).reshape(3, 3)
    places = np.array(dataset.prim_std_cell.positions)
    species = np.array(dataset.prim_std_cell.numbers)
    letters = np.empty(len(species), dtype="<U1")
    orbit = np.empty(len(species), dtype=np.int64)
    to_primitive = list(dataset.mapping_std_prim)
    for atom, place in enumerate(to_primitive):
        letters[place] = dataset.wyckoffs[atom]
        orbit[place] = to_primitive[dataset.orbits[atom]]

    found: list[tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, tuple[int, str]]]] = []
    best: tuple[tuple[int, str], ...] | None = None
    for linear, shift, exchange in cosets:
        renamed = np.array([exchange.get(letter, letter) for letter in letters])
        slots = _slots(species, renamed, orbit)
        entries = tuple(sorted(slots.values()))
        if best is None or entries < best:
            best, found = entries, []
        if entries == best:
            found += [(linear @ inner, linear @ offset + shift, renamed, slots) for inner, offset in stabilizer]
    assert best is not None
    operations = np.array([linear for linear, *_ in found])
    inverse = np.linalg.inv(operations)
    volume = abs(float(np.linalg.det(primitive)))
    metric = primitive @ primitive.T / volume ** (2 / 3)
    conventional = np.array(dataset.std_cell.basis).reshape(3, 3) @ np.linalg.inv(primitive)
    return StandardCrystal(
        (int(dataset.number), best),
        species,
        np.array([renamed for _, _, renamed, _ in found]),
        [_orders(slots) for *_, slots in found],
        np.einsum("kij,nj->kni", operations, places) + np.array([shift for _, shift, *_ in found])[:, None],
        np.swapaxes(inverse, -1, -2) @ metric @ inverse,
        volume,
        np.rint(conventional),
    )


def _dataset(cell: np.ndarray, frac: np.ndarray, numbers: np.ndarray) -> tuple[Any, _Normalizer] | None:
    try:
        import moyopy
    except ImportError as error:
        raise MissingPackageError("training prototypes needs moyopy; install it with: pip install 'asegen[train]'") from error
    # it would report every crystal that is not quite symmetric
    logging.getLogger("moyo").setLevel(logging.ERROR)
    given = moyopy.Cell(cell.tolist(), frac.tolist(), [int(z) for z in numbers])
    found: list[tuple[Any, _Normalizer]] = []
    for tolerance in _TOLERANCES:
        try:
            dataset = moyopy.MoyoDataset(given, symprec=tolerance, setting=moyopy.Setting.standard())
            found.append((dataset, _normalizer(dataset)))
        except ValueError:
            continue
        if len(dataset.prim_std_cell.numbers) == len(numbers):
            return found[-1]
    # not primitive at any tolerance: a supercell, whose primitive cell is the crystal (the first of equal ones is the loosest)
    return max(found, key=lambda pair: len(pair[0].prim_std_cell.numbers), default=None)


def _normalizer(dataset: Any) -> _Normalizer:
    """Operations that keep the letters, and those that exchange them (with the exchange)."""
    found = dataset.normalizer_wyckoff_positions(primitive=True)
    own = [position.letter for position in found.wyckoffs]
    stabilizer = [(np.array(x.linear, dtype=float), np.array(x.origin_shift)) for x in found.stabilizer]
    cosets = [
        (np.array(x.linear, dtype=float), np.array(x.origin_shift), dict(zip(own, (p.letter for p in sequence), strict=True)))
        for x, sequence in found.coset_representatives
    ]
    return stabilizer, cosets


def _slots(numbers: np.ndarray, letters: np.ndarray, orbit: np.ndarray) -> dict[int, tuple[int, str]]:
    """Per element minus the number of atoms and the letters of its sites."""
    slots = {}
    for z in np.unique(numbers):
        own = numbers == z
        slots[int(z)] = (-int(own.sum()), "".join(sorted(letters[np.unique(orbit[own])])))
    return slots


def _orders(slots: dict[int, tuple[int, str]]) -> list[list[int]]:
    """Orders of the elements by their entries; elements with equal entries in every order."""
    entries = sorted(set(slots.values()))
    return [list(order) for order in _products(tuple(tuple(z for z in slots if slots[z] == entry) for entry in entries))]


@cache
def _products(groups: tuple[tuple[int, ...], ...]) -> list[list[int]]:
    from itertools import chain, permutations, product

    return [list(chain(*choice)) for choice in product(*(permutations(group) for group in groups))]


__all__ = ["Key", "StandardCrystal", "standard_crystal"]
