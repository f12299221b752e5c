"""Relaxations of whole files: results on disk one by one, and a killed run goes on."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator

from ..calculators.potentials import Potential, potential
from ..checkpoint import replacing
from ..errors import AsegenError, DataError
from ..generation import file_name
from ..metrics.crystalset import Crystals, CrystalSet, crystal_set
from ..store import Journal, from_json, to_json
from .relax import Progress, Relaxed, relax_each

RESULTS = "results.jsonl"
PATHS = "paths"


def relax_file(
    crystals: Crystals,
    which: str | BaseCalculator | Potential = "7net-0",
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
    on_result: Callable[[dict[str, Any]], None] | None = None,
    identity: str | None = None,
    **settings: Any,
) -> tuple[list[dict[str, Any]], list[Relaxed | None]]:
    """Relax all crystals of a file.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
        Rows that are no crystals are results with a `reason`.
    which : str, ASE calculator or Potential
    out : path, optional
        Folder for ``results.jsonl`` (a line as soon as a crystal is finished), ``structures.extxyz`` (all that were relaxed, with
        energy, forces and stress) and ``paths/`` (a trajectory each). A killed run goes on from it.
    overwrite : bool
        Replace what is in `out`.
    processes, progress, **settings
        See :func:`asegen.stability.relax.relax`.
    on_result : callable, optional
        Gets every row.
    identity : str, optional
        What makes the crystals known again by a run that goes on. Default: the crystals, to the last bit.

    Returns
    -------
    rows : list of dict
        One for each crystal: ``position``, ``name`` and the numbers of :class:`Relaxed`.
    relaxed : list of Relaxed or None
        The results themselves, without path where they come from disk; None for a row that is no crystal.

    Raises
    ------
    DataError
        There is no crystal in the file.
    AsegenError
        `out` holds the results of something else.
    """
    given = crystal_set(crystals)
    if not given.good.any():
        why = next((f" ({row.name}: {row.error})" for row in given if row.error), "")
        raise DataError(f"{given.source} holds no crystals to relax{why}")
    model = potential(which)
    keep = bool(settings.pop("path", out is not None))
    journal = None
    if out is not None:
        journal = Journal(Path(out) / RESULTS, {"relax": identity or structures_of(given), "potential": model.name, **settings})
        open_folder(out, (RESULTS, "structures.extxyz"), overwrite)
    rows: dict[int, dict[str, Any]] = {}
    results: dict[int, Relaxed] = {}
    for entry in journal.entries() if journal is not None else ():
        place = entry["row"]["position"]
        rows[place] = entry["row"]
        results[place] = _relaxed(entry, given.rows[place].to_atoms())
    for i in range(len(given)):
        if not given.good[i] and i not in rows:
            rows[i] = {"position": i, "name": given.rows[i].name, "reason": given.rows[i].error, "converged": False}
    todo = [i for i in range(len(given)) if i not in rows]
    done = len(given) - len(todo)
    starts = [given.rows[i].to_atoms() for i in todo]
    for place, result in relax_each(starts, model, processes=processes, path=keep, **settings):
        i = todo[place]
        rows[i] = {"position": i, "name": given.rows[i].name, **result.row()}
        results[i] = result
        if journal is not None:
            if result.path:
                write_path(Path(out) / PATHS / f"{file_name(result.start, i)}.traj", result.path)  # type: ignore[arg-type]
            journal.add([_entry(i, rows[i], result)])
        done += 1
        if progress is not None:
            progress(done, len(given))
        if on_result is not None:
            on_result(rows[i])
    if out is not None:
        good = [i for i in sorted(results) if results[i].energy is not None]
        write_extxyz(Path(out) / "structures.extxyz", [labelled(results[i].atoms, rows[i]) for i in good])
    return [rows[i] for i in range(len(given))], [results.get(i) for i in range(len(given))]


def structures_of(given: CrystalSet) -> list[str]:
    """Names of the structures of a set, by which a run recognises its own results."""
    return [key.hex() if key else row.name for key, row in zip(given.keys, given.rows, strict=True)]


def open_folder(out: str | Path, ours: Sequence[str], overwrite: bool) -> Path:
    """Make the folder of a run; with `overwrite` its results are removed.

    Raises
    ------
    AsegenError
        There is a file of that name.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise AsegenError(f"{out} is a file, not a folder to write results to") from error
    if overwrite:
        for name in ours:
            (folder / name).unlink(missing_ok=True)
        for path in (folder / PATHS).glob("*.traj"):
            path.unlink()
    return folder


def labelled(atoms: Atoms, row: dict[str, Any]) -> Atoms:
    """A relaxed crystal, its results kept, with what belongs to it in ``info``."""
    labels = ("converged", "energy_per_atom", "energy_gain", "spacegroup", "potential", "scale")
    atoms.info.update({"material_id": row["name"], **{key: row[key] for key in labels}})
    return atoms


def write_extxyz(path: Path, crystals: Sequence[Atoms]) -> None:
    """An extxyz file, complete or not at all."""
    text = io.StringIO()
    if crystals:
        ase.io.write(text, list(crystals), format="extxyz")
    with replacing(path) as stream:
        stream.write(text.getvalue().encode())


def write_path(path: Path, steps: Sequence[Atoms]) -> None:
    """A trajectory, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    try:
        ase.io.write(unfinished, list(steps), format="traj")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def results_of(atoms: Atoms) -> dict[str, Any]:
    """Energy, forces and stress as plain values."""
    values = {key: atoms.calc.results[key] for key in ("energy", "free_energy", "forces", "stress") if key in atoms.calc.results}
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in values.items()}


def _entry(place: int, row: dict[str, Any], result: Relaxed) -> dict[str, Any]:
    if result.energy is None:
        return {"row": row, "atoms": None, "results": None}
    return {"row": row, "atoms": to_json(place, result.atoms), "results": results_of(result.atoms)}


def _relaxed(entry: dict[str, Any], start: Atoms) -> Relaxed:
    """The result that :func:`_entry` kept."""
    numbers = {key: value for key, value in entry["row"].items() if key in Relaxed.__dataclass_fields__}
    atoms = start.copy()
    atoms.set_constraint()
    if entry["atoms"] is not None:
        atoms = from_json(entry["atoms"])[1]
        atoms.calc = SinglePointCalculator(atoms, **{key: np.asarray(value)[()] for key, value in entry["results"].items()})
    return Relaxed(start=start, atoms=atoms, **numbers)
