"""Crystals on disk as memory-mapped arrays: parsed once, opened in milliseconds, never loaded whole.

A data folder holds flat ``.npy`` files and one ``meta.json``::

    numbers.npy   (n,)      uint8    atomic numbers of all atoms, crystal after crystal
    frac.npy      (n, 3)    float32  fractional coordinates in [0, 1)
    cell.npy      (b, 3, 3) float32  lattice vectors as rows, Å
    offsets.npy   (b + 1,)  int64    first atom of each crystal
    properties.npz-like ``property_NAME.npy`` (b,) float32, NaN where unknown
    meta.json     count, sources, rows skipped and why
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..crystals import CrystalBatch, ranges
from ..errors import DataError
from .readers import Row

_FILES = ("numbers", "frac", "cell", "offsets")


@dataclass(frozen=True)
class CrystalArrays:
    """Memory-mapped crystals; indexing reads only what is asked for."""

    numbers: np.ndarray
    frac: np.ndarray
    cell: np.ndarray
    offsets: np.ndarray
    properties: dict[str, np.ndarray]
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.cell)

    @property
    def num_atoms(self) -> np.ndarray:
        """Atoms per crystal, shape (b,)."""
        return np.diff(self.offsets)

    @classmethod
    def open(cls, folder: str | Path) -> CrystalArrays:
        """Open a data folder written by :func:`write_arrays`.

        Raises
        ------
        DataError
            The folder is not one, or its files disagree.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / "meta.json").read_text())
            parts = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _FILES]
            properties = {
                p.stem.removeprefix("property_"): np.load(p, mmap_mode="r", allow_pickle=False)
                for p in sorted(folder.glob("property_*.npy"))
            }
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} is not a folder of asegen training arrays: {error}") from error
        numbers, frac, cell, offsets = parts
        if len(offsets) != len(cell) + 1 or offsets[-1] != len(numbers) or len(frac) != len(numbers):
            raise DataError(f"{folder}: the arrays disagree in length; write them again with 'asegen data convert'")
        return cls(numbers, frac, cell, offsets, properties, meta)

    def batch(self, crystals: Sequence[int] | np.ndarray) -> CrystalBatch:
        """Some of the crystals as tensors, float32."""
        chosen = torch.as_tensor(np.asarray(crystals, dtype=np.int64))
        starts = torch.from_numpy(self.offsets[chosen.numpy()])
        counts = torch.from_numpy(self.offsets[chosen.numpy() + 1]) - starts
        atoms = ranges(starts, counts).numpy()
        return CrystalBatch(
            torch.from_numpy(self.numbers[atoms].astype(np.int64)),
            torch.from_numpy(np.asarray(self.frac[atoms])),
            torch.from_numpy(np.asarray(self.cell[chosen.numpy()])),
            counts,
        )


def write_arrays(rows: Iterable[Row], folder: str | Path, *, max_atoms: int = 0, source: str = "") -> dict[str, Any]:
    """Write rows as memory-mapped arrays; bad rows are counted, named and left out.

    The rows are streamed: memory does not grow with their number. The folder appears under its name only when it
    is complete.

    Parameters
    ----------
    rows : iterable of Row
    folder : str or Path
        Must not exist yet.
    max_atoms : int
        Crystals with more atoms are left out (0: no limit).
    source : str
        A line about where the rows come from, kept in ``meta.json``.

    Returns
    -------
    dict
        What ``meta.json`` holds: ``count``, ``skipped`` (list of [name, reason]), ``too_large``.

    Raises
    ------
    DataError
        The folder exists, or no row could be used.
    """
    folder = Path(folder)
    if folder.exists():
        raise DataError(f"{folder} exists already; remove it or give another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    skipped: list[list[str]] = []
    too_large = 0
    sizes: list[int] = []
    properties: dict[str, list[tuple[int, float]]] = {}
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with open(work / "numbers.raw", "wb") as numbers, open(work / "frac.raw", "wb") as frac, open(work / "cell.raw", "wb") as cell:
            for row in rows:
                if row.error:
                    skipped.append([row.name, row.error])
                    continue
                if max_atoms and len(row.numbers) > max_atoms:
                    too_large += 1
                    continue
                numbers.write(row.numbers.astype(np.uint8).tobytes())
                frac.write((row.frac % 1.0).astype(np.float32).tobytes())
                cell.write(row.cell.astype(np.float32).tobytes())
                for key, value in row.properties.items():
                    properties.setdefault(key, []).append((len(sizes), value))
                sizes.append(len(row.numbers))
        if not sizes:
            reason = f"; first reason: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
            raise DataError(f"no crystal could be used: {len(skipped)} bad rows, {too_large} with more than {max_atoms} atoms{reason}")
        total = sum(sizes)
        _to_npy(work / "numbers", np.uint8, (total,))
        _to_npy(work / "frac", np.float32, (total, 3))
        _to_npy(work / "cell", np.float32, (len(sizes), 3, 3))
        np.save(work / "offsets.npy", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        for key, entries in properties.items():
            column = np.full(len(sizes), np.nan, dtype=np.float32)
            for index, value in entries:
                column[index] = value
            np.save(work / f"property_{_safe(key)}.npy", column)
        meta = {"count": len(sizes), "atoms": total, "source": source, "too_large": too_large, "skipped": skipped}
        (work / "meta.json").write_text(json.dumps(meta, indent=1))
        os.chmod(work, 0o755)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return meta


def _to_npy(stem: Path, dtype: type, shape: tuple[int, ...]) -> None:
    raw = np.memmap(stem.with_suffix(".raw"), dtype=dtype, mode="r", shape=shape)
    target = np.lib.format.open_memmap(stem.with_suffix(".npy"), mode="w+", dtype=dtype, shape=shape)
    step = max(1, 2**24 // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], step):
        target[start : start + step] = raw[start : start + step]
    target.flush()
    stem.with_suffix(".raw").unlink()


def _safe(key: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in key)
