"""Stable, unique and novel: the share of generated crystals that would be discoveries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from ..errors import DataError
from .cache import Cache
from .crystalset import Crystals, CrystalSet, crystal_set
from .discovery import sun_shares
from .duplicates import Novelty, Uniqueness, novelty, uniqueness
from .pairs import Progress


@dataclass(frozen=True)
class Sun:
    """Shares of all crystals given; one without an energy is not stable."""

    n: int
    """Crystals given, broken ones included."""
    stable: float | None
    """At most `stable_below` above the hull."""
    metastable: float | None
    """At most `metastable_below` above the hull."""
    sun: float | None
    """Stable, unique and novel."""
    metastable_sun: float | None
    """Metastable, unique and novel (MatterGen's S.U.N.)."""
    without_energy: int
    """Crystals without an energy above the hull."""
    protocol: str
    """Limits, and where the energies come from."""
    e_above_hull: np.ndarray = field(repr=False)
    """The energies, eV/atom, shape (n,)."""


def sun(
    crystals: Crystals,
    train: Crystals,
    e_above_hull: str | Sequence[float] | np.ndarray | Callable[[Atoms], float],
    *,
    stable_below: float = 0.0,
    metastable_below: float = 0.1,
    unique: Uniqueness | None = None,
    novel: Novelty | None = None,
    time_limit: float = 20.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Sun:
    """Share of stable, unique and novel crystals.

    Of crystals that are equal only the one lowest in energy counts.

    Parameters
    ----------
    crystals, train : path, sequence of Atoms or CrystalSet
        What was generated, and what the generator was trained on.
    e_above_hull : str, array or callable
        Energies above the hull in eV/atom: a column of the file (an entry of ``atoms.info``), an array of shape (n,), or a
        function of a crystal. NaN where there is none.
    stable_below, metastable_below : float
        Limits in eV/atom; the limits themselves count.
    unique, novel : Uniqueness, Novelty, optional
        If they are known already.
    time_limit, processes, cache, progress
        See `Comparer`.

    Raises
    ------
    DataError
        No crystal has the named column, or the array has another length.

    References
    ----------
    Zeni et al., Nature 639, 624 (2025) (MatterGen).
    """
    given = crystal_set(crystals)
    energies, source = _energies(given, e_above_hull)
    options = {"time_limit": time_limit, "processes": processes, "cache": cache, "progress": progress}
    unique = unique or uniqueness(given, **options)  # type: ignore[arg-type]
    novel = novel or novelty(given, train, **options)  # type: ignore[arg-type]
    shares = sun_shares(energies, _lowest_of_each(unique.repeats, energies), novel.matches == -1, stable_below, metastable_below)
    known = len(given) > 0
    return Sun(
        n=len(given),
        stable=shares.stable if known else None,
        metastable=shares.metastable if known else None,
        sun=shares.sun if known else None,
        metastable_sun=shares.metastable_sun if known else None,
        without_energy=shares.missing,
        protocol=f"stable at {stable_below:g}, metastable at {metastable_below:g} eV/atom above the hull or less (energies: {source}); "
        f"unique and novel by {unique.protocol.partition('.fit')[0]}; shares of all {len(given)} crystals",
        e_above_hull=energies,
    )


def _energies(crystals: CrystalSet, given: str | Sequence[float] | np.ndarray | Callable[[Atoms], float]) -> tuple[np.ndarray, str]:
    if isinstance(given, str):
        return crystals.known_column(given), f"column {given!r}"
    if callable(given):
        return np.array([np.nan if atoms is None else float(given(atoms)) for atoms in crystals.atoms]), getattr(
            given, "__name__", "a function"
        )
    values = np.asarray(given, dtype=float)
    if values.shape != (len(crystals),):
        raise DataError(f"energies above the hull have shape {values.shape}; one for each of the {len(crystals)} crystals is needed")
    return values, "as given"


def _lowest_of_each(repeats: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """One crystal of each group of equal ones: the lowest in energy, the first if none has an energy."""
    chosen = repeats == -1
    for first in np.unique(repeats[repeats >= 0]):
        group = np.concatenate([[first], np.nonzero(repeats == first)[0]])
        with_energy = group[np.isfinite(energies[group])]
        if len(with_energy):
            chosen[group] = False
            chosen[with_energy[np.argmin(energies[with_energy])]] = True
    return chosen
