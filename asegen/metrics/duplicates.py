"""What a generator adds: crystals that are not repeated, not in the training set, and stable (S.U.N.)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from .cache import Cache
from .crystalset import Crystals, CrystalSet, crystal_set
from .pairs import PYMATGEN, Comparer, Plain, Progress, Tolerances

Formula = tuple[tuple[int, int], ...]
_MOST_CANDIDATES = 200_000
"""Pairs of a generated and a training crystal that are listed at a time; bounds the memory."""


@dataclass(frozen=True)
class Uniqueness:
    """How many crystals are not repetitions of earlier ones."""

    n: int
    """Crystals given, broken ones included."""
    compared: int
    """Those that could be compared."""
    share: float | None
    """Unique crystals over compared ones; None if there are none."""
    share_of_all: float | None
    """Unique crystals over all given; None if there are none."""
    late: int
    """Pairs stopped by the time limit; they count as different."""
    failed: int
    """Cells or pairs the matcher could not treat."""
    protocol: str
    """Tolerances and conventions."""
    repeats: np.ndarray = field(repr=False)
    """Index of the earlier crystal that is repeated, -1 for a unique one, -2 for one not compared; shape (n,)."""


@dataclass(frozen=True)
class Novelty:
    """How many crystals are not in the training set."""

    n: int
    """Crystals given, broken ones included."""
    compared: int
    """Those that could be compared."""
    training: int
    """Crystals of the training set that could be compared."""
    share: float | None
    """Novel crystals over compared ones; None if there are none."""
    share_of_all: float | None
    """Novel crystals over all given; None if there are none."""
    new_formula: float | None
    """Share of compared crystals whose reduced formula is not in the training set."""
    late: int
    """Pairs stopped by the time limit; they count as different."""
    failed: int
    """Cells or pairs the matcher could not treat."""
    protocol: str
    """Tolerances and conventions."""
    matches: np.ndarray = field(repr=False)
    """Index of the training crystal that is matched, -1 for a novel one, -2 for one not compared; shape (n,)."""
    training_names: tuple[str, ...] = field(repr=False)
    """Names of the training crystals."""


def uniqueness(
    crystals: Crystals,
    *,
    tolerances: Tolerances = PYMATGEN,
    time_limit: float = 20.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Uniqueness:
    """Share of crystals that do not repeat an earlier one.

    A crystal is a repetition if it matches the first of a group, ``fit(first, crystal)``; the groups are those of
    ``StructureMatcher.group_structures``. Crystals that are equal to the last bit are repetitions without a comparison.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
        Crystals in the order in which they were made.
    tolerances : Tolerances
        Default: pymatgen's (0.2, 0.3, 5°).
    time_limit, processes, cache, progress
        See `Comparer`.
    """
    given = crystal_set(crystals)
    comparer = Comparer(cache or Cache(keep=False), processes, time_limit, progress)
    repeats = np.where(given.good, -1, -2)
    first = _first_of_each(given)
    groups = [members for members in _by_formula(given, list(first.values())).values() if len(members) > 1]
    several = [i for members in groups for i in members]
    reduced = comparer.reduced(given, several)
    repeats[[i for i in several if i not in reduced]] = -2
    waiting = [part for members in groups for part in _by_size(members, reduced)]
    what = f"looking for repetitions (up to {sum(len(group) * (len(group) - 1) // 2 for group in waiting)} pairs)"
    while waiting:  # in every round the first of each group is compared with all others of it
        pairs = [(group[0], other) for group in waiting for other in group[1:]]
        items = [(given.keys[a], reduced[a], given.keys[b], reduced[b]) for a, b in pairs]
        same = comparer.fit(items, tolerances, what)
        repeated = {b: a for (a, b), is_same in zip(pairs, same, strict=True) if is_same}
        for b, a in repeated.items():
            repeats[b] = a
        waiting = [rest for group in waiting if len(rest := [i for i in group[1:] if i not in repeated]) > 1]
    for i in np.nonzero(given.good)[0].tolist():  # what is equal to the last bit needs no comparison, nor a cell that can be reduced
        if (earlier := first[given.keys[i]]) != i:
            repeats[i] = repeats[earlier] if repeats[earlier] >= 0 else earlier
    compared = int((repeats > -2).sum())
    return Uniqueness(
        n=len(given),
        compared=compared,
        share=float((repeats == -1).sum() / compared) if compared else None,
        share_of_all=float((repeats == -1).mean()) if len(given) else None,
        late=comparer.late,
        failed=len(comparer.failures),
        protocol=f"{tolerances}.fit(earlier, later), groups as group_structures; share of the {compared} comparable crystals",
        repeats=repeats,
    )


def novelty(
    crystals: Crystals,
    train: Crystals,
    *,
    tolerances: Tolerances = PYMATGEN,
    time_limit: float = 20.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Novelty:
    """Share of crystals that match no crystal of the training set, ``fit(crystal, training crystal)``.

    Parameters
    ----------
    crystals, train : path, sequence of Atoms or CrystalSet
        What was generated, and what the generator was trained on.
    tolerances : Tolerances
        Default: pymatgen's (0.2, 0.3, 5°).
    time_limit, processes, cache, progress
        See `Comparer`.
    """
    given, known = crystal_set(crystals), crystal_set(train)
    comparer = Comparer(cache or Cache(keep=False), processes, time_limit, progress)
    matches = np.where(given.good, -1, -2)
    same_key = _first_of_each(known)
    theirs = _by_formula(known, list(same_key.values()))
    shared = []
    for i in np.nonzero(given.good)[0].tolist():
        if given.keys[i] in same_key:  # equal to the last bit
            matches[i] = same_key[given.keys[i]]
        elif given.formulas[i] in theirs:
            shared.append(i)
    reduced = comparer.reduced(given, shared)
    matches[[i for i in shared if i not in reduced]] = -2
    training = _Training.of(comparer.reduced(known, sorted({j for i in reduced for j in theirs[given.formulas[i]]})))
    total = sum(len(theirs[given.formulas[i]]) for i in reduced)
    what = f"looking in the training set (up to {total} pairs)"
    for part in _slices(list(reduced), theirs, given):
        candidates = {i: training.nearest_first(reduced[i], theirs[given.formulas[i]]) for i in part}
        start, width = 0, 1
        while candidates := {i: c for i, c in candidates.items() if len(c) > start and matches[i] == -1}:
            # Rounds of 1, 2, 4, … candidates: a crystal that is found early needs no further comparison.
            pairs = [(i, j) for i, c in candidates.items() for j in c[start : start + width]]
            items = [(given.keys[i], reduced[i], known.keys[j], training.reduced[j]) for i, j in pairs]
            same = comparer.fit(items, tolerances, what)
            for (i, j), is_same in zip(pairs, same, strict=True):
                if is_same and matches[i] == -1:
                    matches[i] = j
            start, width = start + width, min(2 * width, 64)
    compared = int((matches > -2).sum())
    new_formula = [given.formulas[i] not in theirs for i in np.nonzero(given.good)[0]]
    return Novelty(
        n=len(given),
        compared=compared,
        training=int(known.good.sum()),
        share=float((matches == -1).sum() / compared) if compared else None,
        share_of_all=float((matches == -1).mean()) if len(given) else None,
        new_formula=float(np.mean(new_formula)) if new_formula else None,
        late=comparer.late,
        failed=len(comparer.failures),
        protocol=f"{tolerances}.fit(crystal, training crystal) against {known.source} ({int(known.good.sum())} crystals); "
        f"share of the {compared} comparable crystals",
        matches=matches,
        training_names=tuple(row.name for row in known),
    )


def _first_of_each(crystals: CrystalSet) -> dict[bytes, int]:
    """Key of every structure to the first row that holds it."""
    first: dict[bytes, int] = {}
    for i in np.nonzero(crystals.good)[0].tolist():
        first.setdefault(crystals.keys[i], i)
    return first


def _by_formula(crystals: CrystalSet, rows: Sequence[int]) -> dict[Formula, list[int]]:
    groups: dict[Formula, list[int]] = defaultdict(list)
    for i in rows:
        groups[crystals.formulas[i]].append(i)
    return groups


def _slices(rows: list[int], theirs: dict[Formula, list[int]], given: CrystalSet) -> Iterator[list[int]]:
    """The rows in parts of which each has a bounded number of candidates, or is one row."""
    part: list[int] = []
    size = 0
    for i in rows:
        more = len(theirs[given.formulas[i]])
        if part and size + more > _MOST_CANDIDATES:
            yield part
            part, size = [], 0
        part.append(i)
        size += more
    if part:
        yield part


def _by_size(members: list[int], reduced: dict[int, Plain]) -> list[list[int]]:
    """Primitive cells of different sizes never match, so they are separate groups."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i in members:
        if i in reduced:
            groups[len(reduced[i][1])].append(i)
    return [group for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class _Training:
    """Reduced cells of training crystals with what orders them, found by index."""

    reduced: dict[int, Plain]
    sizes: dict[int, int]
    log_volumes: dict[int, float]

    @classmethod
    def of(cls, reduced: dict[int, Plain]) -> _Training:
        sizes = {j: len(numbers) for j, (_, numbers, _) in reduced.items()}
        return cls(reduced, sizes, {j: _log_volume(plain) for j, plain in reduced.items()})

    def nearest_first(self, crystal: Plain, candidates: list[int]) -> list[int]:
        """Candidates of the same size; those of the most similar density first, for they are the likeliest to match."""
        volume, size = _log_volume(crystal), len(crystal[1])
        fitting = [j for j in candidates if self.sizes.get(j) == size]
        return sorted(fitting, key=lambda j: (round(abs(self.log_volumes[j] - volume), 6), j))


def _log_volume(crystal: Plain) -> float:
    return math.log(abs(np.linalg.det(crystal[0])))
