"""Crystals as somebody made them, good and broken ones alike: what every metric starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Union

import numpy as np
from ase import Atoms

from ..datasets.ase_files import row_of_atoms
from ..datasets.readers import NoTruth, read_rows, read_truth
from ..datasets.rows import Row
from ..errors import DataError
from .cache import structure_key

Crystals = Union["CrystalSet", str, Path, Sequence[Atoms]]
"""What the metrics accept: a file or folder, a sequence of Atoms, or a `CrystalSet` read before."""


@dataclass(frozen=True)
class CrystalSet:
    """Crystals in their order; those that are none stay in their place with the reason why."""

    rows: tuple[Row, ...]
    """As read; a row with an ``error`` is no crystal."""
    source: str
    """File name or "crystals in memory"; for protocols."""
    ignored: tuple[str, ...] = ()
    """Files of a folder or archive that hold no crystals, with the reason."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @cached_property
    def good(self) -> np.ndarray:
        """Which rows are crystals, shape (n,), bool."""
        return np.array([not row.error for row in self.rows], dtype=bool)

    @cached_property
    def atoms(self) -> tuple[Atoms | None, ...]:
        """The crystals as Atoms; None for a row that is none."""
        return tuple(None if row.error else row.to_atoms() for row in self.rows)

    @cached_property
    def keys(self) -> tuple[bytes, ...]:
        """Names of the structures for the cache; empty for a row that is none."""
        return tuple(b"" if atoms is None else structure_key(atoms) for atoms in self.atoms)

    @cached_property
    def formulas(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Reduced formula of every row as ((atomic number, count), …); empty where no atoms are known."""
        return tuple(reduced_formula(row.numbers) for row in self.rows)

    def column(self, name: str) -> np.ndarray:
        """A number that stands beside the structures (CSV column, ``atoms.info``), NaN where it does not; shape (n,)."""
        return np.array([row.properties.get(name, np.nan) for row in self.rows], dtype=float)

    def known_column(self, name: str) -> np.ndarray:
        """As `column`, for one that has been asked for.

        Raises
        ------
        DataError
            There are crystals, and none of them has the number.
        """
        values = self.column(name)
        if self.good.any() and not np.isfinite(values).any():
            known = sorted({name for row in self for name in row.properties})
            raise DataError(f"no crystal of {self.source} has a number named {name!r} (there are: {', '.join(known) or 'none'})")
        return values

    def subset(self, indices: Sequence[int] | np.ndarray) -> CrystalSet:
        """Some of the rows, in the order given."""
        return CrystalSet(tuple(self.rows[int(i)] for i in indices), self.source, self.ignored)


def crystal_set(source: Crystals) -> CrystalSet:
    """Read or wrap crystals; nothing is dropped.

    Raises
    ------
    DataError
        The file does not exist or is of no known kind.
    """
    if isinstance(source, CrystalSet):
        return source
    if isinstance(source, (str, Path)):
        ignored: list[str] = []
        rows = tuple(read_rows(source, ignored))
        return CrystalSet(rows, Path(source).name, tuple(ignored))
    rows = tuple(row_of_atoms(atoms, str(atoms.info.get("material_id", f"#{number}"))) for number, atoms in enumerate(source, start=1))
    return CrystalSet(rows, "crystals in memory")


def reference_set(source: Crystals) -> CrystalSet:
    """As `crystal_set`; of a tensor file that keeps true structures beside generated ones, the true ones.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    true = truth_of(source) if isinstance(source, (str, Path)) else None
    return crystal_set(source) if true is None else true


def truth_of(path: str | Path) -> CrystalSet | None:
    """The true structures that a tensor file of CDVAE or DiffCSP keeps beside the generated ones; None if it keeps none.

    Raises
    ------
    DataError
        The file cannot be read, or its true structures are no crystals as tensors.
    """
    try:
        rows = tuple(read_truth(path))
    except NoTruth:
        return None
    return CrystalSet(rows, f"true structures in {Path(path).name}")


def reduced_formula(numbers: np.ndarray) -> tuple[tuple[int, int], ...]:
    """((atomic number, count), …) with the greatest common divisor of the counts taken out."""
    if not len(numbers):
        return ()
    elements, counts = np.unique(numbers, return_counts=True)
    divisor = np.gcd.reduce(counts)
    return tuple((int(z), int(c // divisor)) for z, c in zip(elements, counts, strict=True))
