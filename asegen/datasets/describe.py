"""What is in a data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from .arrays import CrystalArrays
from .readers import read_rows


def describe(path: str | Path) -> dict[str, Any]:
    """Counts of crystals, cell sizes and elements of training arrays or files.

    Returns
    -------
    dict
        ``count``, ``atoms``, ``sizes`` (atoms per cell to crystals), ``elements`` (symbol to crystals), ``volume_per_atom``
        (5, 50, 95 % quantiles, Å³), ``skipped`` (name and reason of unusable rows).
    """
    sizes: Counter[int] = Counter()
    elements: Counter[int] = Counter()
    volumes: list[float] = []
    skipped: list[list[str]] = []
    path = Path(path)
    if (path / "meta.json").is_file():
        arrays = CrystalArrays.open(path)
        skipped = arrays.meta["skipped"]
        for crystal, size in enumerate(arrays.num_atoms):
            _count(arrays.numbers[arrays.offsets[crystal] : arrays.offsets[crystal + 1]], sizes, elements)
            volumes.append(abs(float(np.linalg.det(arrays.cell[crystal].astype(float)))) / size)
    else:
        for row in read_rows(path):
            if row.error:
                skipped.append([row.name, row.error])
                continue
            _count(row.numbers, sizes, elements)
            volumes.append(abs(float(np.linalg.det(row.cell))) / len(row.numbers))
    quantiles = np.quantile(volumes, [0.05, 0.5, 0.95]) if volumes else np.zeros(3)
    return {
        "count": sum(sizes.values()),
        "atoms": sum(size * count for size, count in sizes.items()),
        "sizes": {str(size): sizes[size] for size in sorted(sizes)},
        "elements": {chemical_symbols[z]: elements[z] for z in sorted(elements)},
        "volume_per_atom": [round(float(q), 2) for q in quantiles],
        "skipped": skipped,
    }


def _count(numbers: np.ndarray, sizes: Counter[int], elements: Counter[int]) -> None:
    sizes[len(numbers)] += 1
    elements.update(int(z) for z in np.unique(numbers))
