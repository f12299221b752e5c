"""Whether generated crystals have the property that was asked for: optimisation (CDVAE) and conditional generation (Con-CDVAE).

Functions of numbers that were computed before, by DFT or by a predictor. A crystal without a number (NaN) is never a success; every
result says how many there were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import spglib
from ase import Atoms

from ..errors import MetricError
from ..symmetry.groups import CRYSTAL_SYSTEMS

#: Thresholds that CDVAE's code compares with in place of percentiles of the data: 5, 10, 15 % from below. Formation energy of
#: MP-20, eV/atom; energy of Carbon-24, eV/atom; heat of formation of Perov-5, eV/atom (``scripts/compute_metrics.py``).
CDVAE_THRESHOLDS: dict[str, tuple[float, float, float]] = {
    "mp20": (-3.17562208, -2.82196882, -2.52814761),
    "carbon": (-154.527093, -154.45865733, -154.44206825),
    "perovskite": (0.43924842, 0.61202443, 0.7364607),
}
#: What crystals are called in the joint test of Con-CDVAE: band gap, then formation energy.
GAP_ENERGY_CLASSES = ("zero high", "zero low", "non-zero high", "non-zero low")


@dataclass(frozen=True)
class SuccessRates:
    """How often an optimisation of a property reached the best few percent of the data."""

    rates: tuple[float, ...]
    """Share of the optimisations that reached each threshold, 0 to 1; NaN without optimisations."""
    thresholds: tuple[float, ...]
    """In the unit of the property."""
    best: np.ndarray
    """Best value of each optimisation, shape (optimisations,), in the unit of the property; NaN where no step was valid."""
    invalid: int
    """Crystals without a finite value, of all steps and optimisations."""
    failed: int
    """Optimisations without any finite value, which count as failures."""


@dataclass(frozen=True)
class HitRate:
    """How often a crystal has what was asked for."""

    rate: float
    """Hits divided by the total, 0 to 1; NaN without crystals."""
    hits: int
    """Crystals that have the property."""
    total: int
    """Crystals, with and without a value."""
    missing: int
    """Crystals without a value, which are no hits."""


def success_rates(
    values: np.ndarray,
    reference: Sequence[float] | np.ndarray | None = None,
    percentiles: Sequence[float] = (5, 10, 15),
    minimize: bool = True,
    thresholds: Sequence[float] | None = None,
) -> SuccessRates:
    """Success rates SR5, SR10, SR15 of property optimisation.

    Parameters
    ----------
    values : np.ndarray, shape (steps, optimisations)
        The property of the crystals that each optimisation passed through; NaN where a crystal is not valid.
    reference : sequence of float, optional
        The property over the data; not needed with `thresholds`.
    percentiles : sequence of float
        In percent, counted from the best end: for maximisation 5 means the highest 5 %.
    minimize : bool
        Whether low values are wanted.
    thresholds : sequence of float, optional
        Used in place of percentiles of the reference, such as one of :data:`CDVAE_THRESHOLDS`.

    Returns
    -------
    SuccessRates

    Raises
    ------
    MetricError
        Wrong shape, or neither a reference nor thresholds, or both.

    Notes
    -----
    Xie et al., ICLR 2022 (CDVAE), section 5.3: the best crystal of each optimisation counts; the threshold itself is reached.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2:
        raise MetricError(f"values have the shape {table.shape}; (steps, optimisations) is needed")
    if (reference is None) == (thresholds is None):
        raise MetricError("give either the reference data or thresholds")
    if reference is not None:
        data = np.asarray(reference, dtype=float).ravel()
        data = data[np.isfinite(data)]
        if not len(data):
            raise MetricError("the reference data hold no finite value")
        limits = np.percentile(data, percentiles if minimize else [100 - p for p in percentiles])
    else:
        limits = np.asarray(thresholds, dtype=float)
    sign = 1.0 if minimize else -1.0
    finite = np.isfinite(table)
    lowest = np.where(finite, sign * table, np.inf).min(0, initial=np.inf)
    reached = [float((lowest <= sign * limit).mean()) if len(lowest) else np.nan for limit in limits]
    failed = ~np.isfinite(lowest)
    best = np.where(failed, np.nan, sign * lowest)
    return SuccessRates(tuple(reached), tuple(limits.tolist()), best, int((~finite).sum()), int(failed.sum()))


def hit_rate_value(values: Sequence[float] | np.ndarray, target: float, tolerance: float) -> HitRate:
    """Share of crystals whose property is within a tolerance of what was asked for.

    Parameters
    ----------
    values : sequence of float, shape (n,)
        The property of the generated crystals; NaN where there is none.
    target, tolerance : float
        In the unit of the property; a crystal at the tolerance is a hit. Con-CDVAE asks for band gaps of 0, 3, 6 eV and formation
        energies of 0, -2, -4 eV/atom, and shows histograms; it states no tolerance.

    Returns
    -------
    HitRate
    """
    if not tolerance >= 0:
        raise MetricError(f"a tolerance of {tolerance}: it is zero or more")
    array = np.asarray(values, dtype=float).ravel()
    finite = np.isfinite(array)
    return _hit_rate(np.abs(np.where(finite, array, np.inf) - target) <= tolerance, ~finite)


def hit_rate_class(values: Sequence[str | int | float | None], target: str | int) -> HitRate:
    """Share of crystals that are of the class that was asked for.

    Parameters
    ----------
    values : sequence
        Classes of the generated crystals, words or numbers; None or NaN where there is none.
    target : str or int

    Returns
    -------
    HitRate
    """
    missing = [value is None or value != value for value in values]
    return _hit_rate(np.array([value == target for value in values], dtype=bool), np.array(missing, dtype=bool))


def crystal_system(atoms: Atoms, symprec: float = 0.2, angle_tolerance: float = 5.0) -> str | None:
    """Crystal system by spglib: triclinic, monoclinic, orthorhombic, tetragonal, trigonal, hexagonal, cubic.

    Parameters
    ----------
    atoms : ase.Atoms
    symprec : float
        Å. Con-CDVAE uses 0.2 on crystals as generated.
    angle_tolerance : float
        Degrees.

    Returns
    -------
    str or None
        None where spglib finds no group (atoms that overlap).
    """
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        found = spglib.get_symmetry_dataset(cell, symprec=symprec, angle_tolerance=angle_tolerance)
    except spglib.SpglibError:
        found = None
    if found is None:
        return None
    return next(name for name, last in CRYSTAL_SYSTEMS.items() if found.number <= last)


def hit_rate_crystal_system(crystals: Sequence[Atoms], target: str, symprec: float = 0.2, angle_tolerance: float = 5.0) -> HitRate:
    """Share of crystals of the crystal system that was asked for.

    Parameters
    ----------
    crystals : sequence of ase.Atoms
    target : str
        Such as ``"cubic"``.
    symprec, angle_tolerance : float
        Å and degrees, see :func:`crystal_system`.

    Returns
    -------
    HitRate
        Where spglib finds no group the crystal is missing.

    Notes
    -----
    Con-CDVAE, appendix B, table B1.
    """
    if target not in CRYSTAL_SYSTEMS:
        raise MetricError(f"there is no crystal system {target!r}; there are {', '.join(CRYSTAL_SYSTEMS)}")
    return hit_rate_class([crystal_system(atoms, symprec, angle_tolerance) for atoms in crystals], target)


def gap_energy_classes(
    gaps: Sequence[float] | np.ndarray, energies: Sequence[float] | np.ndarray, zero_gap: float = 0.0, high_above: float = -0.9
) -> list[str | None]:
    """Each crystal as one of :data:`GAP_ENERGY_CLASSES`.

    Parameters
    ----------
    gaps : sequence of float, shape (n,)
        Band gap, eV; NaN where there is none.
    energies : sequence of float, shape (n,)
        Formation energy, eV/atom; NaN where there is none.
    zero_gap : float
        Largest gap that is zero, eV. Computed gaps of metals are 0; a predictor of gaps needs a tolerance.
    high_above : float
        Formation energies above this are high, eV/atom.

    Returns
    -------
    list of str or None
        None where a number is missing.

    Notes
    -----
    Con-CDVAE, section 3.2, table 2.
    """
    gap, energy = np.asarray(gaps, dtype=float).ravel(), np.asarray(energies, dtype=float).ravel()
    if len(gap) != len(energy):
        raise MetricError(f"{len(gap)} band gaps and {len(energy)} formation energies: the same crystals are needed")
    return [
        f"{'zero' if g <= zero_gap else 'non-zero'} {'high' if e > high_above else 'low'}" if np.isfinite(g) and np.isfinite(e) else None
        for g, e in zip(gap, energy, strict=True)
    ]


def hit_rate_gap_energy(
    gaps: Sequence[float] | np.ndarray,
    energies: Sequence[float] | np.ndarray,
    target: str,
    zero_gap: float = 0.0,
    high_above: float = -0.9,
) -> HitRate:
    """Share of crystals with the combination of band gap and formation energy that was asked for.

    Parameters
    ----------
    gaps, energies, zero_gap, high_above
        See :func:`gap_energy_classes`.
    target : str
        One of :data:`GAP_ENERGY_CLASSES`.

    Returns
    -------
    HitRate
    """
    if target not in GAP_ENERGY_CLASSES:
        raise MetricError(f"there is no class {target!r}; there are {', '.join(GAP_ENERGY_CLASSES)}")
    return hit_rate_class(gap_energy_classes(gaps, energies, zero_gap, high_above), target)


def _hit_rate(hits: np.ndarray, missing: np.ndarray) -> HitRate:
    rate = float(hits.mean()) if len(hits) else np.nan
    return HitRate(rate, int(hits.sum()), len(hits), int(missing.sum()))
