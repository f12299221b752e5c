"""Crystals of any format that can be read, written in any format that can be written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from ..errors import DataError
from .readers import read_rows
from .rows import Row
from .writers import kind_of, write_crystals


def export(sources: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Read crystals and write them in another format.

    Names and numeric properties go along. Which evaluation a crystal belongs to stays in the layout of tensors, where
    `out` is one and the evaluations are complete, and is written as the property ``sample`` in other formats.

    Parameters
    ----------
    sources : sequence of paths
        What :func:`asegen.datasets.read_rows` reads.
    out : path
        What :func:`asegen.datasets.writers.write_crystals` writes.
    overwrite : bool
        Replace a file of that name; folders are never replaced.

    Returns
    -------
    dict
        ``count``, ``skipped`` (list of [name, reason]), ``note`` (a sentence, or empty).

    Raises
    ------
    DataError
        An unknown suffix, an existing file, or nothing that could be read.
    """
    kind = kind_of(out)
    if Path(out).exists() and not (overwrite and kind != "folder"):
        raise DataError(f"{out} exists already; " + ("give another name" if kind == "folder" else "give another name, or --overwrite"))
    good: list[Row] = []
    skipped: list[list[str]] = []
    for source in sources:
        for row in read_rows(source):
            if row.error:
                skipped.append([row.name, row.error])
            else:
                good.append(row)
    if not good:
        reason = f"; first reason: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"no crystal could be read: {len(skipped)} bad rows{reason}")
    count = max(row.sample for row in good) + 1
    samples, note = 1, ""
    if count > 1 and kind in ("pt", "npz"):
        samples = count if not skipped and len(sources) == 1 and _equal_evaluations(good, count) else 1
        if samples == 1:
            note = f"the {count} evaluations are written as one: not all of them are complete and of equal size"
    crystals = [_atoms(row, count > 1) for row in good]
    write_crystals(crystals, out, [row.name for row in good], samples)
    return {"count": len(good), "skipped": skipped, "note": note}


def _atoms(row: Row, several: bool) -> Atoms:
    atoms = row.to_atoms()
    if several:
        atoms.info["sample"] = row.sample
    return atoms


def _equal_evaluations(rows: Sequence[Row], count: int) -> bool:
    crystals, atoms = [0] * count, [0] * count
    for row in rows:
        crystals[row.sample] += 1
        atoms[row.sample] += len(row.numbers)
    return len(set(crystals)) == len(set(atoms)) == 1
