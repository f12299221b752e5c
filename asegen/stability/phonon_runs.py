"""Phonons of many crystals: each gets a result or a reason, on disk as soon as it is there."""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from ..calculators.potentials import Potential
from ..checkpoint import replacing
from ..datasets.readers import Row
from ..errors import AsegenError, MissingPackageError, StabilityError
from ..store import to_json
from .phonon_cells import SYMPREC, standard_cell
from .phonon_follow import Fixed, fix, special_point
from .phonon_plots import write_phonons
from .phonons import phonons
from .relax import relax

_FINAL = "phonons.json"


@dataclass(frozen=True)
class Study:
    """What is to be done with each crystal."""

    model: Potential
    """The potential."""
    relax: bool = True
    """Relax first, keeping the symmetry."""
    fix: bool = False
    """Follow imaginary modes until the crystal is stable."""
    at: str | None = None
    """Of which special point, in the first round; None: of any."""
    rounds: int = 4
    """Most rounds of that."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of :func:`asegen.stability.phonons.phonons`."""

    def request(self, atoms: Atoms) -> str:
        """Hash of all that decides the result for a crystal."""
        settings = {k: v for k, v in self.settings.items() if k != "processes"}
        plan = [self.model.name, self.relax, self.fix, self.at, self.rounds, settings, to_json(0, atoms)]
        return "r" + hashlib.sha256(json.dumps(plan, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def study(
    rows: Iterable[Row],
    plan: Study,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Phonons of crystals, one after the other; what goes wrong with one does not stop the others.

    Parameters
    ----------
    rows : iterable of Row
    plan : Study
    out : path, optional
        Folder that gets a folder of files for each crystal (:func:`asegen.stability.phonon_plots.write_phonons`; with `Study.fix` the
        crystal reached in ``fixed``). What is finished there is not computed again.
    overwrite : bool
        Replace results of another request.
    progress : callable, optional
        Called with what is going on, how much of it is done and how much there is.

    Yields
    ------
    dict
        ``position`` (from 0), ``name``, ``reason`` (None, or why there are no phonons), and with phonons all of ``Phonons.numbers()``;
        plain values.

    Raises
    ------
    StabilityError
        A folder holds the results of another request.
    MissingPackageError
        phonopy or seekpath is not installed.
    """
    taken: set[str] = set()
    for position, row in enumerate(rows):
        place = {"position": position, "name": row.name}
        if row.error:
            yield {**place, "reason": row.error}
            continue
        folder = None if out is None else Path(out) / _free_name(row.name, taken)
        atoms = row.to_atoms()
        request = plan.request(atoms)
        done = None if folder is None or overwrite else _finished(folder, request)
        yield {**done, **place} if done is not None else _one(place, atoms, plan, folder, request, progress)


def _one(
    place: dict[str, Any], atoms: Atoms, plan: Study, folder: Path | None, request: str, progress: Callable[[str, int, int], None] | None
) -> dict[str, Any]:
    begin = time.perf_counter()

    def told(word: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(word, done, total)

    record: dict[str, Any] = {**place, "reason": None}
    try:
        if plan.relax:
            relaxed = relax(atoms, plan.model, symmetry="keep")
            if not relaxed.ok:
                return {**place, "reason": f"relaxation: {relaxed.reason}"}
            atoms = relaxed.atoms
            record["relaxation"] = {"energy_gain": relaxed.energy_gain, "volume_change": relaxed.volume_change, "calls": relaxed.calls}
        if plan.fix and plan.at is not None:  # the relaxation may have found a higher group, so not before it
            special_point(plan.at, standard_cell(atoms, plan.settings.get("symprec", SYMPREC)))
        found = phonons(atoms, plan.model, progress=told("phonons"), **plan.settings)
        record.update(found.numbers())
        if plan.fix and not found.stable:
            fixed = fix(found, at=plan.at, rounds=plan.rounds, progress=progress, **plan.settings)
            record["fixed"] = _of_fixed(fixed)
            if folder is not None:
                write_phonons(fixed.phonons, folder / "fixed", record["fixed"])
                _write_crystals(fixed, folder / "tried.extxyz")
        record.update(request=request, seconds_total=time.perf_counter() - begin)
        record = _plain(record)
        if folder is not None:
            write_phonons(found, folder, record)
        return record
    except (MissingPackageError, OSError):
        raise
    except AsegenError as error:
        return {**place, "reason": str(error)}
    except Exception as error:  # of phonopy, spglib or seekpath, for a crystal that nobody has thought of
        return {**place, "reason": f"{type(error).__name__}: {error}".rstrip(": ")}


def _of_fixed(fixed: Fixed) -> dict[str, Any]:
    steps = []
    for step, tried in zip(fixed.steps, fixed.tried, strict=False):
        others = [{"spacegroup": d.spacegroup, "symbol": d.symbol, "gain": d.gain} for d in tried[1:]]
        steps.append(
            {
                "q_point": step.mode.q,
                "q_label": step.mode.label,
                "frequency": step.mode.frequency,
                "spacegroup": step.spacegroup,
                "symbol": step.symbol,
                "gain": step.gain,
                "others": others,
            }
        )
    return _plain({**fixed.phonons.numbers(), "reason": fixed.reason, "gain": fixed.gain, "steps": steps})


def _write_crystals(fixed: Fixed, path: Path) -> None:
    """All crystals found on the way, with energies and the modes that led there."""
    crystals = []
    for number, tried in enumerate(fixed.tried, start=1):
        for descent in tried:
            atoms = descent.atoms.copy()
            atoms.info = {
                "round": number,
                "energy_per_atom": descent.energy_per_atom,
                "gain": descent.gain,
                "spacegroup": descent.spacegroup,
                "mode": f"{descent.mode.frequency:.3f} THz at {descent.mode.where}",
            }
            crystals.append(atoms)
    if not crystals:
        return
    text = io.StringIO()
    ase.io.write(text, crystals, format="extxyz")
    with replacing(path) as stream:
        stream.write(text.getvalue().encode())


def _finished(folder: Path, request: str) -> dict[str, Any] | None:
    path = folder / _FINAL
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StabilityError(f"{path} cannot be read ({error}); give another --out, or --overwrite") from error
    if found.get("request") != request:
        raise StabilityError(f"{folder} holds the results of another crystal or other settings; give another --out, or --overwrite")
    return found


def _free_name(name: str, taken: set[str]) -> str:
    """A name for a folder that no other crystal of the run has."""
    base = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "crystal"
    free, number = base, 2
    while free in taken:
        free, number = f"{base}-{number}", number + 1
    taken.add(free)
    return free


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """What JSON gives back, so that a result read from disk is the same as a fresh one."""
    found: dict[str, Any] = json.loads(json.dumps(record))
    return found
