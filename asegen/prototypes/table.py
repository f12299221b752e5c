"""The table of prototypes: which there are, what sits on their sites, which compositions they were seen with.

Compositions are remembered as elements per slot; the geometry of an example never is, it goes into the regression of its
prototype (:mod:`asegen.prototypes.geometry`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, groupby, permutations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .geometry import Geometry

Counts = tuple[int, ...]
"""Atoms per element, falling."""

#: Shells of the environments: distances in units of (V/N)^(1/3), and their width.
SHELLS = np.linspace(0.6, 1.95, 8)
_WIDTH = 0.14
_ROOT = 40.0  # steps of the stored square roots of environments


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
    """All prototypes with the same numbers of atoms per element, as tensors."""

    counts: Counts
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
    """

    def __init__(self, prototypes: Sequence[Prototype]) -> None:
        self.prototypes = tuple(prototypes)
        self._by_counts: dict[Counts, list[int]] = {}
        for position, prototype in enumerate(self.prototypes):
            self._by_counts.setdefault(prototype.counts, []).append(position)
        self._families: dict[Counts, Family] = {}

    def __len__(self) -> int:
        return len(self.prototypes)

    @property
    def counts(self) -> list[Counts]:
        """Atoms per element of all families."""
        return list(self._by_counts)

    def family(self, counts: Counts) -> Family | None:
        """Prototypes with these numbers of atoms per element, or None."""
        members = self._by_counts.get(tuple(counts))
        if members is None:
            return None
        if counts not in self._families:
            self._families[counts] = self._build(tuple(counts), members)
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
        )


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


# ---------------------------------------------------------------------------------------------------------- as flat arrays


def pack_table(table: PrototypeTable) -> dict[str, np.ndarray]:
    """The table as a few flat arrays.

    Rounded to what matters: means to 1/32767 of the largest (some 1e-4), environments to 2 % and, being symmetric up to the
    numbers of atoms, one triangle of them.
    """
    p = table.prototypes
    mean = np.concatenate([x.geometry.mean for x in p])
    scale = max(float(np.abs(mean).max()), 1e-9) / 32767
    environment = np.concatenate([x.environment[np.triu_indices(len(x.counts))].ravel() for x in p])
    return {
        "number": np.array([x.number for x in p], dtype=np.uint8),
        "slots": np.array([len(x.counts) for x in p], dtype=np.uint8),
        "counts": np.array([c for x in p for c in x.counts], dtype=np.uint16),
        "sites": np.array([len(x.geometry.letters) for x in p], dtype=np.uint8),
        "letters": np.frombuffer("".join(x.geometry.letters for x in p).encode(), dtype=np.uint8),
        "site_slots": np.array([s for x in p for s in x.geometry.slots], dtype=np.uint8),
        "values": np.array([len(x.geometry.mean) for x in p], dtype=np.uint16),
        "mean": np.rint(mean / scale).astype(np.int16),
        "mean_scale": np.array([scale], dtype=np.float64),
        "fitted": np.array([len(x.geometry.slope) > 0 for x in p], dtype=np.uint8),
        "slope": np.concatenate([x.geometry.slope.ravel() for x in p]).astype(np.float16),
        "centre": np.concatenate([x.geometry.centre for x in p]).astype(np.float16),
        "spread": np.array([x.geometry.spread for x in p], dtype=np.float16),
        "environment": np.clip(np.rint(_ROOT * np.sqrt(environment)), 0, 255).astype(np.uint8),
        "swaps": np.array([len(x.swaps) for x in p], dtype=np.uint16),
        "swap_slots": np.array([s for x in p for swap in x.swaps for s in swap], dtype=np.uint8),
        "examples": np.array([len(x.examples) for x in p], dtype=np.uint32),
        "elements": np.concatenate([x.examples.ravel() for x in p]).astype(np.uint8),
    }


def unpack_table(arrays: Mapping[str, np.ndarray]) -> PrototypeTable:
    """Inverse of :func:`pack_table`."""
    slots, swaps, examples = (arrays[name].astype(np.int64) for name in ("slots", "swaps", "examples"))
    values, fitted = arrays["values"].astype(np.int64), arrays["fitted"].astype(bool)
    scale = float(arrays["mean_scale"][0])
    features = slots * 7 * fitted

    def parts(name: str, sizes: np.ndarray) -> list[np.ndarray]:
        if sizes.sum() != len(arrays[name]):
            raise ValueError(f"array {name!r} has {len(arrays[name])} entries instead of {sizes.sum()}")
        return np.split(arrays[name], np.cumsum(sizes)[:-1])

    columns: dict[str, list[Any]] = {
        "counts": parts("counts", slots),
        "letters": parts("letters", arrays["sites"].astype(np.int64)),
        "site_slots": parts("site_slots", arrays["sites"].astype(np.int64)),
        "mean": parts("mean", values),
        "slope": parts("slope", features * values),
        "centre": parts("centre", features),
        "environment": parts("environment", slots * (slots + 1) // 2 * len(SHELLS)),
        "swap_slots": parts("swap_slots", swaps * slots),
        "elements": parts("elements", examples * slots),
    }
    made = []
    for k, number in enumerate(arrays["number"].tolist()):
        count, size = int(slots[k]), int(values[k])
        geometry = Geometry(
            columns["letters"][k].tobytes().decode(),
            tuple(columns["site_slots"][k].tolist()),
            columns["mean"][k] * scale,
            columns["slope"][k].astype(np.float64).reshape(-1, size),
            columns["centre"][k].astype(np.float64),
            arrays["spread"][k].astype(np.float64),
        )
        swap = tuple(tuple(row) for row in columns["swap_slots"][k].reshape(-1, count).tolist())
        counts = columns["counts"][k].astype(np.float32)
        environment = np.zeros((count, count, len(SHELLS)), dtype=np.float32)
        rows, cols = np.triu_indices(count)
        environment[rows, cols] = (columns["environment"][k].reshape(-1, len(SHELLS)) / np.float32(_ROOT)) ** 2
        # each pair of atoms is seen from both ends
        environment[cols, rows] = environment[rows, cols] * (counts[rows] / counts[cols])[:, None]
        elements = columns["elements"][k].reshape(-1, count)
        made.append(Prototype(number, tuple(columns["counts"][k].tolist()), geometry, swap, environment, elements))
    return PrototypeTable(made)


__all__ = ["Counts", "Family", "Prototype", "PrototypeTable", "composition", "environment_of", "orders_of", "pack_table", "unpack_table"]
