"""Magpie fingerprints of compositions, as matminer computes them, many at once, and as CDVAE scales them.

Each of 22 element properties is summarised over the atoms by six statistics (Ward et al., npj Comput. Mater. 2, 16028 (2016)). The
numbers are those of ``ElementProperty.from_preset("magpie", impute_nan=False)`` of matminer, which CDVAE's coverage (COV) and
diversity are measured with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from ase.data import atomic_numbers

from ..errors import FormulaError
from .composition import composition_tables

STATISTICS = ("minimum", "maximum", "range", "mean", "avg_dev", "mode")
#: Names of the 132 features, in order, as matminer has them.
FEATURES = tuple(f"MagpieData {statistic} {name}" for name in composition_tables()["properties"] for statistic in STATISTICS)

# row of the table for everything that is no element of it
_UNKNOWN = 0


def magpie_fingerprints(numbers: Sequence[np.ndarray]) -> np.ndarray:
    """Magpie features of compositions.

    Parameters
    ----------
    numbers : sequence of b int arrays
        Atomic numbers of all atoms of each composition, in any order.

    Returns
    -------
    np.ndarray, shape (b, 132)
        In the order of :data:`FEATURES`: per property minimum, maximum, range, mean, mean absolute deviation, and mode, the
        value of the most frequent element (the smallest value where several are). NaN where an element has no value (the
        mode: where a most frequent element has none).

    Raises
    ------
    FormulaError
        A composition without atoms.
    """
    if len(numbers) == 0:
        return np.zeros((0, len(FEATURES)))
    sizes = np.array([len(row) for row in numbers])
    if not sizes.all():
        raise FormulaError(f"composition {int(sizes.argmin())} has no atoms")
    table = _table()
    atoms = np.concatenate([np.asarray(row, dtype=np.int64) for row in numbers])
    atoms = np.where((atoms > 0) & (atoms < len(table)), atoms, _UNKNOWN)
    # one entry per element of each composition, ordered by composition
    entries, count = np.unique(np.repeat(np.arange(len(sizes)), sizes) * len(table) + atoms, return_counts=True)
    owner = entries // len(table)
    first = np.searchsorted(owner, np.arange(len(sizes)))
    values = table[entries % len(table)]
    weight = (count / sizes[owner])[:, None]

    lowest, highest = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
    mean = np.add.reduceat(weight * values, first)
    deviation = np.add.reduceat(weight * np.abs(values - mean[owner]), first)
    frequent = count == np.maximum.reduceat(count, first)[owner]
    mode = np.minimum.reduceat(np.where(frequent[:, None], values, np.inf), first)
    return np.stack([lowest, highest, highest - lowest, mean, deviation, mode], axis=2).reshape(len(sizes), -1)


def scaled_magpie(fingerprints: np.ndarray) -> np.ndarray:
    """Fingerprints in CDVAE's units: its means removed, divided by its spreads; 0 where there is no value.

    Parameters
    ----------
    fingerprints : np.ndarray, shape (…, 132)
        From :func:`magpie_fingerprints`.

    Returns
    -------
    np.ndarray, shape (…, 132)
        In these units distances between compositions are measured: COV counts those below 10 (MP-20) or 4 (Perov-5, Carbon-24).

    Notes
    -----
    Xie et al., ICLR 2022, ``cdvae/common/constants.py``: fixed numbers, the same for every data set. They are not those of the
    training set of MP-20, whose means lie up to 0.24 spreads away.
    """
    mean, spread = _scaler()
    scaled = (np.asarray(fingerprints, dtype=float) - mean) / spread
    return np.where(np.isnan(scaled), 0.0, scaled)


@cache
def _table() -> np.ndarray:
    """Properties by atomic number, shape (119, 22); NaN where there is no value."""
    tables = composition_tables()
    table = np.full((119, len(tables["properties"])), np.nan)
    for symbol, row in tables["magpie"].items():
        table[atomic_numbers[symbol]] = [np.nan if value is None else value for value in row]
    return table


@cache
def _scaler() -> tuple[np.ndarray, np.ndarray]:
    scaler = composition_tables()["scaler"]
    return np.array(scaler["mean"]), np.array(scaler["std"])
