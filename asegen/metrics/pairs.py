"""Pairs of crystals compared by pymatgen's StructureMatcher: in processes, within a time limit, each pair once.

Two filters come before a comparison, both exact: crystals can only match when their reduced formulas are the same, and
(for yes-or-no comparisons) when their primitive cells hold the same number of sites. The cells are reduced once per crystal
instead of once per pair, with the matcher's own functions, so the answers are pymatgen's.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from .cache import Cache
from .crystalset import CrystalSet
from .workers import Failure, Workers, checked_limit

VERSION = 2
"""Part of the names in the cache; raised when the meaning of what is stored changes."""
FLUSH = 10.0
"""Seconds after which new answers are on the disk at the latest."""

Progress = Callable[[str, int, int], None]
"""Called with what is done, how many are done, and how many there are."""


class Tolerances(NamedTuple):
    """Tolerances of pymatgen's StructureMatcher."""

    ltol: float
    """Relative tolerance of the cell's lengths."""
    stol: float
    """Largest distance of matched sites in units of (V/N)^(1/3)."""
    angle_tol: float
    """Tolerance of the cell's angles, degrees."""

    def __str__(self) -> str:
        return f"StructureMatcher(ltol={self.ltol:g}, stol={self.stol:g}, angle_tol={self.angle_tol:g})"


PAPERS = Tolerances(0.3, 0.5, 10.0)
"""Of CDVAE and all who compare with it: reconstruction and structure prediction."""
PYMATGEN = Tolerances(0.2, 0.3, 5.0)
"""pymatgen's defaults: uniqueness and novelty, as in MatterGen's evaluation."""

Plain = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Cell, atomic numbers, fractional coordinates: what is sent to a worker."""


@dataclass
class Comparer:
    """Compares pairs and remembers the answers.

    Parameters
    ----------
    cache : Cache
        Where answers are kept.
    processes : int, optional
        Default: one per core.
    time_limit : float
        Seconds for one pair; a pair that needs longer, twice, counts as no match and is counted in `late`.
    progress : callable, optional
        Called with ``(what, done, total)``.

    Raises
    ------
    ValueError
        The time limit is no positive, finite number.
    """

    cache: Cache
    processes: int | None = None
    time_limit: float = 20.0
    progress: Progress | None = None
    late: int = 0
    """Pairs stopped by the time limit."""
    failures: list[str] = field(default_factory=list)
    """Reasons of pairs that could not be compared for another reason."""

    def __post_init__(self) -> None:
        checked_limit(self.time_limit)

    def rms(self, pairs: Sequence[tuple[tuple[CrystalSet, int], tuple[CrystalSet, int]]], tolerances: Tolerances) -> np.ndarray:
        """Least root mean square displacement of every pair in units of (V/N)^(1/3), NaN for no match; shape (n,)."""
        kind = f"rms {VERSION} {tuple(tolerances)} pymatgen {_pymatgen()}"
        items, keys = [], []
        for (a, i), (b, j) in pairs:
            keys.append(a.keys[i] + b.keys[j])
            items.append((_plain(a, i), _plain(b, j), tolerances))
        return self._remembered(kind, keys, items, _rms, "comparing with the reference")

    def fit(self, pairs: Sequence[tuple[bytes, Plain, bytes, Plain]], tolerances: Tolerances, what: str) -> np.ndarray:
        """Whether pairs of reduced crystals match, shape (n,), bool; items are (key, reduced crystal) twice."""
        kind = f"fit {VERSION} {tuple(tolerances)} pymatgen {_pymatgen()}"
        keys = [a + b for a, _, b, _ in pairs]
        items = [(a, b, tolerances) for _, a, _, b in pairs]
        return self._remembered(kind, keys, items, _fit, what) == 1.0

    def reduced(self, crystals: CrystalSet, indices: Sequence[int]) -> dict[int, Plain]:
        """Primitive Niggli cells (StructureMatcher's own reduction) of some crystals; those that fail are left out."""
        kind = f"reduced pymatgen {_pymatgen()}"
        members = {crystals.keys[i]: i for i in reversed(indices)}
        known = self.cache.get(kind, list(members))
        missing = [key for key in reversed(members) if key not in known]
        with Workers(_reduce, self.processes, self.time_limit, _prepare) as workers, _Store(self.cache, kind) as store:
            items = [_plain(crystals, members[key]) for key in missing]
            for done, (place, result) in enumerate(_twice(workers, items), start=1):
                if isinstance(result, Failure):
                    self._count(result)
                else:
                    known[missing[place]] = _pack(result)
                    store.put(missing[place], known[missing[place]])
                if self.progress:
                    self.progress("reducing cells", done, len(missing))
        return {i: _unpack(known[crystals.keys[i]]) for i in indices if crystals.keys[i] in known}

    def _remembered(
        self, kind: str, keys: Sequence[bytes], items: Sequence[Any], function: Callable[[Any], float], what: str
    ) -> np.ndarray:
        """Answers from the cache or computed; a pair that was late under the same or a longer limit is not tried again."""
        answers: dict[bytes, float] = {}
        for key, value in self.cache.get(kind, keys).items():
            (number,) = struct.unpack("<d", value)
            if number < 0 and -number < self.time_limit:
                continue
            answers[key] = number
        places = {key: place for place, key in reversed(list(enumerate(keys))) if key not in answers}
        missing = list(reversed(places.values()))
        with Workers(function, self.processes, self.time_limit, _prepare) as workers, _Store(self.cache, kind) as store:
            for done, (index, result) in enumerate(_twice(workers, [items[i] for i in missing]), start=1):
                key = keys[missing[index]]
                if isinstance(result, Failure) and not result.timed_out:
                    self._count(result)
                    answers[key] = np.nan
                else:
                    answers[key] = -self.time_limit if isinstance(result, Failure) else float(result)
                    store.put(key, struct.pack("<d", answers[key]))
                if self.progress:
                    self.progress(what, done, len(missing))
        values = np.array([answers[key] for key in keys], dtype=float)
        late = values < 0
        self.late += len({key for key, is_late in zip(keys, late, strict=True) if is_late})
        return np.where(late, np.nan, values)

    def _count(self, failure: Failure) -> None:
        if failure.timed_out:
            self.late += 1
        else:
            self.failures.append(failure.reason)


class _Store:
    """Writes to the cache now and then, and when it is left, also by Ctrl-C."""

    def __init__(self, cache: Cache, kind: str):
        self.cache, self.kind = cache, kind
        self.fresh: dict[bytes, bytes] = {}
        self.since = time.monotonic()

    def __enter__(self) -> _Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.cache.put(self.kind, self.fresh)

    def put(self, key: bytes, value: bytes) -> None:
        self.fresh[key] = value
        if len(self.fresh) >= 200 or time.monotonic() - self.since > FLUSH:
            self.cache.put(self.kind, self.fresh)
            self.fresh, self.since = {}, time.monotonic()


def _twice(workers: Workers, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """As ``workers.map``; an item that was late has a second try, for the machine may have been busy with something else."""
    late = []
    for index, result in workers.map(items):
        if isinstance(result, Failure) and result.timed_out:
            late.append(index)
        else:
            yield index, result
    for place, result in workers.map([items[i] for i in late]):
        yield late[place], result


def _prepare() -> None:
    import_module("pymatgen.analysis.structure_matcher")


@lru_cache(maxsize=1)
def _pymatgen() -> str:
    return version("pymatgen")


def _plain(crystals: CrystalSet, index: int) -> Plain:
    row = crystals.rows[index]
    return row.cell, row.numbers, row.frac


def _structure(plain: Plain) -> Any:
    from pymatgen.core import Lattice, Structure

    cell, numbers, frac = plain
    return Structure(Lattice(cell), numbers.tolist(), frac)


@lru_cache(maxsize=4)
def _matcher(tolerances: Tolerances) -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=tolerances.ltol, stol=tolerances.stol, angle_tol=tolerances.angle_tol)


def _rms(item: tuple[Plain, Plain, Tolerances]) -> float:
    first, second, tolerances = item
    found = _matcher(tolerances).get_rms_dist(_structure(first), _structure(second))
    return float("nan") if found is None else float(found[0])


def _fit(item: tuple[Plain, Plain, Tolerances]) -> float:
    first, second, tolerances = item
    return float(_matcher(tolerances).fit(_structure(first), _structure(second), skip_structure_reduction=True))


def _reduce(plain: Plain) -> Plain:
    # What StructureMatcher does to both structures of every pair, here once for each crystal.
    reduced = _structure(plain).get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
    return np.array(reduced.lattice.matrix), np.array([s.specie.Z for s in reduced], dtype=np.int64), np.array(reduced.frac_coords)


def _pack(plain: Plain) -> bytes:
    cell, numbers, frac = plain
    return cell.astype("<f8").tobytes() + numbers.astype("<i8").tobytes() + frac.astype("<f8").tobytes()


def _unpack(value: bytes) -> Plain:
    n = (len(value) - 72) // 32
    cell = np.frombuffer(value, "<f8", 9).reshape(3, 3)
    numbers = np.frombuffer(value, "<i8", n, 72)
    return cell, numbers, np.frombuffer(value, "<f8", 3 * n, 72 + 8 * n).reshape(n, 3)
