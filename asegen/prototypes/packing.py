"""The table of prototypes as a few flat arrays, and prototypes made from them when they are asked for.

A packaged table holds tens of thousands of prototypes and a run looks at a few hundred, so nothing is unpacked before that.

Numbers are rounded to what matters: means to 1/32767 of the largest (some 1e-4), a crystal's own parameters to 1e-4, energies to
1 meV/atom, environments to 2 % and, being symmetric up to the numbers of atoms, one triangle of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import overload

import numpy as np

from .geometry import Geometry
from .table import SHELLS, Counts, Prototype, PrototypeTable

_ROOT = 40.0  # steps of the stored square roots of environments
_OWN = 1e-4  # steps of a crystal's own parameters, measured from the mean of its prototype
_UNKNOWN = -32768  # energy that is not known, in meV


class Packed(Sequence[Prototype]):
    """Prototypes in flat arrays; each is made when it is first asked for.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        As :func:`pack_table` makes them.

    Raises
    ------
    KeyError, ValueError
        An array is missing, or they disagree in length.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        slots, sites, swaps, examples = (arrays[name].astype(np.int64) for name in ("slots", "sites", "swaps", "examples"))
        values, fitted = arrays["values"].astype(np.int64), arrays["fitted"].astype(bool)
        features = slots * 7 * fitted
        self.arrays = dict(arrays)
        #: Space groups, shape (c,).
        self.numbers = arrays["number"].astype(np.int64)
        self._scale = float(arrays["mean_scale"][0])
        self._sizes = {"slots": slots, "values": values}
        sizes = {
            "counts": slots,
            "letters": sites,
            "site_slots": sites,
            "mean": values,
            "slope": features * values,
            "centre": features,
            "environment": slots * (slots + 1) // 2 * len(SHELLS),
            "swap_slots": swaps * slots,
            "elements": examples * slots,
        }
        # files of format 1 keep no crystals, only what sits on their sites
        self.keeps_crystals = "own" in arrays
        if self.keeps_crystals:
            sizes |= {"own": examples * values, "hull": examples, "published": examples, "material": examples}
        self._ends = {}
        for name, size in sizes.items():
            if len(size) != len(self.numbers) or size.sum() != len(arrays[name]):
                raise ValueError(f"array {name!r} has {len(arrays[name])} entries instead of {size.sum()}")
            self._ends[name] = np.concatenate([[0], np.cumsum(size)])
        if not len(arrays["spread"]) == len(fitted) == len(self.numbers):
            raise ValueError("the arrays of the table disagree in length")
        if len(self.numbers) and not 1 <= self.numbers.min() <= self.numbers.max() <= 230:
            raise ValueError("array 'number' holds something else than space groups")
        letters = arrays["letters"]
        if not (((letters >= ord("a")) & (letters <= ord("z"))) | (letters == ord("A"))).all():
            raise ValueError("array 'letters' holds something else than Wyckoff letters")
        #: Whether the energy of any crystal is known.
        self.has_energies = self.keeps_crystals and bool((arrays["hull"] != _UNKNOWN).any())
        ends = self._ends["counts"].tolist()
        flat = arrays["counts"].tolist()
        #: Atoms per element of each prototype.
        self.counts: list[Counts] = [tuple(flat[a:b]) for a, b in pairwise(ends)]
        self._made: dict[int, Prototype] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, k: int) -> Prototype: ...
    @overload
    def __getitem__(self, k: slice) -> list[Prototype]: ...
    def __getitem__(self, k: int | slice) -> Prototype | list[Prototype]:
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(len(self)))]
        if not -len(self) <= k < len(self):
            raise IndexError(k)
        k = int(k) % len(self)
        if k not in self._made:
            self._made[k] = self._make(k)
        return self._made[k]

    def __iter__(self) -> Iterator[Prototype]:
        return (self[k] for k in range(len(self)))

    def _part(self, name: str, k: int) -> np.ndarray:
        return self.arrays[name][self._ends[name][k] : self._ends[name][k + 1]]

    def _make(self, k: int) -> Prototype:
        count, size = int(self._sizes["slots"][k]), int(self._sizes["values"][k])
        mean = self._part("mean", k) * self._scale
        geometry = Geometry(
            self._part("letters", k).tobytes().decode(),
            tuple(self._part("site_slots", k).tolist()),
            mean,
            self._part("slope", k).astype(np.float64).reshape(-1, size),
            self._part("centre", k).astype(np.float64),
            self.arrays["spread"][k].astype(np.float64),
        )
        counts = np.array(self.counts[k], dtype=np.float32)
        environment = np.zeros((count, count, len(SHELLS)), dtype=np.float32)
        rows, cols = _triangle(count)
        environment[rows, cols] = (self._part("environment", k).reshape(-1, len(SHELLS)) / np.float32(_ROOT)) ** 2
        # each pair of atoms is seen from both ends
        environment[cols, rows] = environment[rows, cols] * (counts[rows] / counts[cols])[:, None]
        swaps = tuple(tuple(row) for row in self._part("swap_slots", k).reshape(-1, count).tolist())
        elements = self._part("elements", k).reshape(-1, count)
        made = Prototype(int(self.numbers[k]), self.counts[k], geometry, swaps, environment, elements)
        if not self.keeps_crystals:
            return made
        hull = self._part("hull", k)
        kept = (
            mean + self._part("own", k).reshape(-1, size) * _OWN,
            np.where(hull == _UNKNOWN, np.nan, hull / 1000.0),
            self._part("published", k).astype(bool),
            self._part("material", k).astype(np.int64),
        )
        return Prototype(made.number, made.counts, geometry, swaps, environment, elements, *kept)


@cache
def _triangle(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(count)


def pack_table(table: PrototypeTable) -> dict[str, np.ndarray]:
    """The table as a few flat arrays."""
    p = list(table.prototypes)
    mean = np.concatenate([x.geometry.mean for x in p])
    scale = max(float(np.abs(mean).max()), 1e-9) / 32767
    rounded = np.rint(mean / scale).astype(np.int16)
    environment = np.concatenate([x.environment[_triangle(len(x.counts))].ravel() for x in p])
    arrays = {
        "number": np.array([x.number for x in p], dtype=np.uint8),
        "slots": np.array([len(x.counts) for x in p], dtype=np.uint8),
        "counts": np.array([c for x in p for c in x.counts], dtype=np.uint16),
        "sites": np.array([len(x.geometry.letters) for x in p], dtype=np.uint8),
        "letters": np.frombuffer("".join(x.geometry.letters for x in p).encode(), dtype=np.uint8),
        "site_slots": np.array([s for x in p for s in x.geometry.slots], dtype=np.uint8),
        "values": np.array([len(x.geometry.mean) for x in p], dtype=np.uint16),
        "mean": rounded,
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
    if not all(len(x.own) == len(x.examples) for x in p):
        return arrays
    ends = np.cumsum([0, *(len(x.geometry.mean) for x in p)])
    away = [x.own - rounded[a:b] * scale for x, (a, b) in zip(p, pairwise(ends), strict=True)]
    own = np.rint(np.concatenate([part.ravel() for part in away]) / _OWN)
    if np.abs(own).max(initial=0) > 32767:
        raise ValueError("a crystal lies further from its prototype's mean than can be stored")
    hull = np.concatenate([np.where(np.isnan(x.hull), _UNKNOWN, np.clip(np.rint(1000 * np.nan_to_num(x.hull)), -32767, 32767)) for x in p])
    return arrays | {
        "own": own.astype(np.int16),
        "hull": hull.astype(np.int16),
        "published": np.concatenate([x.published for x in p]).astype(np.uint8),
        "material": np.concatenate([x.material for x in p]).astype(np.int32),
    }


def unpack_table(arrays: Mapping[str, np.ndarray]) -> PrototypeTable:
    """Inverse of :func:`pack_table`."""
    packed = Packed(arrays)
    return PrototypeTable(packed, packed.counts, packed.numbers, packed.has_energies)


__all__ = ["Packed", "pack_table", "unpack_table"]
