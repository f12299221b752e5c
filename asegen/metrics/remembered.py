"""Properties of single crystals that are kept on disk: features of the energy network, space groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ..report import space_group
from .cache import Cache, pack, unpack
from .crystalset import Crystals, crystal_set
from .learned import LearnedFeatures, evaluators, learned_features, load_evaluator
from .pairs import Progress

BLOCK = 64
"""Crystals computed between two writes to the disk."""


def network_features(
    crystals: Crystals, network: str = "mp20", *, cache: Cache | None = None, progress: Progress | None = None
) -> LearnedFeatures:
    """`learned_features` of a set: NaN and a reason for a row that is no crystal.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
        Any crystals.
    network : str
        Packaged energy network.
    cache, progress
        See `Comparer`.
    """
    given = crystal_set(crystals)
    name = f"network {_digest(evaluators().get(network) or Path(network))}"

    def compute(batch: Sequence[Atoms]) -> list[bytes]:
        found = learned_features(batch, network)
        rows = np.column_stack([found.energies, found.activations])
        return [pack(row, reason) for row, reason in zip(rows, found.reasons, strict=True)]

    stored = _remembered(given.keys, given.atoms, name, compute, cache, progress, "energy network")
    reasons = [f"no crystal: {row.error}" if row.error else "" for row in given]
    values: dict[int, np.ndarray] = {}
    for i, value in enumerate(stored):
        if value:
            row, reason = unpack(value)
            if row is None:
                reasons[i] = reason
            else:
                values[i] = row
    table = np.full((len(given), max((len(v) for v in values.values()), default=1)), np.nan)
    for i, numbers in values.items():
        table[i] = numbers
    seen = load_evaluator(network).elements
    unseen = [[chemical_symbols[z] for z in sorted(set(row.numbers.tolist()) - seen)] for row in given]
    return LearnedFeatures(table[:, 1:], table[:, 0], reasons, unseen)


def space_group_numbers(crystals: Crystals, symprec: float, *, cache: Cache | None = None, progress: Progress | None = None) -> np.ndarray:
    """International numbers by spglib, 0 where none is found or the row is no crystal; shape (n,)."""
    given = crystal_set(crystals)
    name = f"space group {symprec:g} spglib {version('spglib')}"

    def compute(batch: Sequence[Atoms]) -> list[bytes]:
        return [bytes([space_group(atoms, symprec)]) for atoms in batch]

    stored = _remembered(given.keys, given.atoms, name, compute, cache, progress, "space groups")
    return np.array([value[0] if value else 0 for value in stored], dtype=np.int64)


def finite_rows(values: np.ndarray) -> np.ndarray:
    """Rows without a NaN."""
    return values[np.isfinite(values.reshape(len(values), -1)).all(axis=1)] if len(values) else values


def _remembered(
    keys: Sequence[bytes],
    atoms: Sequence[Atoms | None],
    kind: str,
    compute: Callable[[Sequence[Atoms]], list[bytes]],
    cache: Cache | None,
    progress: Progress | None,
    what: str,
) -> list[bytes]:
    """The stored value of every crystal, b"" where there is none; those not known are computed and stored block by block."""
    cache = cache or Cache(keep=False)
    known = cache.get(kind, [key for key in keys if key])
    crystals = {key: a for key, a in zip(keys, atoms, strict=True) if a is not None and key not in known}
    missing = list(crystals)
    for start in range(0, len(missing), BLOCK):
        block = missing[start : start + BLOCK]
        fresh = dict(zip(block, compute([crystals[key] for key in block]), strict=True))
        cache.put(kind, fresh)
        known |= fresh
        if progress:
            progress(what, start + len(block), len(missing))
    return [known.get(key, b"") for key in keys]


@lru_cache(maxsize=8)
def _digest(path: Path) -> str:
    """Names the weights, so that features of another network are never taken for this one's."""
    return blake2b(path.read_bytes(), digest_size=8).hexdigest() if path.is_file() else str(path)
