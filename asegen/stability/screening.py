"""The whole way of a generated set: once each, relaxed, symmetrised, compared with its competitors, phonons of the best."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ..calculators.potentials import Potential, potential
from ..checkpoint import replacing
from ..datasets.rows import Row
from ..errors import DataError, StabilityError
from ..metrics.cache import Cache
from ..metrics.crystalset import Crystals, CrystalSet, crystal_set
from ..metrics.pairs import Tolerances
from ..metrics.workers import Failure, Workers
from ..report import space_group
from .distinct import leaders
from .files import open_folder, relax_file, structures_of, write_extxyz
from .hull import Referenced, hull_distance, reference_of
from .phonon_runs import Study, study
from .polymorphs import polymorphs
from .relax import Relaxed

Progress = Callable[[str, int, int], None]
EQUAL = Tolerances(0.02, 0.02, 0.5)
"""Generated crystals that match this closely, in the same space group and volume, are relaxed only once."""
_SAME_VOLUME = 0.03  # of the logarithm
_PROVENANCE = ("seed", "checkpoint", "checkpoint_hash", "prototype", "rank", "probability", "known", "start", "steps")
_PHONON_SECONDS = 1800.0


@dataclass(frozen=True)
class Screening:
    """What became of a set of crystals."""

    rows: list[dict[str, Any]]
    """One for each crystal given, in order. ``status`` says how far it came: ``"broken"``, ``"duplicate"`` (``duplicate_of`` has the id),
    ``"failed"`` (see ``reason``), ``"relaxed"``, ``"judged"`` (it has ``e_above_hull``), ``"phonons"`` (it has ``min_frequency``)."""
    atoms: dict[int, Atoms] = field(repr=False)
    """The distinct relaxed crystals by id, with energy, forces and stress."""
    best: list[int]
    """Ids of the distinct crystals, best first: by energy above the hull, or where there is no hull above the lowest polymorph."""
    protocol: dict[str, str]
    """How each stage was done."""


def screen(
    crystals: Crystals,
    which: str | BaseCalculator | Potential = "7net-0",
    *,
    reference: Referenced = None,
    reference_scale: str | None = None,
    hull: bool = True,
    phonons: int = 3,
    within: float = 0.1,
    effort: str = "normal",
    out: str | Path | None = None,
    overwrite: bool = False,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Screening:
    """Screen crystals: deduplicate, relax, symmetrise, hull, phonons of the best.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
    which : str, ASE calculator or Potential
    reference : None, path, "mp", entries
        Competing phases, see :func:`asegen.stability.hull.hull_distance`. None: made here and relaxed with the same potential.
    reference_scale : str, optional
        Of the energies of a reference file.
    hull : bool
        Whether to compare with competing phases at all.
    phonons : int
        Of how many of the best; 0: none.
    within : float
        No phonons for crystals further above the hull (or the lowest polymorph), eV/atom.
    effort : str
        For competing phases that are made: ``"quick"``, ``"normal"``, ``"thorough"``.
    out : path, optional
        Folder for ``screen.jsonl`` (one row per crystal), ``structures.extxyz`` (the distinct ones, best first), ``screen.db`` (an ASE
        database of them), ``relaxed/`` and ``phonons/``. A killed run goes on from it.
    overwrite : bool
        Replace what is in `out`.
    processes : int, optional
        Default: one per core.
    cache : Cache, optional
        Where comparisons and competing phases are kept; default: the user's cache folder.
    progress : callable, optional
        Gets (stage, done, all).
    **settings
        Of the relaxation, see :class:`asegen.stability.relax.Settings`.

    Returns
    -------
    Screening

    Raises
    ------
    DataError
        No crystals.
    StabilityError
        Impossible settings, or phonons with a potential that is too rough for them.
    AsegenError
        `out` holds the results of something else.
    """
    given = crystal_set(crystals)
    if not given.good.any():
        why = next((f" ({row.name}: {row.error})" for row in given if row.error), "")
        raise DataError(f"{given.source} holds no crystals to screen{why}")
    model = potential(which)
    if phonons and not model.smooth:
        raise StabilityError(f"the forces of {model.name} are too rough for phonons; take 7net-0, or none of them (phonons=0, --phonons 0)")
    if within < 0 or phonons < 0:
        raise StabilityError(f"within = {within} eV/atom and phonons = {phonons} must not be negative")
    tell = progress or (lambda stage, done, total: None)
    store = cache or Cache()
    known = reference_of(reference, model, reference_scale, effort, store, processes, partial(tell, "competing phases")) if hull else None
    if out is not None:
        open_folder(out, ("screen.jsonl", "structures.extxyz", "screen.db"), overwrite)
    rows = [_row(i, row) for i, row in enumerate(given)]
    protocol = {"duplicates": _drop_equal(given, rows, store)}
    results = _relax(given, rows, model, out, overwrite, processes, tell, settings)
    _lose_repeats_of_lost(rows)
    protocol["relaxation"] = _merge(rows, results, model, store, settings)
    distinct = [row["id"] for row in rows if row["status"] == "relaxed" and row["converged"]]
    if known is not None:
        protocol["hull"] = _judge(rows, distinct, results, model, known, tell)
    best = sorted((row["id"] for row in rows if row["status"] in ("relaxed", "judged")), key=lambda i: _merit(rows[i]))
    chosen = [i for i in best if rows[i]["converged"] and _merit(rows[i])[1] <= within][:phonons]
    if chosen:
        protocol["phonons"] = _vibrate(rows, chosen, results, model, out, overwrite, processes, tell)
    atoms = {i: results[i].atoms for i in best}
    for i in best:
        atoms[i].info.update(_labels(rows[i]))
    found = Screening(rows, atoms, best, protocol)
    if out is not None:
        _write(found, Path(out))
    return found


def _row(i: int, row: Row) -> dict[str, Any]:
    status = "broken" if row.error else "read"
    base: dict[str, Any] = {"id": i, "position": i, "name": row.name, "status": status, "reason": row.error or None}
    known = {**row.properties, **row.info}
    return {**base, **{key: known[key] for key in _PROVENANCE if key in known}}


def _drop_equal(given: CrystalSet, rows: list[dict[str, Any]], cache: Cache) -> str:
    good = np.flatnonzero(given.good).tolist()
    crystals = [given.rows[i].to_atoms() for i in good]
    # a small distortion, or another volume, may relax to something else
    kinds = [(given.formulas[i], space_group(atoms, 0.01)) for i, atoms in zip(good, crystals, strict=True)]
    sizes = [float(np.log(atoms.get_volume() / len(atoms))) for atoms in crystals]
    found = leaders(crystals, sizes, kinds, within=_SAME_VOLUME, tolerances=EQUAL, cache=cache, processes=1)
    first: dict[int, int] = {}
    for i, leader in zip(good, found, strict=True):
        if first.setdefault(leader, i) != i:
            rows[i].update(status="duplicate", duplicate_of=first[leader])
    return f"generated crystals that repeat an earlier one are left out: {EQUAL}, same group at symprec 0.01 Å, volumes within 3 %"


def _lose_repeats_of_lost(rows: list[dict[str, Any]]) -> None:
    """A crystal that repeats one without a result has none either, and is no duplicate of something that is there."""
    for row in rows:
        if row["status"] == "duplicate" and rows[row["duplicate_of"]]["status"] == "failed":
            row.update(status="failed", reason=f"as crystal {row['duplicate_of']}, which it repeats: {rows[row['duplicate_of']]['reason']}")


def _relax(
    given: CrystalSet,
    rows: list[dict[str, Any]],
    model: Potential,
    out: str | Path | None,
    overwrite: bool,
    processes: int | None,
    tell: Progress,
    settings: dict[str, Any],
) -> dict[int, Relaxed]:
    todo = [row["id"] for row in rows if row["status"] == "read"]
    folder = None if out is None else Path(out) / "relaxed"
    options: dict[str, Any] = {"out": folder, "overwrite": overwrite, "processes": processes, **settings}
    # what is kept is known again by all that was given, so the same file in the same folder goes on
    identity = json.dumps(structures_of(given))
    subset = given.subset(todo)
    numbers, relaxed = relax_file(subset, model, progress=partial(tell, "relaxing"), identity=identity, **options)
    found: dict[int, Relaxed] = {}
    for i, row, one in zip(todo, numbers, relaxed, strict=True):
        assert one is not None
        rows[i].update({key: value for key, value in row.items() if key not in ("position", "name")})
        rows[i]["status"] = "relaxed" if one.energy is not None else "failed"
        found[i] = one
    return found


def _merge(rows: list[dict[str, Any]], results: dict[int, Relaxed], model: Potential, cache: Cache, settings: dict[str, Any]) -> str:
    place = sorted(results)
    for one in polymorphs([results[i] for i in place], cache=cache):
        members = [place[k] for k in one.members]
        first = next(i for i in members if results[i] is one.relaxed)
        rows[first].update(above_lowest=one.above_lowest, found=one.found, spacegroup=one.spacegroup)
        for i in members:
            if i != first:
                rows[i].update(status="duplicate", duplicate_of=first)
    kept = "free to break" if settings.get("symmetry") == "free" else "kept"
    return (
        f"{model.name}, energies on the scale {model.scale}; symmetry of the start {kept}, a higher group within 0.03 Å taken at the end"
        " where it costs less than 0.1 meV/atom; space groups by spglib at symprec 0.01 Å (before: 0.1 Å); equal ones merged"
        " (StructureMatcher 0.2, 0.3, 5°; same group, less than 1 meV/atom apart)"
    )


def _judge(
    rows: list[dict[str, Any]], distinct: list[int], results: dict[int, Relaxed], model: Potential, known: Any, tell: Progress
) -> str:
    protocols: list[str] = []
    judged = hull_distance([results[i] for i in distinct], model, known, progress=partial(tell, "hull")) if distinct else []
    for i, one in zip(distinct, judged, strict=True):
        if not one.ok:
            rows[i]["reason"] = one.reason
            continue
        keep = ("e_above_hull", "formation_energy_per_atom", "corrections", "decomposition", "competing", "missing")
        rows[i].update({key: value for key, value in one.row().items() if key in keep}, status="judged")
        for key, words in (("hull_warning", one.warning), ("hull_few", one.few)):
            if words:
                rows[i][key] = words
        protocols.append(one.protocol)
    return "; ".join(dict.fromkeys(protocols))


def _merit(row: dict[str, Any]) -> tuple[bool, float, int]:
    """What crystals are ordered by; those on a hull come before those without."""
    value = row.get("e_above_hull")
    return value is None, float(row.get("above_lowest", np.inf) if value is None else value), row["id"]


def _vibrate(
    rows: list[dict[str, Any]],
    chosen: list[int],
    results: dict[int, Relaxed],
    model: Potential,
    out: str | Path | None,
    overwrite: bool,
    processes: int | None,
    tell: Progress,
) -> str:
    folder = None if out is None else Path(out) / "phonons"
    work = partial(_phonons_of, model, folder, overwrite)
    items = [(f"{i:04d}_{rows[i]['formula']}", results[i].atoms) for i in chosen]
    protocols: list[str] = []
    tell("phonons", 0, len(items))
    if not model.portable:
        answers: Any = enumerate(map(work, items))
        _keep(answers, rows, chosen, protocols, tell)
    else:
        with Workers(work, min(len(items), processes or len(items)), _PHONON_SECONDS, fresh=True) as workers:
            _keep(workers.map(items), rows, chosen, protocols, tell)
    return "; ".join(dict.fromkeys(protocols))


def _keep(answers: Any, rows: list[dict[str, Any]], chosen: list[int], protocols: list[str], tell: Progress) -> None:
    for done, (place, record) in enumerate(answers, start=1):
        row = rows[chosen[place]]
        if isinstance(record, Failure):
            record = {"reason": record.reason}
        if record.get("reason"):
            row["reason"] = f"phonons: {record['reason']}"
        else:
            row.update({key: record[key] for key in ("min_frequency", "q_point", "q_label")})
            row.update(status="phonons", dynamically_stable=record["stable"], phonon_warnings=record["warnings"])
            protocols.append(record["protocol"])
        tell("phonons", done, len(chosen))


def _phonons_of(model: Potential, folder: Path | None, overwrite: bool, item: tuple[str, Atoms]) -> dict[str, Any]:
    name, atoms = item
    row = Row(name, atoms.cell.array.copy(), atoms.get_scaled_positions(), atoms.numbers.copy())
    return next(study([row], Study(model, relax=False), folder, overwrite))


def _labels(row: dict[str, Any]) -> dict[str, Any]:
    kinds = (str, int, float, bool)
    left_out = ("energy", "position", "reason", "status")
    labels = {key: value for key, value in row.items() if key not in left_out and isinstance(value, kinds) and value != ""}
    return {"material_id": labels.pop("name"), **labels}


def _write(found: Screening, out: Path) -> None:
    with replacing(out / "screen.jsonl") as stream:
        stream.write("".join(json.dumps({**row, "protocol": found.protocol}) + "\n" for row in found.rows).encode())
    write_extxyz(out / "structures.extxyz", [found.atoms[i] for i in found.best])
    _write_database(found, out / "screen.db")


def _write_database(found: Screening, path: Path) -> None:
    from ase.db import connect

    unfinished = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}.db")
    try:
        with connect(str(unfinished)) as database:
            for i in found.best:
                labels = {key: value for key, value in _labels(found.rows[i]).items() if key not in ("id", "formula")}
                database.write(found.atoms[i], key_value_pairs={**_searchable(labels), "row": i}, data={"row": found.rows[i]})
        if unfinished.exists():
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
        unfinished.with_name(unfinished.name + ".lock").unlink(missing_ok=True)


def _searchable(labels: dict[str, Any]) -> dict[str, Any]:
    """Key-value pairs that an ASE database takes; those it reserves, and text that looks like a number, stay in the row's data."""
    from ase.db.core import check

    kept = {}
    for key, value in labels.items():
        try:
            check({key: value})
        except ValueError:
            continue
        kept[key] = value
    return kept
