"""Crystals as somebody made them, good and broken ones alike: what every metric starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Union

import numpy as np
from ase import Atoms

from ..datasets.readers import read_rows
from ..datasets.rows import Row, checked_row
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

    def subset(self, indices: Sequence[int] | np.ndarray) -> CrystalSet:
        """Some of the rows, in the order given."""
        return CrystalSet(tuple(self.rows[int(i)] for i in indices), self.source)


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
        return CrystalSet(tuple(read_rows(source)), Path(source).name)
    return CrystalSet(tuple(_row_of(atoms, number) for number, atoms in enumerate(source)), "crystals in memory")


def reduced_formula(numbers: np.ndarray) -> tuple[tuple[int, int], ...]:
    """((atomic number, count), …) with the greatest common divisor of the counts taken out."""
    if not len(numbers):
        return ()
    elements, counts = np.unique(numbers, return_counts=True)
    divisor = np.gcd.reduce(counts)
    return tuple((int(z), int(c // divisor)) for z, c in zip(elements, counts, strict=True))


def _row_of(atoms: Atoms, number: int) -> Row:
    name = str(atoms.info.get("material_id", f"#{number + 1}"))
    properties = {k: float(v) for k, v in atoms.info.items() if isinstance(v, (int, float, np.number)) and not isinstance(v, bool)}
    numbers = np.asarray(atoms.numbers, dtype=np.int64)
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        return Row(name, numbers=numbers, properties=properties, error="not periodic in three directions")
    cell = atoms.cell.array.copy()
    singular = not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-12
    frac = np.zeros((len(atoms), 3)) if singular else atoms.get_scaled_positions(wrap=False)
    return checked_row(Row(name, cell, frac, numbers, properties))
