"""Structure prediction measured row by row: match rate, rms, strict shares, best of k, and the polymorph-aware METRe."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from ..errors import DataError
from .cache import Cache
from .crystalset import Crystals, CrystalSet, crystal_set, reference_set
from .pairs import PAPERS, Comparer, Progress, Tolerances
from .structural import validity


@dataclass(frozen=True)
class Match:
    """How well answers agree with the true structures, row by row."""

    n: int
    """Rows of the reference."""
    best_of: int
    """Answers to each row; the least rms counts."""
    rate: float
    """Share of rows whose answer matches; whether the answer is valid is not asked."""
    rms: float | None
    """Mean rms displacement of the matched rows, in units of (V/N)^(1/3); None without a match."""
    strict_02: float
    """Share of rows with rms < 0.2; a match alone says little where the tolerances are wide."""
    strict_01: float
    """Share of rows with rms < 0.1."""
    rate_valid: float
    """CDVAE's match_rate, and DiffCSP's of several answers: one that is not valid (structure, composition, fingerprint) is no match."""
    rms_valid: float | None
    """CDVAE's rms_dist, and DiffCSP's of several answers: mean rms of the rows that `rate_valid` counts; None without one."""
    rate_both_valid: float
    """DiffCSP's match_rate of one answer: answer and true structure must be valid."""
    rms_both_valid: float | None
    """DiffCSP's rms_dist of one answer: mean rms of the rows that `rate_both_valid` counts; None without one."""
    metre: float | None
    """Share of true structures that any answer with the same formula matches (arXiv:2509.12178); None if not computed."""
    crmse: float | None
    """Mean over true structures of the least rms, with stol where nothing matches (the same source); None if not computed."""
    late: int
    """Pairs stopped by the time limit; they count as no match."""
    failed: int
    """Pairs the matcher could not compare; they count as no match."""
    protocol: str
    """Tolerances and conventions."""
    row_rms: np.ndarray = field(repr=False)
    """Least rms of each row, NaN where nothing matches, shape (n,)."""
    notes: tuple[str, ...] = ()
    """What was not computed, and why."""


def match(
    crystals: Crystals,
    reference: Crystals,
    *,
    best_of: int | None = None,
    polymorphs: bool = True,
    most_pairs: int = 300_000,
    tolerances: Tolerances = PAPERS,
    time_limit: float = 20.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Match:
    """Compare answers with the true structures.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
        The answers. Either one for each row of the reference, or k for each: k consecutive ones (a flat file), or k whole
        evaluations one after the other (CDVAE's and DiffCSP's tensor files say so themselves).
    reference : path, sequence of Atoms or CrystalSet
        The true structures.
    best_of : int, optional
        Use only the first that many answers of a row; from 1 to the number that there are.
    polymorphs : bool
        Also compute METRe and cRMSE: all answers are compared with all true structures of the same formula.
    most_pairs : int
        METRe and cRMSE are left out, with a note, when they would need more comparisons.
    tolerances : Tolerances
        Default: those of the papers (0.3, 0.5, 10°).
    time_limit : float
        Seconds for one pair; the fingerprints of those that match, for their validity, have three times as long.
    processes, cache, progress
        See `Comparer`.

    Raises
    ------
    DataError
        The numbers of rows do not fit together, there are not so many answers, or the reference has a row that is no crystal.
    """
    answers, truth = crystal_set(crystals), reference_set(reference)
    rows = rows_of(answers, truth, best_of)
    cache = cache or Cache(keep=False)
    comparer = Comparer(cache, processes, time_limit, progress)
    wanted = [(a, i) for i, row in enumerate(rows) for a in row if answers.good[a] and answers.formulas[a] == truth.formulas[i]]
    every, notes = [], []
    if polymorphs:
        by_formula = _by_formula(answers, rows)
        needed = sum(len(by_formula.get(formula, [])) for formula in truth.formulas)  # counted before they are listed: it may be millions
        if needed > most_pairs:
            notes.append(f"METRe and cRMSE need {needed} comparisons, more than the {most_pairs} allowed")
        else:
            every = [(a, i) for i, formula in enumerate(truth.formulas) for a in by_formula.get(formula, [])]
    pairs = list(dict.fromkeys(wanted + every))
    found = comparer.rms([((answers, a), (truth, i)) for a, i in pairs], tolerances)
    rms_of = dict(zip(pairs, found.tolist(), strict=True))

    def valid(crystals: CrystalSet, matched: set[int]) -> set[int]:
        members = sorted(matched)
        found = validity(crystals.subset(members), time_limit=3 * time_limit, processes=processes, cache=cache, progress=progress)
        return {member for member, is_valid in zip(members, found.valid_rows, strict=True) if is_valid}

    matches = [(a, i) for i, row in enumerate(rows) for a in row if not np.isnan(rms_of.get((a, i), np.nan))]
    answers_valid, truth_valid = valid(answers, {a for a, _ in matches}), valid(truth, {i for _, i in matches})
    least = np.array([_least([rms_of.get((a, i), np.nan) for a in row]) for i, row in enumerate(rows)])
    least_valid = np.array([_least([rms_of.get((a, i), np.nan) for a in row if a in answers_valid]) for i, row in enumerate(rows)])
    least_both_valid = np.where([i in truth_valid for i in range(len(truth))], least_valid, np.nan)
    metre = crmse = None
    if polymorphs and not notes:
        nearest = np.full(len(truth), np.nan)
        for (_, i), value in rms_of.items():
            nearest[i] = np.fmin(nearest[i], value)
        metre = _share(~np.isnan(nearest))
        crmse = float(np.where(np.isnan(nearest), tolerances.stol, nearest).mean()) if len(nearest) else None
    k = len(rows[0])
    return Match(
        n=len(truth),
        best_of=k,
        rate=_share(~np.isnan(least)),
        rms=_mean(least),
        strict_02=_share(least < 0.2),
        strict_01=_share(least < 0.1),
        rate_valid=_share(~np.isnan(least_valid)),
        rms_valid=_mean(least_valid),
        rate_both_valid=_share(~np.isnan(least_both_valid)),
        rms_both_valid=_mean(least_both_valid),
        metre=metre,
        crmse=crmse,
        late=comparer.late,
        failed=len(comparer.failures),
        protocol=f"{tolerances}.get_rms_dist(answer, truth), rms in units of (V/N)^(1/3), "
        f"{f'best of {k} answers to a row' if k > 1 else 'one answer to a row'}; shares are of all {len(truth)} rows; CDVAE's match_rate "
        f"and rms_dist are rate_valid and rms_valid, DiffCSP's {'the same' if k > 1 else 'rate_both_valid and rms_both_valid'}; time limit "
        f"{time_limit:g} s a pair",
        row_rms=least,
        notes=tuple(notes),
    )


def rows_of(answers: CrystalSet, truth: CrystalSet, best_of: int | None = None) -> list[list[int]]:
    """Indices of the answers to each row of the reference, the first `best_of` of them.

    Raises
    ------
    DataError
        The number of answers is not a multiple of the number of rows, there are fewer than `best_of`, or a row of the reference
        is no crystal.
    """
    n, total = len(truth), len(answers)
    if not n:
        raise DataError(f"the reference {truth.source} holds no crystals")
    if not total or total % n:
        raise DataError(
            f"{answers.source} holds {total} crystals and the reference {truth.source} {n}; to be compared row by row there must be "
            "one for each row, or the same number k for each"
        )
    broken = [row for row in truth if row.error]
    if broken:
        raise DataError(f"{truth.source}: {broken[0].name} of the reference is not a crystal ({broken[0].error})")
    k = total // n
    used = k if best_of is None else best_of
    if not 1 <= used <= k:
        raise DataError(f"best of {used} is not possible: {answers.source} holds {k} answer{'s' if k > 1 else ''} to each row")
    if any(row.sample for row in answers):  # whole evaluations one after the other
        return [[sample * n + i for sample in range(used)] for i in range(n)]
    return [list(range(i * k, i * k + used)) for i in range(n)]


def _by_formula(answers: CrystalSet, rows: list[list[int]]) -> dict[tuple[tuple[int, int], ...], list[int]]:
    groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for a in (a for row in rows for a in row):
        if answers.good[a]:
            groups[answers.formulas[a]].append(a)
    return groups


def _mean(rms: np.ndarray) -> float | None:
    matched = rms[~np.isnan(rms)]
    return float(matched.mean()) if len(matched) else None


def _least(values: list[float]) -> float:
    finite = [v for v in values if not np.isnan(v)]
    return min(finite) if finite else float("nan")


def _share(mask: np.ndarray) -> float:
    return float(np.mean(mask)) if len(mask) else 0.0
