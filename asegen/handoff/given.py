"""The crystals that an export is given, with all that their file says of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from ..errors import DataError, HandoffError
from ..generation import file_name

Given = tuple[int, str, Atoms]
# formats that keep text, constraints and moments; others go through asegen.datasets, which keeps numbers
_BY_ASE = {".extxyz": "extxyz", ".xyz": "extxyz", ".traj": "traj"}


def crystals_of(
    crystals: str | Path | Atoms | Sequence[Atoms], only: Sequence[int] | None = None, n: int | None = None
) -> tuple[list[Given], list[tuple[str, str]]]:
    """Crystals with their positions and the names of their folders, and the rows that cannot be read with the reason.

    Parameters
    ----------
    crystals : path, Atoms or sequence of Atoms
        Of the folder of a run its file is taken, see :func:`file_of`.
    only : sequence of int, optional
        Positions to take, from 0, counting rows that cannot be read.
    n : int, optional
        The first so many.

    Raises
    ------
    DataError
        The file cannot be read.
    HandoffError
        There is no such position.
    """
    rows: Sequence[Atoms | tuple[str, str]]
    if isinstance(crystals, (str, Path)):
        rows = _read(Path(crystals))
    else:
        rows = [crystals] if isinstance(crystals, Atoms) else list(crystals)
    chosen = list(range(len(rows))) if only is None else list(dict.fromkeys(only))
    outside = [i for i in chosen if not 0 <= i < len(rows)]
    if outside:
        raise HandoffError(f"there is no crystal {outside[0]}; the {len(rows)} crystals are counted from 0")
    if n is not None and n < 1:
        raise HandoffError(f"{n} crystals cannot be exported; ask for at least one")
    found: list[Given] = []
    bad: list[tuple[str, str]] = []
    for position in chosen[:n]:
        row = rows[position]
        if isinstance(row, Atoms):
            found.append((position, file_name(row, position), row))
        else:
            bad.append(row)
    return found, bad


def file_of(path: Path) -> tuple[Path, list[str]]:
    """The file of crystals that a path stands for, and what has to be said of the choice.

    Of a run that was relaxed (``asegen generate --relax``) it is what the relaxation left, each crystal once.
    """
    relaxed, given = path / "polymorphs.extxyz", path / "structures.extxyz"
    if path.is_dir() and relaxed.is_file():
        other = "; structures.extxyz holds the crystals as generated" if given.is_file() else ""
        return relaxed, [f"{relaxed} was read, the crystals after the relaxation, each once{other}"]
    return (given if path.is_dir() and given.is_file() else path), []


def _read(path: Path) -> Sequence[Atoms | tuple[str, str]]:
    path = file_of(path)[0]
    if path.suffix.lower() in _BY_ASE and path.is_file():
        return _by_ase(path)
    from ..datasets.readers import read_rows

    found: list[Atoms | tuple[str, str]] = []
    for row in read_rows(path):
        if row.error:
            found.append((row.name, f"{row.name}: {row.error}"))
            continue
        atoms = row.to_atoms()
        atoms.info["material_id"] = row.name
        found.append(atoms)
    return found


def _by_ase(path: Path) -> list[Atoms]:
    import ase.io

    if path.stat().st_size == 0:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = ase.io.read(str(path), index=":", format=_BY_ASE[path.suffix.lower()])
    except Exception as error:  # ASE's readers raise whatever they meet
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the content
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read: {reason}") from error
    return list(found)
