"""Rows of crystals from the files people have: CDVAE-style CSV, CIF, extxyz, ASE databases, JSON lines."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError

_CIF_SUFFIXES = (".cif",)
_ASE_SUFFIXES = (".extxyz", ".xyz", ".db", ".traj", ".vasp", ".xsf", ".res")


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


def read_rows(path: str | Path) -> Iterator[Row]:
    """Every crystal of a file or folder, in order; broken ones come with their `error` set.

    Parameters
    ----------
    path : str or Path
        ``.csv`` or ``.csv.gz`` with a ``cif`` column, ``.jsonl(.gz)`` with ``cell, species, frac_coords``,
        ``.cif``, anything ASE reads with periodic cells (``.extxyz``, ``.db``, ``.traj``, ``POSCAR``, …), or a folder
        of such files, searched recursively in alphabetical order.

    Raises
    ------
    DataError
        The path does not exist, is of no known kind, or a CSV has no ``cif`` column.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and _kind(p))
        if not files:
            raise DataError(f"{path} holds no file that can be read (.cif, .csv, .extxyz, .db, .jsonl, POSCAR)")
        for file in files:
            yield from read_rows(file)
        return
    kind = _kind(path)
    if kind == "csv":
        yield from _csv_rows(path)
    elif kind == "jsonl":
        yield from _json_rows(path)
    elif kind == "cif":
        yield from _cif_file(path)
    elif kind == "ase":
        yield from _ase_rows(path)
    else:
        raise DataError(f"{path}: unknown kind of file; known are .cif, .csv, .csv.gz, .jsonl, .extxyz, .db, .traj and POSCAR")


def _kind(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".csv"):
        return "csv"
    if name.endswith(".jsonl"):
        return "jsonl"
    if name.endswith(_CIF_SUFFIXES):
        return "cif"
    if name.endswith(_ASE_SUFFIXES) or "poscar" in name or "contcar" in name:
        return "ase"
    return ""


def _open_text(path: Path) -> io.TextIOBase:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")  # type: ignore[return-value]
    return open(path, encoding="utf-8", newline="")


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    try:
        with _open_text(path) as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            if "cif" not in columns:
                raise DataError(f"{path} has no column named 'cif' (columns: {', '.join(columns) or 'none'})")
            name_column = next((c for c in ("material_id", "mp_id", "id") if c in columns), None)
            for number, row in enumerate(reader):
                name = row[name_column] if name_column and row[name_column] else f"{path.name} row {number + 1}"
                yield from_cif(row["cif"] or "", name, _numbers_of(row))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error


def _json_rows(path: Path) -> Iterator[Row]:
    from ase.cell import Cell
    from ase.data import atomic_numbers

    with _open_text(path) as stream:
        for number, line in enumerate(stream):
            name = f"{path.name} line {number + 1}"
            try:
                entry = json.loads(line)
                name = str(entry.get("material_id", name))
                cell = np.asarray(entry["cell"], dtype=float)
                cell = Cell.fromcellpar(cell).array if cell.shape == (6,) else cell.reshape(3, 3)
                numbers = np.array([atomic_numbers[s] for s in entry["species"]], dtype=np.int64)
                frac = np.asarray(entry["frac_coords"], dtype=float).reshape(len(numbers), 3)
                yield _checked(Row(name, cell, frac, numbers, _numbers_of(entry)))
            except (ValueError, KeyError, TypeError) as error:
                yield Row(name, error=f"not a crystal: {type(error).__name__}: {error}")


def _cif_file(path: Path) -> Iterator[Row]:
    try:
        with _open_text(path) as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        yield Row(path.name, error=f"cannot be read: {error}")
        return
    yield from_cif(text, path.name)


def _ase_rows(path: Path) -> Iterator[Row]:
    import ase.io

    number = 0
    try:
        for number, atoms in enumerate(ase.io.iread(str(path), index=":"), start=1):
            name = str(atoms.info.get("material_id", f"{path.name} #{number}"))
            if not atoms.pbc.all() or atoms.cell.rank < 3:
                yield Row(name, error="not periodic in three directions")
                continue
            frac = atoms.get_scaled_positions(wrap=False)
            yield _checked(Row(name, atoms.cell.array.copy(), frac, atoms.numbers.astype(np.int64), _numbers_of(atoms.info)))
    except Exception as error:  # ase.io raises whatever the format's parser raised
        yield Row(f"{path.name} after #{number}", error=f"ASE cannot read on: {type(error).__name__}: {error}")


def from_cif(text: str, name: str = "cif", properties: dict[str, float] | None = None) -> Row:
    """One crystal from the text of a CIF; symmetry is expanded, partial occupancy refused."""
    import gemmi

    try:
        document = gemmi.cif.read_string(text)
        blocks = [b for b in document if b.find_values("_atom_site_fract_x")]
        if len(blocks) != 1:
            return Row(name, error=f"CIF with {len(blocks)} structures, expected one")
        small = gemmi.make_small_structure_from_block(blocks[0])
        if any(abs(site.occ - 1.0) > 1e-3 for site in small.sites):
            return Row(name, error="partial occupancy; only ordered crystals can be used")
        sites = small.get_all_unit_cell_sites()
        cell = np.array(small.cell.orth.mat.tolist()).T
        frac = np.array([site.fract.tolist() for site in sites]).reshape(-1, 3)
        numbers = np.array([site.element.atomic_number for site in sites], dtype=np.int64)
    except (ValueError, RuntimeError, IndexError) as error:
        return Row(name, error=f"not a CIF: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}")
    return _checked(Row(name, cell, frac, numbers, properties or {}))


def _checked(row: Row) -> Row:
    if len(row.numbers) == 0:
        return Row(row.name, error="no atoms")
    if row.numbers.min() < 1 or row.numbers.max() > 118:
        return Row(row.name, error="an atom that is not an element")
    if not (np.isfinite(row.cell).all() and np.isfinite(row.frac).all()):
        return Row(row.name, error="a number that is not finite")
    lengths = np.linalg.norm(row.cell, axis=1)
    if lengths.min() < 0.5 or abs(np.linalg.det(row.cell)) / np.prod(lengths) < 1e-4:
        return Row(row.name, error="a cell without volume")
    return row


def _numbers_of(row: dict[str, Any]) -> dict[str, float]:
    found = {}
    for key, value in row.items():
        if key in ("cif", "elements", "species", "cell", "frac_coords", None):
            continue
        try:
            found[key] = float(value)
        except (TypeError, ValueError):
            continue
    return found
