"""One crystal as read, the checks that it must pass, and the file that it is read from."""

from __future__ import annotations

import gzip
import io
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

_NO_PROPERTIES = ("cif", "elements", "species", "cell", "frac_coords", "structure", "material_id", None)
_SPECIES = re.compile(r"([A-Za-z]{1,2})(\d*\.?\d*[+-].*)?")
PARTIAL = "partial occupancy; only ordered crystals can be used"
SMALLEST_VOLUME = 0.1
"""Å³; a smaller cell is no crystal (CDVAE)."""


class NoCrystals(DataError):
    """A file that holds something else than crystals."""


@dataclass(frozen=True)
class Row:
    """One crystal as read, or the reason why it could not be."""

    name: str
    """Where it stands: material id if there is one, else file and position."""
    cell: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    """Lattice vectors as rows, shape (3, 3), Å."""
    frac: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    """Fractional coordinates, shape (n, 3)."""
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Atomic numbers, shape (n,)."""
    properties: dict[str, float] = field(default_factory=dict)
    """Numbers that stand beside the structure (CSV columns, ``atoms.info``)."""
    error: str = ""
    """Why the row cannot be used; empty for a good row."""
    sample: int = 0
    """Which evaluation it belongs to, from 0, in files that hold several of the same crystals."""
    info: dict[str, Any] = field(default_factory=dict)
    """Plain values of ``atoms.info`` as they were: text, whole numbers, truth values."""
    fixed: tuple[int, ...] = ()
    """Atoms that do not move (``FixAtoms``, selective dynamics)."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """What an ASE file says of each atom beside element and position: moments, tags, charges."""

    def to_atoms(self) -> Atoms:
        """The crystal with its properties as ``info``; only for a row without `error`."""
        from ase import Atoms
        from ase.constraints import FixAtoms

        atoms = Atoms(numbers=self.numbers, scaled_positions=self.frac, cell=self.cell, pbc=True, info={**self.properties, **self.info})
        for name, values in self.arrays.items():
            atoms.set_array(name, values)
        if self.fixed:
            atoms.set_constraint(FixAtoms(list(self.fixed)))
        return atoms


@dataclass(frozen=True)
class Source:
    """A file on disk, or a member of an archive that is held in memory and never written anywhere."""

    name: str
    path: Path | None = None
    content: bytes | None = None

    @property
    def where(self) -> str:
        """What errors call it."""
        return self.name if self.path is None else str(self.path)

    def binary(self) -> BinaryIO:
        """The bytes, unpacked if the name ends in ``.gz``; can be read from any position."""
        raw: BinaryIO = io.BytesIO(self.content) if self.path is None else open(self.path, "rb")  # type: ignore[arg-type]
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if self.name.lower().endswith(".gz") else raw

    def text(self) -> TextIO:
        """The text; a byte order mark, which spreadsheets write, is passed over."""
        return io.TextIOWrapper(self.binary(), encoding="utf-8-sig", newline="")

    def is_empty(self) -> bool:
        """No byte at all; what cannot be opened is not empty, and the reader will say why."""
        try:
            with self.binary() as stream:
                return not stream.read(1)
        except (OSError, EOFError):
            return False


def checked_row(row: Row) -> Row:
    """The row itself, with `error` set if it is no crystal."""
    if row.error:
        return row
    reason = ""
    if len(row.numbers) == 0:
        reason = "no atoms"
    elif row.numbers.min() < 1 or row.numbers.max() > 118:
        reason = "an atom that is not an element"
    elif not (np.isfinite(row.cell).all() and np.isfinite(row.frac).all()):
        reason = "a number that is not finite"
    else:
        volume, box = abs(np.linalg.det(row.cell)), np.prod(np.linalg.norm(row.cell, axis=1))
        if volume < SMALLEST_VOLUME:
            reason = f"a volume below {SMALLEST_VOLUME} Å³"
        elif volume < 1e-4 * box:  # neighbours of such a cell are thousands of cells away
            reason = "a cell that is flat"
    # what is known of the atoms stays: a broken answer still belongs to its formula
    return replace(row, error=reason) if reason else row


def numbers_of(entries: dict[str, Any]) -> dict[str, float]:
    """The entries that are numbers, or text that reads as one."""
    found = {}
    for key, value in entries.items():
        if key in _NO_PROPERTIES:
            continue
        try:
            found[key] = float(value)
        except (TypeError, ValueError):
            continue
    return found


def name_of(entries: dict[str, Any], otherwise: str) -> str:
    """The material id of a record, if it has one."""
    for key in ("material_id", "mp_id", "id"):
        if entries.get(key) not in (None, ""):
            return str(entries[key])
    return otherwise


def atomic_number(species: Any) -> int:
    """Atomic number of a symbol; charges are dropped (``Fe2+``), deuterium and tritium are hydrogen.

    Raises
    ------
    ValueError
        It is not an element.
    """
    from ase.data import atomic_numbers

    match = _SPECIES.fullmatch(str(species).strip())
    symbol = match[1].capitalize() if match else ""
    number = 1 if symbol in ("D", "T") else atomic_numbers.get(symbol, 0)
    if not number:
        raise ValueError(f"{str(species)!r} is not an element")
    return number


def reason_of(error: BaseException) -> str:
    """The first line of an error, or its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Key that sorts 2.cif before 10.cif, and otherwise alphabetically."""
    parts = re.split(r"(\d+)", name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts if part]
