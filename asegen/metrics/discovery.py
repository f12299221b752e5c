"""Whether generated crystals are discoveries: energies against other crystals of the same formula, against the convex hull, novelty.

Functions of numbers that were computed before: relaxed energies, distances to a hull, which crystals are unique and new, space groups.
A relaxation that failed is NaN (or infinite) and never counts as a success; every result says how many there were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.spatial.distance import jensenshannon

from ..errors import MetricError

_GROUPS = 230


@dataclass(frozen=True)
class EnergyDifference:
    """Formation energies of two sets of crystals, A and B, composition by composition."""

    difference: float
    """ΔE_f(A, B), mean of E_f of A minus E_f of B, eV/atom; below zero if A is better, NaN if nothing could be compared."""
    reduction_rate: float
    """Share of the pairs in which A is lower, 0 to 1; NaN if nothing could be compared."""
    pairs: int
    """Pairs compared."""
    compositions: int
    """Compositions compared."""
    only_a: int
    """Compositions left out as B has no crystal of them."""
    only_b: int
    """Compositions left out as A has no crystal of them."""
    without_energy: int
    """Compositions of both left out as all relaxations of A or of B failed."""
    failed_a: int
    """Crystals of A without a finite energy, in all its compositions."""
    failed_b: int
    """Crystals of B without a finite energy, in all its compositions."""


@dataclass(frozen=True)
class HullCounts:
    """How many crystals lie below limits of the energy above the hull."""

    total: int
    """Crystals, with and without energy."""
    missing: int
    """Crystals without a finite energy, which are below no limit."""
    limits: tuple[float, ...]
    """eV/atom."""
    counts: tuple[int, ...]
    """Crystals below each limit."""
    shares: tuple[float, ...]
    """The same divided by the total, 0 to 1; NaN without crystals."""


@dataclass(frozen=True)
class SUN:
    """Shares of stable, unique and new crystals; all are parts of the total, 0 to 1, NaN without crystals."""

    total: int
    """Crystals, with and without energy."""
    missing: int
    """Crystals without a finite energy, which count as not stable."""
    stable: float
    """Share on or below the hull (`stable_below`)."""
    metastable: float
    """Share at most `metastable_below` above the hull; holds the stable ones."""
    unique: float
    """Share of unique crystals."""
    novel: float
    """Share of novel crystals."""
    sun: float
    """Share of stable, unique and novel crystals."""
    metastable_sun: float
    """Share of metastable, unique and novel crystals; holds the stable ones."""


@dataclass(frozen=True)
class SpaceGroupDistance:
    """How far the space groups of two sets of crystals are apart."""

    total_variation: float
    """Half the sum of the differences of the shares, 0 (equal) to 1 (no group in common); NaN if one set is empty."""
    jensen_shannon: float
    """Jensen-Shannon distance, the root of the divergence in bits, 0 to 1; NaN if one set is empty."""
    missing_a: int
    """Crystals of A whose group was not found, in no share."""
    missing_b: int
    """Crystals of B whose group was not found, in no share."""
    share_p1_a: float
    """Share of P1 (group 1) in A, 0 to 1."""
    share_p1_b: float
    """Share of P1 (group 1) in B, 0 to 1."""


@dataclass(frozen=True)
class SearchSuccess:
    """How often a search for crystals of given formulas ended in a relaxed one."""

    formulas: int
    """Formulas asked for."""
    solved: int
    """Formulas with at least one converged relaxation."""
    share: float
    """The same divided by the formulas, 0 to 1; NaN without formulas."""
    converged: float
    """Share of all relaxations that converged, 0 to 1; NaN without any."""


def formation_energy_difference(
    energies_a: Mapping[Any, Sequence[float]],
    energies_b: Mapping[Any, Sequence[float]],
    pairs: Literal["lowest", "all"] = "lowest",
) -> EnergyDifference:
    """Per-composition formation energy: how much lower the crystals of A are than those of B with the same composition.

    Parameters
    ----------
    energies_a, energies_b : mapping of composition to sequence of float
        Formation energies of the crystals of each composition, eV/atom; not finite where the relaxation failed. Both write
        compositions in the same way, for example as reduced formulas.
    pairs : {"lowest", "all"}
        ``lowest``: the lowest crystal of A with the lowest of B, so that each composition counts once. ``all``: every crystal of
        A with every one of B, the set C of the paper as it is printed; compositions with many crystals then count more.

    Returns
    -------
    EnergyDifference

    Notes
    -----
    Yang et al., Scalable Diffusion for Materials Generation (UniMat), arXiv:2311.09235, equations 3 and 4. Its section 3.3 takes
    the lowest crystal of each composition.
    """
    if pairs not in ("lowest", "all"):
        raise MetricError(f"pairs is {pairs!r}; it can be 'lowest' or 'all'")
    finite_a, finite_b = _finite_energies(energies_a), _finite_energies(energies_b)
    differences = []
    common = finite_a.keys() & finite_b.keys()
    for composition in common:
        a, b = finite_a[composition], finite_b[composition]
        if len(a) and len(b):
            differences.append(np.array([a.min() - b.min()]) if pairs == "lowest" else np.subtract.outer(a, b).ravel())
    every = np.concatenate(differences) if differences else np.empty(0)
    return EnergyDifference(
        difference=_mean(every),
        reduction_rate=_mean(every < 0),
        pairs=len(every),
        compositions=len(differences),
        only_a=len(finite_a) - len(common),
        only_b=len(finite_b) - len(common),
        without_energy=len(common) - len(differences),
        failed_a=sum(len(energies_a[c]) - len(finite) for c, finite in finite_a.items()),
        failed_b=sum(len(energies_b[c]) - len(finite) for c, finite in finite_b.items()),
    )


def hull_counts(e_above_hull: Sequence[float] | np.ndarray, limits: Sequence[float] = (0.0, 0.025)) -> HullCounts:
    """How many crystals lie below the hull, and below 25 meV/atom.

    Parameters
    ----------
    e_above_hull : sequence of float, shape (n,)
        Decomposition energy E_d, eV/atom: negative below the hull of the known phases. NaN where there is none.
    limits : sequence of float
        eV/atom. A crystal counts if it is strictly below; one that is itself part of the hull has 0 and does not.

    Returns
    -------
    HullCounts

    Notes
    -----
    UniMat, arXiv:2311.09235, equation 5 and table 3.
    """
    energies = _vector(e_above_hull, "e_above_hull", float)
    finite = energies[np.isfinite(energies)]
    counts = tuple(int((finite < limit).sum()) for limit in limits)
    shares = tuple(count / len(energies) if len(energies) else np.nan for count in counts)
    return HullCounts(len(energies), len(energies) - len(finite), tuple(limits), counts, shares)


def sun_shares(
    e_above_hull: Sequence[float] | np.ndarray,
    unique: Sequence[bool] | np.ndarray,
    novel: Sequence[bool] | np.ndarray,
    stable_below: float = 0.0,
    metastable_below: float = 0.1,
) -> SUN:
    """Share of stable, unique and novel crystals (S.U.N.).

    Parameters
    ----------
    e_above_hull : sequence of float, shape (n,)
        Energy above the hull after relaxation, eV/atom; NaN where there is none, which counts as not stable.
    unique : sequence of bool, shape (n,)
        True for one crystal, best the lowest, of each set of equal ones.
    novel : sequence of bool, shape (n,)
        True for crystals that are not in the reference data.
    stable_below, metastable_below : float
        eV/atom. The limits themselves count, as the phases that make the hull are at 0.

    Returns
    -------
    SUN

    Notes
    -----
    Zeni et al., Nature 639, 624 (2025) (MatterGen), call stable what is at most 0.1 eV/atom above the hull; others ask for 0.
    """
    energies = _vector(e_above_hull, "e_above_hull", float)
    singles, new = _vector(unique, "unique", bool), _vector(novel, "novel", bool)
    if not len(energies) == len(singles) == len(new):
        raise MetricError(f"{len(energies)} energies, {len(singles)} of unique, {len(new)} of novel: one for each crystal is needed")
    if metastable_below < stable_below:
        raise MetricError(f"metastable_below ({metastable_below}) is less than stable_below ({stable_below}), eV/atom")
    known = np.isfinite(energies)
    stable, metastable = known & (energies <= stable_below), known & (energies <= metastable_below)
    return SUN(
        total=len(energies),
        missing=int((~known).sum()),
        stable=_mean(stable),
        metastable=_mean(metastable),
        unique=_mean(singles),
        novel=_mean(new),
        sun=_mean(stable & singles & new),
        metastable_sun=_mean(metastable & singles & new),
    )


def space_group_distance(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> SpaceGroupDistance:
    """Distance between the distributions of space groups of two sets of crystals.

    Parameters
    ----------
    a, b : sequence of int
        International numbers, 1 to 230; 0 where no group was found, which is counted but is no group.

    Returns
    -------
    SpaceGroupDistance
    """
    counts_a, counts_b = _group_counts(a), _group_counts(b)
    variation = divergence = np.nan
    if counts_a[1:].any() and counts_b[1:].any():
        share_a, share_b = counts_a[1:] / counts_a[1:].sum(), counts_b[1:] / counts_b[1:].sum()
        variation = float(np.abs(share_a - share_b).sum() / 2)
        divergence = float(jensenshannon(share_a, share_b, base=2))
    return SpaceGroupDistance(variation, divergence, int(counts_a[0]), int(counts_b[0]), share_p1(a), share_p1(b))


def share_p1(groups: Sequence[int] | np.ndarray) -> float:
    """Share of crystals without any symmetry (P1) among those whose space group was found (not 0); NaN if there are none."""
    counts = _group_counts(groups)
    return float(counts[1] / counts[1:].sum()) if counts[1:].any() else np.nan


def search_success(converged: Mapping[Any, Sequence[bool]]) -> SearchSuccess:
    """Share of formulas for which a search found anything: at least one relaxation that converged.

    Parameters
    ----------
    converged : mapping of formula to sequence of bool
        For each start of each formula whether its relaxation converged; an empty sequence is a formula without a start.

    Returns
    -------
    SearchSuccess

    Notes
    -----
    UniMat, arXiv:2311.09235, section 3.3: 0.55 of the formulas for random structure search (AIRSS) with 100 starts a formula,
    0.81 for UniMat, weighted from samples of the formulas that AIRSS solved and of those that it did not.
    """
    runs = [_vector(list(starts), "converged", bool) for starts in converged.values()]
    solved = [bool(starts.any()) for starts in runs]
    return SearchSuccess(len(runs), sum(solved), _mean(np.array(solved)), _mean(np.concatenate(runs) if runs else np.empty(0)))


def _finite_energies(energies: Mapping[Any, Sequence[float]]) -> dict[Any, np.ndarray]:
    rows = {composition: _vector(row, f"energies of {composition}", float) for composition, row in energies.items()}
    return {composition: row[np.isfinite(row)] for composition, row in rows.items()}


def _vector(values: Sequence[float] | Sequence[bool] | np.ndarray, name: str, kind: type) -> np.ndarray:
    array: np.ndarray = np.asarray(values, dtype=kind)
    if array.ndim != 1:
        raise MetricError(f"{name} has the shape {array.shape}; one number per crystal is needed")
    return array


def _group_counts(groups: Sequence[int] | np.ndarray) -> np.ndarray:
    """Crystals per space group, shape (231,); place 0 is for those without."""
    numbers = np.asarray(groups)
    if numbers.ndim != 1 or (len(numbers) and not np.issubdtype(numbers.dtype, np.integer)):
        raise MetricError("space groups are a list of whole numbers, 0 where none was found")
    if len(numbers) and not (0 <= numbers.min() and numbers.max() <= _GROUPS):
        raise MetricError(f"space groups are 0 (not found) to {_GROUPS}; there are {numbers.min()} to {numbers.max()}")
    return np.bincount(numbers.astype(np.int64), minlength=_GROUPS + 1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
