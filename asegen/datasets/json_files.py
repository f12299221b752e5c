"""Crystals from JSON: pymatgen's dicts, records that hold them, and our own lines. Nothing in the file is run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from ..errors import DataError
from .cif_files import from_cif
from .rows import PARTIAL, NoCrystals, Row, Source, atomic_number, checked_row, name_of, numbers_of, reason_of

_LISTS = ("structures", "entries")


def json_lines(source: Source) -> Iterator[Row]:
    """A record per line, see :func:`row_of`; empty lines are passed over."""
    try:
        with source.text() as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                name = f"{source.name} line {number}"
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield Row(name, error=f"not a crystal: {type(error).__name__}: {error}")
                    continue
                yield row_of(entry, name)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{source.where} cannot be read as JSON lines: {error}") from error


def holds_records(source: Source, lines: int = 100) -> bool:
    """Whether one of the first lines may be a crystal: a record of one, or text that is not JSON."""
    try:
        with source.text() as stream:
            for line in islice((line for line in stream if line.strip()), lines):
                if _is_record(json.loads(line)):
                    return True
    except (OSError, EOFError, ValueError, RecursionError):
        return True  # what is wrong with it is said when it is read
    return False


def json_rows(source: Source) -> Iterator[Row]:
    """One record, a list of them, or a dict from names to them; see :func:`row_of`.

    Raises
    ------
    DataError
        The file is not JSON.
    NoCrystals
        It holds no record of a crystal.
    """
    try:
        with source.text() as stream:
            document = json.load(stream)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise DataError(f"{source.where} cannot be read as JSON: {error}") from error
    entries = _entries(document, source.name)
    if entries and not any(_is_record(entry) for _, entry in entries):
        raise NoCrystals(f"{source.where} holds no crystals (pymatgen structures, or records with 'structure', 'cif' or 'cell')")
    for name, entry in entries:
        yield row_of(entry, name)


def row_of(entry: Any, name: str) -> Row:
    """A crystal from a record.

    Parameters
    ----------
    entry : dict
        ``Structure.as_dict()`` of pymatgen; or a record with such a dict (or its JSON, or a CIF) as ``structure``; or
        one with a ``cif``; or ``cell`` (matrix, or lengths and angles), ``species`` and ``frac_coords``. Other numbers
        of the record become properties.
    name : str
        Used unless the record has a ``material_id``.
    """
    if not isinstance(entry, dict):
        return Row(name, error=f"not a crystal: {type(entry).__name__} instead of a record")
    try:
        if "structure" not in entry:
            return _crystal(entry, name_of(entry, name), numbers_of(entry))
        inner = entry["structure"]
        if isinstance(inner, str):
            inner = json.loads(inner) if inner.lstrip().startswith("{") else {"cif": inner}
        if not isinstance(inner, dict):
            return Row(name_of(entry, name), error="not a crystal: 'structure' holds none")
        return _crystal(inner, name_of(entry, name), numbers_of(entry))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else reason_of(error)
        return Row(name_of(entry, name), error=f"not a crystal: {said}")


def _crystal(entry: dict[str, Any], name: str, properties: dict[str, float]) -> Row:
    if "sites" in entry:
        return _from_pymatgen(entry, name, properties)
    if "cif" in entry:
        return from_cif(str(entry["cif"] or ""), name, properties)
    cell = _cell(entry["cell"])
    numbers = np.array([atomic_number(s) for s in entry["species"]], dtype=np.int64)
    frac = np.asarray(entry["frac_coords"], dtype=float).reshape(len(numbers), 3)
    return checked_row(Row(name, cell, frac, numbers, properties))


def _from_pymatgen(entry: dict[str, Any], name: str, properties: dict[str, float]) -> Row:
    lattice = entry["lattice"]
    cell = _cell(lattice["matrix"] if "matrix" in lattice else [lattice[k] for k in ("a", "b", "c", "alpha", "beta", "gamma")])
    inner = entry.get("properties") or {}
    name, properties = name_of(inner, name), numbers_of(inner) | {k: v for k, v in properties.items() if k != "charge"}
    numbers, frac = [], []
    for site in entry["sites"]:
        found = {atomic_number(part["element"]) for part in site["species"]}
        # ions of one element that share a site are an ordered site to us
        if len(found) != 1 or abs(sum(float(part.get("occu", 1.0)) for part in site["species"]) - 1.0) > 1e-3:
            return Row(name, error=PARTIAL)
        numbers.append(found.pop())
        frac.append(site["abc"] if "abc" in site else np.linalg.solve(cell.T, np.asarray(site["xyz"], dtype=float)))
    return checked_row(Row(name, cell, np.array(frac, dtype=float).reshape(-1, 3), np.array(numbers, dtype=np.int64), properties))


def _cell(given: Any) -> np.ndarray:
    from ase.cell import Cell

    cell = np.asarray(given, dtype=float)
    return Cell.fromcellpar(cell).array if cell.shape == (6,) else cell.reshape(3, 3)


def _is_record(entry: Any) -> bool:
    # a table of results may well have a number named "structure"
    return isinstance(entry, dict) and (bool({"sites", "cif", "cell"} & entry.keys()) or isinstance(entry.get("structure"), (dict, str)))


def _entries(document: Any, name: str) -> list[tuple[str, Any]]:
    if _is_record(document):
        return [(name, document)]
    if isinstance(document, dict):
        for key in _LISTS:
            if isinstance(document.get(key), list):
                return _entries(document[key], name)
        return [(str(key), entry) for key, entry in document.items()]
    if isinstance(document, list):
        return [(f"{name} #{number}", entry) for number, entry in enumerate(document, start=1)]
    return [(name, document)]
