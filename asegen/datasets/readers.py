"""Rows of crystals from the files people have: tables, CIFs, ASE's formats, pymatgen's JSON, archives, tensors."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .ase_files import ase_rows, database_rows, extxyz_rows
from .cif_files import cif_rows, from_cif
from .json_files import holds_records, json_lines, json_rows
from .rows import NoCrystals, Row, Source, checked_row, name_of, natural, numbers_of, reason_of
from .tensor_files import NoTruth, tensor_rows

__all__ = ["NoTruth", "Row", "checked_row", "from_cif", "read_rows", "read_truth"]

_KINDS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".json": "json",
    ".cif": "cif",
    ".extxyz": "extxyz",
    ".xyz": "extxyz",
    ".db": "db",
    ".traj": "traj",
    ".vasp": "vasp",
    ".xsf": "xsf",
    ".res": "res",
    ".zip": "zip",
    ".pt": "tensors",
    ".pth": "tensors",
    ".npz": "tensors",
}
_ONE_CRYSTAL = ("cif", "vasp", "xsf", "res")
_WHOLE_RUNS = ("zip", "tensors")
_KNOWN = ".cif, .csv, .jsonl, .json, .extxyz, .xyz, .db, .traj, .xsf, .res, .zip, .pt, .npz, some with .gz, and POSCAR"
_PICKLED = (
    "arrays of objects (.npy) cannot be read without running code from the file; where it was made, save its tensors with "
    "numpy.savez(FILE, frac_coords=…, atom_types=…, lengths=…, angles=…, num_atoms=…) or its crystals as CIFs"
)


def read_rows(path: str | Path, ignored: list[str] | None = None) -> Iterator[Row]:
    """Every crystal of a file or folder, in order; broken ones come with their `error` set.

    A file of no bytes holds no crystals; if its kind holds one crystal (CIF, POSCAR), that is an error row.

    Parameters
    ----------
    path : str or Path
        - ``.csv`` with a ``cif`` column;
        - ``.jsonl`` and ``.json``: ``cell, species, frac_coords``, structures of pymatgen, or records that hold these or CIFs;
        - ``.cif``, also with several blocks;
        - what ASE reads with periodic cells: ``.extxyz``, ``.db``, ``.traj``, ``POSCAR``, …;
        - ``.pt``, ``.pth``, ``.npz``: tensors as CDVAE and DiffCSP save them (no code of the file is run);
        - ``.zip`` of such files, read in memory, ``2.cif`` before ``10.cif``;
        - a folder of such files, searched recursively in the same order. Archives and tensors, which hold whole runs
          and often the same crystals again, are read only when they are named themselves.

        Text files may end in ``.gz``.
    ignored : list of str, optional
        Receives the files of a folder or archive that hold no crystals, with the reason: results, notes, pictures, tables
        without crystals.

    Raises
    ------
    DataError
        The path does not exist, is of no known kind, or cannot be read at all. Inside folders and archives that is an
        error row.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    ignored = [] if ignored is None else ignored
    if path.is_dir():
        yield from _folder_rows(path, ignored)
        return
    if path.suffix.lower() == ".npy":
        raise DataError(f"{path}: {_PICKLED}")
    if not _kind(path.name):
        raise DataError(f"{path}: unknown kind of file; known are {_KNOWN}")
    yield from _rows(Source(path.name, path), ignored)


def read_truth(path: str | Path) -> Iterator[Row]:
    """The true structures that a ``.pt`` file of CDVAE or DiffCSP keeps beside the generated ones.

    They stand in the order of the generated crystals of each evaluation.

    Raises
    ------
    NoTruth
        The file keeps none.
    DataError
        It cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.is_dir() or _kind(path.name) != "tensors":
        raise NoTruth(f"{path}: only .pt files of CDVAE and DiffCSP keep true structures")
    yield from tensor_rows(Source(path.name, path), truth=True)


def _kind(name: str) -> str:
    name = name.lower().rsplit("/", 1)[-1].removesuffix(".gz")
    return _KINDS.get(Path(name).suffix, "vasp" if "poscar" in name or "contcar" in name else "")


def _inner_kind(name: str) -> str:
    """Kind of a file among others, where POSCAR_notes.md is a note; but POSCAR.NaCl and mp-1.poscar are crystals."""
    kind, suffix = _kind(name), Path(name.removesuffix(".gz")).suffix
    foreign = suffix[1:].isalpha() and suffix.islower() and suffix not in (*_KINDS, ".poscar", ".contcar")
    return "" if kind == "vasp" and foreign else kind


def _rows(source: Source, ignored: list[str]) -> Iterator[Row]:
    kind = _kind(source.name)
    if source.is_empty():
        if kind in _ONE_CRYSTAL:
            yield Row(source.name, error="the file is empty")
    elif kind == "csv":
        yield from _csv_rows(source)
    elif kind == "jsonl":
        yield from json_lines(source)
    elif kind == "json":
        yield from json_rows(source)
    elif kind == "cif":
        yield from cif_rows(source)
    elif kind == "extxyz":
        yield from extxyz_rows(source)
    elif kind == "db":
        yield from database_rows(source)
    elif kind == "tensors":
        yield from tensor_rows(source)
    elif kind == "zip":
        yield from _zip_rows(source, ignored)
    else:
        yield from ase_rows(source, kind)


def _inner_rows(source: Source, ignored: list[str]) -> Iterator[Row]:
    """Rows of a file among others: what is wrong with it does not stop the others, and what holds no crystals is ignored."""
    kind = _kind(source.name)
    try:
        if kind == "jsonl" and not source.is_empty() and not holds_records(source):
            raise NoCrystals(f"{source.where} holds no crystals")
        yield from _rows(source, ignored)
    except DataError as error:
        reason = str(error).removeprefix(source.where).lstrip(": ")
        if isinstance(error, NoCrystals) or kind == "tensors":  # nobody knows how many crystals a damaged file of tensors had
            ignored.append(f"{source.name}: {reason}")
        else:
            yield Row(source.name, error=reason)


def _folder_rows(folder: Path, ignored: list[str]) -> Iterator[Row]:
    names = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}
    wanted = []
    for name in sorted(names, key=natural):
        kind = _inner_kind(name)
        if kind and kind not in _WHOLE_RUNS:
            wanted.append(names[name])
        else:
            ignored.append(f"{name}: {f'name {names[name]} itself to read it' if kind else 'unknown kind of file'}")
    if not wanted:
        others = next((f"; {entry.partition(': ')[2]}" for entry in ignored if entry.endswith("to read it")), "")
        raise DataError(f"{folder} holds no file that can be read ({_KNOWN}){others}")
    for file in wanted:
        yield from _inner_rows(Source(file.name, file), ignored)


def _zip_rows(source: Source, ignored: list[str]) -> Iterator[Row]:
    try:
        with source.binary() as stream, zipfile.ZipFile(stream) as archive:
            # macOS adds a shadow of each file, ._1.cif beside 1.cif
            members = {i.filename: i for i in archive.infolist() if not i.is_dir() and not i.filename.rsplit("/", 1)[-1].startswith(".")}
            names = [n for n in members if _inner_kind(n) not in ("", "zip")]
            if members and not names:
                raise DataError(f"{source.where} holds no file that can be read ({_KNOWN})")
            others = sorted(set(members) - set(names), key=natural)
            ignored += [f"{n}: {'an archive in an archive' if _inner_kind(n) else 'unknown kind of file'}" for n in others]
            for name in sorted(names, key=natural):
                try:
                    content = archive.read(members[name])
                except (RuntimeError, NotImplementedError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                    yield Row(name, error=f"cannot be unpacked: {reason_of(error)}")
                    continue
                yield from _inner_rows(Source(name, content=content), ignored)
    except zipfile.BadZipFile as error:
        raise DataError(f"{source.where} is not a zip archive, or is damaged: {reason_of(error)}") from error


def _csv_rows(source: Source) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    try:
        with source.text() as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            if "cif" not in columns:
                raise NoCrystals(f"{source.where} has no column named 'cif' (columns: {', '.join(columns) or 'none'})")
            for number, row in enumerate(reader, start=1):
                yield from_cif(row["cif"] or "", name_of(row, f"{source.name} row {number}"), numbers_of(row))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source.where} cannot be read as CSV: {error}") from error
