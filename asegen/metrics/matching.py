"""Structure prediction measured row by row: match rate, rms, strict shares, best of k, and the polymorph-aware METRe."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from ..errors import DataError
from .cache import Cache
from .crystalset import Crystals, CrystalSet, crystal_set
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
    """Match rate as CDVAE counts it: an answer that is not valid (structure, composition) is no match."""
    rate_both_valid: float
    """Match rate as DiffCSP counts it: answer and true structure must be valid."""
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
        Use only the first that many answers of a row.
    polymorphs : bool
        Also compute METRe and cRMSE: all answers are compared with all true structures of the same formula.
    most_pairs : int
        METRe and cRMSE are left out, with a note, when they would need more comparisons.
    tolerances : Tolerances
        Default: those of the papers (0.3, 0.5, 10°).
    time_limit : float
        Seconds for one pair.
    processes, cache, progress
        See `Comparer`.

    Raises
    ------
    DataError
        The numbers of rows do not fit together, or the reference has a row that is no crystal.
    """
    answers, truth = crystal_set(crystals), crystal_set(reference)
    rows = rows_of(answers, truth)
    if best_of is not None:
        rows = [row[:best_of] for row in rows]
    broken = [row for row in truth if row.error]
    if broken:
        raise DataError(f"{truth.source}: {broken[0].name} of the reference is not a crystal ({broken[0].error})")
    comparer = Comparer(cache or Cache(keep=False), processes, time_limit, progress)
    wanted = [(a, i) for i, row in enumerate(rows) for a in row if answers.good[a] and answers.formulas[a] == truth.formulas[i]]
    every = _same_formula(answers, truth, rows) if polymorphs else []
    notes = []
    if len(every) > most_pairs:
        notes.append(f"METRe and cRMSE need {len(every)} comparisons, more than the {most_pairs} allowed")
        every = []
    pairs = list(dict.fromkeys(wanted + every))
    found = comparer.rms([((answers, a), (truth, i)) for a, i in pairs], tolerances)
    rms_of = dict(zip(pairs, found.tolist(), strict=True))

    answers_valid, truth_valid = validity(answers).valid_rows, validity(truth).valid_rows
    least = np.array([_least([rms_of.get((a, i), np.nan) for a in row]) for i, row in enumerate(rows)])
    least_valid = np.array([_least([rms_of.get((a, i), np.nan) for a in row if answers_valid[a]]) for i, row in enumerate(rows)])
    metre = crmse = None
    if polymorphs and not notes:
        nearest = np.full(len(truth), np.nan)
        for (_, i), value in rms_of.items():
            nearest[i] = np.fmin(nearest[i], value)
        metre = _share(~np.isnan(nearest))
        crmse = float(np.where(np.isnan(nearest), tolerances.stol, nearest).mean()) if len(nearest) else None
    matched = ~np.isnan(least)
    return Match(
        n=len(truth),
        best_of=max((len(row) for row in rows), default=0),
        rate=_share(matched),
        rms=float(least[matched].mean()) if matched.any() else None,
        strict_02=_share(least < 0.2),
        strict_01=_share(least < 0.1),
        rate_valid=_share(~np.isnan(least_valid)),
        rate_both_valid=_share(~np.isnan(least_valid) & truth_valid),
        metre=metre,
        crmse=crmse,
        late=comparer.late,
        failed=len(comparer.failures),
        protocol=f"{tolerances}.get_rms_dist(answer, truth), rms in units of (V/N)^(1/3); shares are of all {len(truth)} rows; "
        f"time limit {time_limit:g} s a pair",
        row_rms=least,
        notes=tuple(notes),
    )


def rows_of(answers: CrystalSet, truth: CrystalSet) -> list[list[int]]:
    """Indices of the answers to each row of the reference.

    Raises
    ------
    DataError
        The number of answers is not a multiple of the number of rows.
    """
    n, total = len(truth), len(answers)
    if not n:
        raise DataError(f"the reference {truth.source} holds no crystals")
    if not total or total % n:
        raise DataError(
            f"{answers.source} holds {total} crystals and the reference {truth.source} {n}; to be compared row by row there must be "
            "one for each row, or the same number k for each"
        )
    k = total // n
    if any(row.sample for row in answers):  # whole evaluations one after the other
        return [[sample * n + i for sample in range(k)] for i in range(n)]
    return [list(range(i * k, (i + 1) * k)) for i in range(n)]


def _same_formula(answers: CrystalSet, truth: CrystalSet, rows: list[list[int]]) -> list[tuple[int, int]]:
    by_formula: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for a in (a for row in rows for a in row):
        if answers.good[a]:
            by_formula[answers.formulas[a]].append(a)
    return [(a, i) for i, formula in enumerate(truth.formulas) for a in by_formula.get(formula, [])]


def _least(values: list[float]) -> float:
    finite = [v for v in values if not np.isnan(v)]
    return min(finite) if finite else float("nan")


def _share(mask: np.ndarray) -> float:
    return float(np.mean(mask)) if len(mask) else 0.0
