"""Crystals from the files that ASE reads, one broken frame at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from .rows import NoCrystals, Row, Source, checked_row, numbers_of, reason_of

_NAME = re.compile(r"""(?:^|\s)material_id=(?:"([^"]*)"|(\S+))""")
_HEAVY = {"D": "H", "T": "H"}


def extxyz_rows(source: Source) -> Iterator[Row]:
    """Frames of an (extended) XYZ file.

    A frame that ASE cannot read is one error row. Where a line that should be a number of atoms is not one, nobody knows
    where the next frame begins: the rest is not read, and the error row says so.
    """
    number, line_number = 0, 0
    try:
        with source.text() as lines:
            first = next(lines, "")
            while first:
                line_number += 1
                if first.strip():
                    number += 1
                    name = f"{source.name} #{number}"
                    if not first.strip().isdecimal():
                        yield Row(name, error=f"line {line_number} is not a number of atoms; the rest of the file is not read")
                        return
                    frame = [first, *islice(lines, int(first) + 1)]
                    line_number += len(frame) - 1
                    if len(frame) < int(first) + 2:
                        yield Row(name, error="the file ends inside this frame")
                        return
                    first = next(lines, "")
                    while first.startswith("VEC"):  # lattice vectors as ADF writes them, after the atoms
                        line_number += 1
                        frame.append(first)
                        first = next(lines, "")
                    yield _frame(frame, name)
                else:
                    first = next(lines, "")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        yield Row(f"{source.name} after #{number}", error=f"cannot be read on: {reason_of(error)}")


def _frame(frame: list[str], name: str) -> Row:
    from ase.io.extxyz import read_xyz

    # taken from the text: ASE would make the number 1 of the name 0001
    named = _NAME.search(frame[1])
    name = (named[1] or named[2]) if named else name
    try:
        try:
            atoms = next(read_xyz(io.StringIO("".join(frame)), 0))
        except KeyError as error:
            if error.args[0] not in _HEAVY:
                raise
            atoms = next(read_xyz(io.StringIO("".join(_without_isotopes(frame))), 0))
        return row_of_atoms(atoms, name)
    except Exception as error:  # ASE raises whatever its parser raised
        return Row(name, error=f"ASE cannot read it: {type(error).__name__}: {reason_of(error)}")


def _without_isotopes(frame: list[str]) -> list[str]:
    # ASE knows no deuterium; the column of the symbols stands in the comment line
    columns = re.search(r'Properties="?([^"\s]+)', frame[1])
    fields = columns[1].split(":") if columns else ["species", "S", "1"]
    names, widths = fields[::3], [int(w) for w in fields[2::3]]
    column = sum(widths[: names.index("species")]) if "species" in names else 0
    atoms = []
    for line in frame[2:]:
        values = line.split()
        values[column : column + 1] = [_HEAVY.get(v.capitalize(), v) for v in values[column : column + 1]]
        atoms.append(" ".join(values) + "\n")
    return [*frame[:2], *atoms]


def database_rows(source: Source) -> Iterator[Row]:
    """Rows of an ASE database; key-value pairs, and numbers in ``data``, become properties.

    Raises
    ------
    NoCrystals
        It is no database, such as the Thumbs.db of a file manager.
    """
    from ase.db import connect

    if not _is_sqlite(source):
        raise NoCrystals(f"{source.where} is not a database of ASE")
    if source.path is None:
        yield Row(source.name, error="an ASE database inside an archive; unpack it first")
        return
    number = 0
    try:
        for number, entry in enumerate(connect(str(source.path)).select(), start=1):
            name = f"{source.name} #{number}"
            try:
                info = {**entry.data.get("info", {}), **entry.key_value_pairs}
                atoms = entry.toatoms()
            except Exception as error:  # a damaged row raises whatever its decoder raised
                yield Row(name, error=f"ASE cannot read it: {type(error).__name__}: {reason_of(error)}")
                continue
            atoms.info.update(info)
            yield row_of_atoms(atoms, str(info.get("material_id", name)))
    except Exception as error:  # sqlite's errors, and those of ASE about versions
        yield Row(f"{source.name} after #{number}", error=f"ASE cannot read on: {type(error).__name__}: {reason_of(error)}")


def _is_sqlite(source: Source) -> bool:
    try:
        with source.binary() as stream:
            return stream.read(15) == b"SQLite format 3"
    except (OSError, EOFError):
        return False


def ase_rows(source: Source, format: str) -> Iterator[Row]:
    """Images of a file in one of ASE's formats: ``traj``, ``vasp``, ``xsf``, ``res``."""
    import ase.io

    number = 0
    try:
        for number, atoms in enumerate(ase.io.iread(_stream(source, format), index=":", format=format), start=1):
            yield row_of_atoms(atoms, str(atoms.info.get("material_id", f"{source.name} #{number}" if format == "traj" else source.name)))
    except Exception as error:  # ase.io raises whatever the format's parser raised
        name = f"{source.name} after #{number}" if format == "traj" else source.name
        yield Row(name, error=f"ASE cannot read on: {type(error).__name__}: {reason_of(error)}")


def _stream(source: Source, format: str) -> Any:
    if format == "traj":
        with source.binary() as stream:
            return io.BytesIO(stream.read())
    with source.text() as text:
        lines = text.read().splitlines()
    if format == "vasp":
        # symbols stand in the sixth line, in old files in the first; ASE knows no deuterium
        for number in [n for n in (0, 5) if n < len(lines)]:
            lines[number] = " ".join(_HEAVY.get(word, word) for word in lines[number].split())
    return io.StringIO("\n".join(lines) + "\n")


def row_of_atoms(atoms: Any, name: str) -> Row:
    """A crystal that ASE holds, from a file or made in memory; what is known of a broken one stays in its row.

    Numbers in ``atoms.info`` and results of a calculator become properties. ASE's ``energy`` is that of the whole cell; the
    energy of an atom is ``energy_per_atom``.
    """
    numbers = np.asarray(atoms.numbers, dtype=np.int64)
    found = _results(atoms)
    if "energy" in found and len(numbers):
        found["energy_per_atom"] = found["energy"] / len(numbers)
    properties = found | numbers_of(atoms.info)
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        return Row(name, numbers=numbers, properties=properties, error="not periodic in three directions")
    cell = atoms.cell.array.copy()
    singular = not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-12
    frac = np.zeros((len(atoms), 3)) if singular else atoms.get_scaled_positions(wrap=False)
    info = {key: value for key, value in atoms.info.items() if isinstance(value, (str, int, float, np.integer, np.bool_))}
    info = {key: value.item() if isinstance(value, (np.integer, np.bool_, np.floating)) else value for key, value in info.items()}
    arrays = {key: np.array(values) for key, values in atoms.arrays.items() if key not in ("numbers", "positions", "momenta")}
    return checked_row(Row(name, cell, frac, numbers, properties, info=info, fixed=_fixed(atoms), arrays=arrays))


def _fixed(atoms: Any) -> tuple[int, ...]:
    from ase.constraints import FixAtoms

    return tuple(sorted({int(i) for c in atoms.constraints if isinstance(c, FixAtoms) for i in c.index}))


def _results(atoms: Any) -> dict[str, float]:
    # ASE takes the energy out of the comment line of extxyz and puts it into a calculator
    if atoms.calc is None or getattr(atoms.calc, "check_state", lambda atoms: [])(atoms):  # results of other positions
        return {}
    return numbers_of({key: value for key, value in getattr(atoms.calc, "results", {}).items() if np.ndim(value) == 0})
