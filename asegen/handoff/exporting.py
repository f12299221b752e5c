"""Generated crystals as folders of input files that other codes run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from ..errors import AsegenError, HandoffError
from .checks import checked
from .espresso import Espresso, espresso
from .folders import LISTING, building
from .given import crystals_of, file_of
from .jobs import write_jobs
from .provenance import provenance, write_row
from .vasp import Vasp, vasp

TARGETS = ("vasp", "espresso", "phonopy", "jobflow")


@dataclass(frozen=True)
class Export:
    """What was written."""

    target: str
    out: Path
    names: list[str]
    """Folders of the crystals, relative to `out`; for jobflow the names of the flows."""
    runs: list[str]
    """Folders in which a code is to run, as in ``folders.txt``."""
    remarks: list[str]
    """Sentences of the kind "this was left out", and what pymatgen warns of."""
    skipped: list[tuple[str, str]]
    """Crystals that could not be written, with the reason."""
    energy_scales: list[str] = field(default_factory=list)
    """Kinds of energies that the calculations will give."""


def export(
    crystals: str | Path | Atoms | Sequence[Atoms],
    out: str | Path,
    to: str = "vasp",
    *,
    only: Sequence[int] | None = None,
    n: int | None = None,
    overwrite: bool = False,
    calculator: str = "vasp",
    min_length: float = 10.0,
    displacement: float = 0.01,
    flow: str = "mp-gga",
    vasp_options: Mapping[str, Any] | None = None,
    espresso_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """Write inputs for another code: a folder for each crystal, ``folders.txt`` and ``job.sh``.

    Nothing is left behind where writing fails: the folder takes its name when it is complete.

    Parameters
    ----------
    crystals : path, Atoms or sequence of Atoms
        A path is any file of crystals, or the folder of an asegen run (of a relaxed one, ``polymorphs.extxyz`` is read).
    out : path
        New or empty folder.
    to : str
        "vasp", "espresso", "phonopy" (supercells with displaced atoms), "jobflow" (one ``flow.json`` of atomate2).
    only : sequence of int, optional
        Positions to take, from 0.
    n : int, optional
        Only the first so many (of `only`).
    overwrite : bool
        Replace an earlier export; files that asegen did not write stay.
    calculator : str
        For phonopy: "vasp" or "espresso".
    min_length : float, Å
        For phonopy: see :func:`asegen.handoff.supercell_for`.
    displacement : float, Å
        For phonopy.
    flow : str
        For jobflow: see :func:`asegen.handoff.flows.flow_of`.
    vasp_options, espresso_options : dict, optional
        See :func:`asegen.handoff.vasp.vasp` and :func:`asegen.handoff.espresso.espresso`.
    progress : callable, optional
        Called with how many are done and how many there are.

    Returns
    -------
    Export

    Raises
    ------
    HandoffError
        An unknown target or option, a folder that holds something, or no crystal that can be written.
    MissingPackageError
        phonopy, jobflow or atomate2 is not installed.
    """
    if to not in TARGETS:
        raise HandoffError(f"unknown target {to!r}; known: {', '.join(TARGETS)}")
    if calculator not in ("vasp", "espresso"):
        raise HandoffError(f"unknown calculator {calculator!r} for phonopy; known: vasp, espresso")
    given, skipped = crystals_of(crystals, only, n)
    good: list[tuple[int, str, Atoms]] = []
    remarks = file_of(Path(crystals))[1] if isinstance(crystals, (str, Path)) else []
    for position, name, atoms in given:
        try:
            clean, left_out = checked(atoms, name)
        except AsegenError as error:
            skipped.append((name, str(error)))
            continue
        good.append((position, name, clean))
        remarks += left_out
    _refuse_none(good, skipped)
    work = _Work(to, calculator, good, min_length, displacement, flow, vasp_options or {}, espresso_options or {})
    names: list[str] = []
    runs: list[str] = []
    scales: dict[str, None] = {}
    with building(out, overwrite) as folder:
        for done, (position, name, atoms) in enumerate(good, start=1):
            try:
                row, places, heard = work.write(folder, position, name, atoms)
            except HandoffError as error:
                skipped.append((name, str(error) if str(error).startswith(name) else f"{name}: {error}"))
                work.undo(folder, name)
                continue
            names.append(name)
            runs += places
            remarks += [sentence if sentence.startswith(name) else f"{name}: {sentence}" for sentence in heard]
            scales[row["energy_scale"]] = None
            if progress:
                progress(done, len(good))
        _refuse_none(names, skipped)
        remarks += work.remarks()
        work.finish(folder, runs)
        entries = sorted(path.name for path in folder.iterdir())
        listing = {"target": to, "entries": [*entries, LISTING], "names": names, "runs": runs, "skipped": skipped, "remarks": remarks}
        (folder / LISTING).write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
    return Export(to, Path(out), names, runs, remarks, skipped, list(scales))


class _Work:
    """Writes one crystal after the other for one target."""

    def __init__(
        self,
        to: str,
        calculator: str,
        good: Sequence[tuple[int, str, Atoms]],
        min_length: float,
        displacement: float,
        flow: str,
        vasp_options: Mapping[str, Any],
        espresso_options: Mapping[str, Any],
    ) -> None:
        self.to = to
        self.code = calculator if to == "phonopy" else to
        self.min_length, self.displacement = min_length, displacement
        self.vasp: Vasp | None = vasp(**vasp_options) if self.code == "vasp" else None
        self.espresso: Espresso | None = None
        if self.code == "espresso":
            self.espresso = espresso({symbol for _, _, atoms in good for symbol in atoms.get_chemical_symbols()}, **espresso_options)
        self.flows: Any = None
        self.metals = 0
        if to == "jobflow":
            from .flows import Flows

            self.flows = Flows(flow)

    def write(self, folder: Path, position: int, name: str, atoms: Atoms) -> tuple[dict[str, Any], list[str], list[str]]:
        row = provenance(atoms, position, name, self.to)
        if self.flows is not None:
            row.update(self.flows.add(atoms, row))
            return row, [], []
        place = folder / name
        place.mkdir()
        if self.to == "phonopy":
            from .phonopy_files import write_displacements

            details, runs, remarks = write_displacements(
                place, atoms, row, self.static, min_length=self.min_length, displacement=self.displacement
            )
            row.update(details)
            write_row(place, row)
            return row, [f"{name}/{run}" for run in runs], remarks
        details, remarks = self.one(place, atoms, "../pseudo", folder / "pseudo", static=False)
        self.metals += sum("likely metal" in remark for remark in remarks)
        remarks = [remark for remark in remarks if "likely metal" not in remark]
        row.update(details)
        write_row(place, row)
        return row, [name], remarks

    def remarks(self) -> list[str]:
        """What is to be said once of the whole export."""
        if not self.metals:
            return []
        return [
            f"ISMEAR = -5 of the Materials Project's set is kept, though VASP advises smearing where metals are relaxed (metals here: "
            f"{self.metals}); --setting ISMEAR=1 --setting SIGMA=0.1 changes it, and the energy scale"
        ]

    def one(self, place: Path, atoms: Atoms, pseudo_dir: str, shared: Path, static: bool) -> tuple[dict[str, Any], list[str]]:
        """Inputs of one calculation."""
        if self.vasp is not None:
            return self.vasp.files(place, atoms, static)
        assert self.espresso is not None
        return self.espresso.files(place, atoms, pseudo_dir, shared, static), []

    def static(self, place: Path, atoms: Atoms) -> tuple[dict[str, Any], list[str]]:
        """Inputs of one displaced supercell, two folders below the export."""
        return self.one(place, atoms, "../../pseudo", place.parent.parent / "pseudo", static=True)

    def undo(self, folder: Path, name: str) -> None:
        """Remove what was begun of a crystal that cannot be written."""
        import shutil

        shutil.rmtree(folder / name, ignore_errors=True)

    def finish(self, folder: Path, runs: Sequence[str]) -> None:
        """What the folder holds once: job script, or the flows."""
        if self.flows is not None:
            self.flows.write(folder)
        else:
            write_jobs(folder, runs, self.code)


def _refuse_none(good: Sequence[Any], skipped: Sequence[tuple[str, str]]) -> None:
    if not good:
        reason = f"; {skipped[0][1]}" if skipped else ""
        raise HandoffError(f"there is no crystal to export{reason}" if len(skipped) != 1 else skipped[0][1])
