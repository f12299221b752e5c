"""What a generator adds: crystals that are not repeated, not in the training set, and stable (S.U.N.)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from .cache import Cache
from .crystalset import Crystals, CrystalSet, crystal_set
from .pairs import PYMATGEN, Comparer, Plain, Progress, Tolerances


@dataclass(frozen=True)
class Uniqueness:
    """How many crystals are not repetitions of earlier ones."""

    n: int
    """Crystals given, broken ones included."""
    compared: int
    """Those that could be compared."""
    share: float | None
    """Unique crystals over compared ones; None if there are none."""
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
    ``StructureMatcher.group_structures``.

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
    groups = [members for members in _by_formula(given).values() if len(members) > 1]
    several = [i for members in groups for i in members]
    reduced = comparer.reduced(given, several)
    repeats[[i for i in several if i not in reduced]] = -2
    waiting = [part for members in groups for part in _by_size(members, reduced)]
    while waiting:  # in every round the first of each group is compared with all others of it
        pairs = [(group[0], other) for group in waiting for other in group[1:]]
        items = [(given.keys[a], reduced[a], given.keys[b], reduced[b]) for a, b in pairs]
        same = comparer.fit(items, tolerances, "looking for repetitions")
        repeated = {b: a for (a, b), is_same in zip(pairs, same, strict=True) if is_same}
        for b, a in repeated.items():
            repeats[b] = a
        waiting = [rest for group in waiting if len(rest := [i for i in group[1:] if i not in repeated]) > 1]
    compared = int((repeats > -2).sum())
    return Uniqueness(
        n=len(given),
        compared=compared,
        share=float((repeats == -1).sum() / compared) if compared else None,
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
    theirs = _by_formula(known)
    shared = [i for i in np.nonzero(given.good)[0].tolist() if given.formulas[i] in theirs]
    reduced = comparer.reduced(given, shared)
    matches[[i for i in shared if i not in reduced]] = -2
    needed = sorted({j for i in reduced for j in theirs[given.formulas[i]]})
    reduced_known = comparer.reduced(known, needed)
    candidates = {i: _nearest_first(reduced[i], theirs[given.formulas[i]], reduced_known) for i in reduced}
    start, width = 0, 1
    while candidates := {i: c for i, c in candidates.items() if len(c) > start and matches[i] == -1}:
        # Rounds of 1, 2, 4, … candidates: a crystal that is found early needs no further comparison.
        pairs = [(i, j) for i, c in candidates.items() for j in c[start : start + width]]
        items = [(given.keys[i], reduced[i], known.keys[j], reduced_known[j]) for i, j in pairs]
        same = comparer.fit(items, tolerances, "looking in the training set")
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
        new_formula=float(np.mean(new_formula)) if new_formula else None,
        late=comparer.late,
        failed=len(comparer.failures),
        protocol=f"{tolerances}.fit(crystal, training crystal) against {known.source} ({int(known.good.sum())} crystals); "
        f"share of the {compared} comparable crystals",
        matches=matches,
        training_names=tuple(row.name for row in known),
    )


def _by_formula(crystals: CrystalSet) -> dict[tuple[tuple[int, int], ...], list[int]]:
    groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for i in np.nonzero(crystals.good)[0].tolist():
        groups[crystals.formulas[i]].append(i)
    return groups


def _by_size(members: list[int], reduced: dict[int, Plain]) -> list[list[int]]:
    """Primitive cells of different sizes never match, so they are separate groups."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i in members:
        if i in reduced:
            groups[len(reduced[i][1])].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _nearest_first(crystal: Plain, candidates: list[int], reduced: dict[int, Plain]) -> list[int]:
    """Candidates of the same size; those of the most similar density first, for they are the likeliest to match."""
    cell, numbers, _ = crystal
    volume = abs(np.linalg.det(cell))
    fitting = [j for j in candidates if j in reduced and len(reduced[j][1]) == len(numbers)]
    return sorted(fitting, key=lambda j: (round(abs(np.log(abs(np.linalg.det(reduced[j][0])) / volume)), 6), j))
