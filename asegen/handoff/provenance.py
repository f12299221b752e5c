"""``asegen.json``: where a structure came from, so that the result of a calculation can be joined to it months later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import HandoffError

FILE = "asegen.json"
FORMAT = 1


def provenance(atoms: Atoms, position: int, name: str, target: str) -> dict[str, Any]:
    """What is known of a crystal, as plain JSON.

    Parameters
    ----------
    atoms : ase.Atoms
        As :func:`asegen.handoff.checks.checked` returns it.
    position : int
        Where it stood among the crystals given, from 0.
    name : str
        Name of its folder.
    target : str
        "vasp", "espresso", "phonopy" or "jobflow".

    Returns
    -------
    dict
        ``id``, ``position``, ``name``, ``formula``, ``seed``, ``checkpoint``, ``prototype``, ``spacegroup`` (None where unknown; the
        group is that of ``info``, else spglib's at 0.1 Å), ``info`` (all plain values), ``structure`` (``numbers``, ``cell`` and
        ``positions`` in Å) and its ``sha256``, ``order`` (place in the crystal given of every atom written).
    """
    from .. import __version__
    from ..report import space_group

    info = {str(key): _plain(value) for key, value in atoms.info.items() if _is_plain(value)}
    return {
        "format": FORMAT,
        "asegen": __version__,
        "target": target,
        "id": str(info.get("material_id", f"{position:04d}")),
        "position": position,
        "name": name,
        "formula": atoms.get_chemical_formula("metal"),
        "atoms": len(atoms),
        "seed": info.get("seed"),
        "checkpoint": info.get("checkpoint"),
        "prototype": info.get("prototype"),
        "spacegroup": info.get("spacegroup") or space_group(atoms) or None,
        "info": info,
        "structure": structure_of(atoms),
        "sha256": sha_of(atoms),
        "order": list(range(len(atoms))),
    }


def structure_of(atoms: Atoms) -> dict[str, Any]:
    """Numbers, cell and positions (Å), exact to the last bit."""
    return {"numbers": atoms.numbers.tolist(), "cell": atoms.cell.array.tolist(), "positions": atoms.positions.tolist()}


def atoms_of(row: dict[str, Any]) -> Atoms:
    """The crystal that a row of provenance was written for, with its ``info``."""
    entry = row["structure"]
    return Atoms(numbers=entry["numbers"], positions=np.array(entry["positions"]), cell=entry["cell"], pbc=True, info=dict(row["info"]))


def sha_of(atoms: Atoms) -> str:
    """SHA-256 of elements, cell and positions as double-precision numbers."""
    text = json.dumps(structure_of(atoms), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_row(folder: Path, row: dict[str, Any]) -> None:
    """Write ``asegen.json``."""
    (folder / FILE).write_text(json.dumps(row, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_row(folder: str | Path) -> dict[str, Any]:
    """Read ``asegen.json`` of a folder.

    Raises
    ------
    HandoffError
        There is none, or it cannot be read.
    """
    path = Path(folder) / FILE
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        missing = {"format", "target", "structure", "order", "info", "name", "position"} - set(row)
    except (OSError, ValueError, TypeError) as error:
        raise HandoffError(f"{path} cannot be read: {error}") from error
    if missing:
        raise HandoffError(f"{path} is not complete: {', '.join(sorted(missing))} missing")
    if row["format"] != FORMAT:
        raise HandoffError(f"{path} has format {row['format']}, this asegen reads {FORMAT}")
    return row  # type: ignore[no-any-return]


def reordered(atoms: Atoms, order: Sequence[int]) -> Atoms:
    """Atoms of a calculation in the order of the crystal given; `order` holds for each atom of the calculation its place there."""
    return atoms[np.argsort(order)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return bool(np.isfinite(value))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return all(_is_plain(entry) for entry in value)
    return isinstance(value, (str, int, bool))


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
