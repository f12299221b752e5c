"""Fingerprints of many crystals: computed in processes, kept on disk, with a reason for each that is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
from ase import Atoms

from .cache import Cache, pack, unpack
from .crystalset import Crystals, crystal_set
from .magpie import magpie_fingerprints, scaled_magpie
from .pairs import Progress
from .workers import Failure, Workers

KIND = "crystalnn ops 2"
"""Name in the cache; the number is raised when the numbers change."""


@dataclass(frozen=True)
class Fingerprints:
    """What coverage, diversity and the Fréchet distance compare."""

    structure: np.ndarray = field(repr=False)
    """Mean over sites of CrystalNN's order parameters, shape (n, 61); NaN rows where there is none."""
    composition: np.ndarray = field(repr=False)
    """Magpie features, standardised with CDVAE's constants, shape (n, 132); NaN rows where no atoms are known."""
    reasons: tuple[str, ...] = field(repr=False)
    """Why there is no structural fingerprint, empty where there is one."""

    @property
    def good(self) -> np.ndarray:
        """Crystals with both fingerprints, shape (n,), bool."""
        return np.isfinite(self.structure).all(axis=1) & np.isfinite(self.composition).all(axis=1)


def fingerprints(
    crystals: Crystals,
    *,
    time_limit: float = 60.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Fingerprints:
    """CrystalNN and Magpie fingerprints of crystals.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
        Any crystals; a broken one has NaN and a reason.
    time_limit : float
        Seconds for one crystal.
    processes, cache, progress
        See `Comparer`.
    """
    given = crystal_set(crystals)
    cache = cache or Cache(keep=False)
    values = np.full((len(given), 61), np.nan)
    reasons = [f"no crystal: {row.error}" if row.error else "" for row in given]
    known = cache.get(KIND, [key for key in given.keys if key])
    places: dict[bytes, list[int]] = {}
    for i, key in enumerate(given.keys):
        if key:
            places.setdefault(key, []).append(i)
    missing = [key for key in places if key not in known]
    by_key: dict[bytes, bytes] = dict(known)
    with Workers(_compute, processes, time_limit, _prepare) as workers:
        chunks = [missing[start : start + 8] for start in range(0, len(missing), 8)]
        done = 0
        while chunks:
            again: list[list[bytes]] = []
            for index, result in workers.map([[_atoms(given.atoms[places[key][0]]) for key in chunk] for chunk in chunks]):
                chunk = chunks[index]
                if isinstance(result, Failure):
                    if len(chunk) > 1:  # which of them it was is found by taking them one by one
                        again += [[key] for key in chunk]
                        continue
                    # A time limit or a killed worker may be this machine's fault: not stored.
                    by_key[chunk[0]] = pack(values[0], result.reason)
                else:
                    fresh = dict(zip(chunk, result, strict=True))
                    cache.put(KIND, fresh)
                    by_key |= fresh
                done += len(chunk)
                if progress:
                    progress("fingerprints", done, len(missing))
            chunks = again
    for key, indices in places.items():
        value = by_key[key]
        for i in indices:
            numbers, reasons[i] = unpack(value)
            if numbers is not None:
                values[i] = numbers
    composition = np.full((len(given), 132), np.nan)
    with_atoms = [i for i, row in enumerate(given) if len(row.numbers)]
    if with_atoms:
        composition[with_atoms] = scaled_magpie(magpie_fingerprints([given.rows[i].numbers for i in with_atoms]))
    return Fingerprints(values, composition, tuple(reasons))


def _atoms(atoms: Atoms | None) -> Atoms:
    assert atoms is not None
    return Atoms(numbers=atoms.numbers, cell=atoms.cell, positions=atoms.positions, pbc=True)


def _prepare() -> None:
    for name in ("pymatgen.core", "vesin", "asegen.metrics.crystalnn"):
        import_module(name)


def _compute(crystals: list[Atoms]) -> list[bytes]:
    from .crystalnn import crystalnn_fingerprints

    values, reasons = crystalnn_fingerprints(crystals)
    return [pack(value, reason) for value, reason in zip(values, reasons, strict=True)]
