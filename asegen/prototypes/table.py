"""The table of prototypes: which there are, what sits on their sites, and the known crystals of each.

A known crystal is remembered as its elements per slot, its own free parameters and volume (a few numbers), and its energy above
the hull where there is one. Prototypes of one composition are judged together, whatever the number of formula units in their cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain, groupby, permutations, product

import numpy as np
import torch
from torch import Tensor

from .geometry import Geometry

Counts = tuple[int, ...]
"""Atoms per element, falling."""

#: An energy above the hull that nobody knows is taken for this one where a number is needed, eV/atom.
TYPICAL_HULL = 0.1

#: Shells of the environments: distances in units of (V/N)^(1/3), and their width.
SHELLS = np.linspace(0.6, 1.95, 8)
_WIDTH = 0.14


@dataclass(frozen=True)
class Prototype:
    """One prototype."""

    number: int
    """Space group."""
    counts: Counts
    """Atoms in each slot."""
    geometry: Geometry
    swaps: tuple[tuple[int, ...], ...]
    """Exchanges of slots that change nothing."""
    environment: np.ndarray
    """Mean number of atoms of each slot in each shell around those of each slot, shape (slots, slots, shells)."""
    examples: np.ndarray
    """Elements in the slots of each training crystal, shape (m, slots), uint8."""
    own: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """What `geometry` predicts, as each training crystal has it, shape (m, d); (0, 0): not kept."""
    hull: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Energy of each training crystal above the hull, eV/atom, NaN where unknown, shape (m,) or (0,)."""
    published: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """Whether that energy was published (else a potential's), shape (m,) or (0,)."""
    material: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Number of the training crystal's Materials Project id (negative: ``mvc-``, 0: none), shape (m,) or (0,)."""

    @property
    def units(self) -> int:
        """Formula units in the primitive cell."""
        return math.gcd(*self.counts)

    @cached_property
    def sites(self) -> str:
        """Sites with their slots: ``A:1a B:1b C:3c``."""
        from ..symmetry.groups import space_group

        group = space_group(self.number)
        labels: dict[int, list[str]] = {}
        for letter, slot in zip(self.geometry.letters, self.geometry.slots, strict=True):
            labels.setdefault(slot, []).append(group.position(letter).label)
        return " ".join(f"{chr(65 + slot)}:{','.join(sorted(labels[slot], key=lambda x: x[-1]))}" for slot in sorted(labels))


@dataclass(frozen=True)
class Family:
    """All prototypes of the same anonymous formula, with any number of formula units, as tensors."""

    counts: Counts
    """Atoms per element in the formula unit."""
    members: np.ndarray
    """Positions of the prototypes in the table, shape (c,)."""
    orders: Tensor
    """Ways to put a formula's elements (in the order of `counts`) into the slots, shape (p, k)."""
    same: Tensor
    """For each prototype the first of the orders that give the same crystal, shape (c, p)."""
    examples: Tensor
    """Elements of the examples in the slots, shape (m, k)."""
    owner: Tensor
    """Prototype of each example, position in `members`, shape (m,)."""
    environment: Tensor
    """Shape (c, k, k, shells), float32."""
    units: Tensor
    """Formula units in the primitive cell of each prototype, shape (c,)."""
    first: Tensor
    """Position of each prototype's first example, shape (c,)."""
    hull: Tensor
    """Energy above the hull of the examples, eV/atom, NaN where unknown, shape (m,), float32."""

    @cached_property
    def share(self) -> Tensor:
        """Share of the atoms in each slot, shape (k,)."""
        return torch.tensor(self.counts, dtype=torch.float32) / sum(self.counts)

    @cached_property
    def candidate(self) -> Tensor:
        """Which candidate (prototype · orders + first equal order) each pair of order and example supports, shape (p, m)."""
        return (self.owner[:, None] * len(self.orders) + self.same[self.owner]).T.contiguous()

    @property
    def num_candidates(self) -> int:
        """Prototypes times orders; of equal orders only the first is ever supported."""
        return len(self.members) * len(self.orders)

    def split(self, candidate: Tensor) -> tuple[Tensor, Tensor]:
        """Prototype (position in `members`) and order of candidates."""
        return candidate // len(self.orders), candidate % len(self.orders)


class PrototypeTable:
    """Prototypes by composition.

    Parameters
    ----------
    prototypes : sequence of Prototype
    counts : sequence of tuple, optional
        Atoms per element of each, and …
    numbers : ndarray, optional
        … the space group of each, and …
    energies : bool, optional
        … whether the energy of any crystal is known, for a sequence that makes prototypes only when they are asked for.
    """

    def __init__(
        self,
        prototypes: Sequence[Prototype],
        counts: Sequence[Counts] | None = None,
        numbers: np.ndarray | None = None,
        energies: bool | None = None,
    ) -> None:
        self.prototypes = prototypes
        self.has_energies = any(np.isfinite(p.hull).any() for p in prototypes) if energies is None else energies
        """Whether the energy of any crystal is known; without, nothing tells a stable crystal from others."""
        every = [p.counts for p in prototypes] if counts is None else counts
        self._numbers = np.array([p.number for p in prototypes]) if numbers is None else numbers
        self._elements = np.array([len(c) for c in every])
        self._by_counts: dict[Counts, list[int]] = {}
        for position, own in enumerate(every):
            self._by_counts.setdefault(unit_of(own), []).append(position)
        self._families: dict[Counts, Family] = {}

    def __len__(self) -> int:
        return len(self.prototypes)

    @property
    def counts(self) -> list[Counts]:
        """Atoms per element in the formula unit of all families."""
        return list(self._by_counts)

    @cached_property
    def groups(self) -> np.ndarray:
        """How many prototypes there are for each number of elements and space group, shape (elements + 1, 231)."""
        table = np.zeros((self._elements.max(initial=0) + 1, 231), dtype=np.int64)
        np.add.at(table, (self._elements, self._numbers), 1)
        return table

    def family(self, counts: Counts) -> Family | None:
        """Prototypes of this anonymous formula, with any number of formula units, or None."""
        counts = unit_of(counts)
        members = self._by_counts.get(counts)
        if members is None:
            return None
        if counts not in self._families:
            self._families[counts] = self._build(counts, members)
        return self._families[counts]

    def _build(self, counts: Counts, members: list[int]) -> Family:
        chosen = [self.prototypes[k] for k in members]
        orders = orders_of(counts)
        place = {order: k for k, order in enumerate(orders)}
        same = np.empty((len(chosen), len(orders)), dtype=np.int64)
        for row, prototype in enumerate(chosen):
            group = _closure(prototype.swaps, len(counts))
            same[row] = [min(place[tuple(order[j] for j in swap)] for swap in group) for order in orders]
        return Family(
            counts,
            np.array(members),
            torch.tensor(orders),
            torch.from_numpy(same),
            torch.from_numpy(np.concatenate([p.examples for p in chosen]).astype(np.int64)),
            torch.from_numpy(np.repeat(np.arange(len(chosen)), [len(p.examples) for p in chosen])),
            torch.from_numpy(np.array([p.environment for p in chosen], dtype=np.float32)),
            torch.tensor([p.units for p in chosen]),
            torch.from_numpy(np.cumsum([0, *(len(p.examples) for p in chosen[:-1])])),
            torch.from_numpy(np.concatenate([p.hull if len(p.hull) else np.full(len(p.examples), np.nan) for p in chosen])).float(),
        )


def unit_of(counts: Counts) -> Counts:
    """Atoms per element in the formula unit."""
    divisor = math.gcd(*counts)
    return tuple(count // divisor for count in counts)


@cache
def orders_of(counts: Counts) -> list[tuple[int, ...]]:
    """Orders that exchange only elements with equal numbers of atoms; the first changes nothing."""
    groups = [list(group) for _, group in groupby(range(len(counts)), key=lambda k: counts[k])]
    return [tuple(chain(*choice)) for choice in product(*(permutations(group) for group in groups))]


def composition(numbers: np.ndarray) -> tuple[np.ndarray, Counts]:
    """Elements of a crystal by falling number of atoms (then by atomic number), and those numbers."""
    elements, counts = np.unique(numbers, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return elements[order], tuple(counts[order].tolist())


def environment_of(slot: np.ndarray, frac: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """Mean number of atoms of each slot in each shell around those of each slot, shape (slots, slots, shells).

    Parameters
    ----------
    slot : ndarray, shape (n,)
    frac : ndarray, shape (n, 3)
    metric : ndarray, shape (3, 3)
        Of the cell at volume 1.
    """
    count, slots = len(slot), int(slot.max()) + 1
    cell = np.linalg.cholesky(metric * count ** (2 / 3))
    reach = SHELLS[-1] + 0.1
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    images = np.array(list(product(*(range(-int(r), int(r) + 1) for r in np.ceil(reach / heights) + 1))))
    places = frac - np.floor(frac)
    away = (places[None, :, None] - places[:, None, None] + images) @ cell
    length = np.sqrt((away**2).sum(-1))
    length[length < 1e-6] = np.inf
    near = np.exp(-(((length[..., None] - SHELLS) / _WIDTH) ** 2)).sum(2)
    member = (slot[:, None] == np.arange(slots)).astype(float)
    return np.einsum("is,ijg,jt->stg", member / member.sum(0), near, member)


def _closure(swaps: Sequence[tuple[int, ...]], size: int) -> set[tuple[int, ...]]:
    group = {tuple(range(size)), *swaps}
    while True:
        larger = group | {tuple(a[j] for j in b) for a in group for b in group}
        if len(larger) == len(group):
            return group
        group = larger


__all__ = [
    "TYPICAL_HULL",
    "Counts",
    "Family",
    "Prototype",
    "PrototypeTable",
    "composition",
    "environment_of",
    "orders_of",
    "unit_of",
]
