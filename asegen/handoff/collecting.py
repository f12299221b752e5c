"""Results of the calculations of an export, each joined to where its crystal came from."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..checkpoint import replacing
from ..errors import AsegenError, HandoffError
from .phonopy_files import FORCES, read_forces
from .provenance import FILE, read_row
from .results import READERS, Outcome


@dataclass(frozen=True)
class Collected:
    """One calculation; numbers are None where it has none."""

    folder: str
    """Relative to the folder that was searched."""
    id: str
    position: int
    formula: str
    code: str
    version: str
    calculation: str
    finished: bool
    converged: bool
    reason: str
    """Why it is not finished or not converged."""
    energy: float | None
    """Total energy of the cell, eV."""
    energy_per_atom: float | None
    """eV/atom."""
    max_force: float | None
    """Largest force on an atom, eV/Å."""
    stress: list[float] | None
    """xx, yy, zz, yz, xz, xy in eV/Å³; positive where the cell wants to shrink (ASE's sign)."""
    energy_scale: str
    """Energies can be compared where this is the same, and nowhere else."""
    provenance: dict[str, Any] = field(repr=False)
    """``asegen.json``."""
    atoms: Atoms | None = field(repr=False, compare=False)
    """Last structure in the order of the crystal given, with energy, forces and stress."""

    def row(self) -> dict[str, Any]:
        """Plain values, for tables and JSON."""
        numbers = {key: value for key, value in vars(self).items() if key not in ("provenance", "atoms")}
        known = {key: self.provenance.get(key) for key in ("seed", "checkpoint", "prototype", "spacegroup", "sha256")}
        return {**numbers, **known, "info": self.provenance.get("info", {})}


def collect(folder: str | Path, progress: Callable[[int, int], None] | None = None) -> list[Collected]:
    """Read every calculation in a folder and the folders below it.

    What is not finished, has crashed or cannot be read is listed with its reason. Phonon folders whose displacements are
    all finished get their ``FORCE_SETS``.

    Parameters
    ----------
    folder : path
        Of :func:`asegen.handoff.export`, or of one crystal.
    progress : callable, optional
        Called with how many are done and how many there are.

    Returns
    -------
    list of Collected
        In the order of the crystals' positions.

    Raises
    ------
    HandoffError
        There is no such folder, or no calculation of asegen in it.
    """
    base = Path(folder)
    if not base.is_dir():
        raise HandoffError(f"{folder} is no folder")
    # names that start with a dot are exports that were never finished
    paths = sorted(path.parent for path in base.rglob(FILE) if not any(part.startswith(".") for part in path.relative_to(base).parts))
    if not paths:
        raise HandoffError(f"no calculation of asegen in {folder}: no {FILE} in it or below")
    found = []
    for done, path in enumerate(paths, start=1):
        one = _collected(path, str(path.relative_to(base)), alone=len(paths) == 1)
        if one is not None:
            found.append(one)
        if progress:
            progress(done, len(paths))
    return sorted(found, key=lambda one: (one.position, one.folder))


def write_results(collected: Sequence[Collected], path: str | Path) -> int:
    """Write the last structures of all that is finished; how many they are.

    ``.extxyz`` keeps energies (eV), forces (eV/Å) and stress (eV/Å³) where ASE looks for them; other formats of
    :func:`asegen.datasets.writers.write_crystals` keep the columns only. Each structure has ``energy_per_atom``, ``energy_scale``,
    ``converged``, ``code_version`` and the plain values of the crystal's ``info``.

    Raises
    ------
    DataError
        An unknown suffix.
    """
    from ase.io.extxyz import write_xyz

    from ..datasets.writers import kind_of, write_crystals

    kind = kind_of(path)
    crystals = []
    for one in collected:
        if one.atoms is None:
            continue
        atoms = one.atoms.copy()
        atoms.calc = one.atoms.calc
        known = {key: value for key, value in one.provenance["info"].items() if isinstance(value, (str, int, float, bool))}
        atoms.info = {key: value for key, value in known.items() if key not in ("energy", "free_energy", "stress", "forces")}
        more = {"energy_per_atom": one.energy_per_atom, "energy_scale": one.energy_scale, "converged": one.converged}
        atoms.info.update(material_id=one.id, code_version=one.version, **more)
        crystals.append(atoms)
    if kind not in ("extxyz", "xyz") or str(path).endswith(".gz"):
        write_crystals(crystals, path)
        return len(crystals)
    text = io.StringIO()
    for atoms in crystals:
        # a quote or a line break inside a value would break the comment line
        atoms.info = {k: " ".join(v.replace('"', "'").split()) if isinstance(v, str) else v for k, v in atoms.info.items()}
        write_xyz(text, atoms)
    with replacing(path) as stream:
        stream.write(text.getvalue().encode())
    return len(crystals)


def _collected(path: Path, name: str, alone: bool) -> Collected | None:
    row: dict[str, Any] = {"info": {}}
    try:
        row = read_row(path)
        if row.get("kind") == "displacement" and not alone:
            return None  # belongs to the phonon folder above it
        outcome = _phonons(path) if row.get("calculation") == "phonons" else _outcome(path, row)
    except AsegenError as error:
        outcome = Outcome(False, reason=str(error))
    except (OSError, KeyError, ValueError, TypeError) as error:  # one damaged folder does not stop the others
        outcome = Outcome(False, reason=f"cannot be read ({type(error).__name__}: {error})")
    energy = per_atom = force = stress = None
    if outcome.atoms is not None:
        results = outcome.atoms.calc.results  # type: ignore[union-attr]
        energy = float(results["energy"])
        per_atom = energy / len(outcome.atoms)
        force = float(np.linalg.norm(results["forces"], axis=1).max())
        stress = [float(value) for value in results["stress"]] if "stress" in results else None
    return Collected(
        folder=name,
        id=str(row.get("id", name)),
        position=int(row.get("position", -1)),
        formula=str(row.get("formula", "")),
        code=str(row.get("code", "")),
        version=outcome.version,
        calculation=str(row.get("calculation", "")),
        finished=outcome.finished,
        converged=outcome.converged,
        reason=outcome.reason,
        energy=energy,
        energy_per_atom=per_atom,
        max_force=force,
        stress=stress,
        energy_scale=str(row.get("energy_scale", "")),
        provenance=row,
        atoms=outcome.atoms,
    )


def _outcome(path: Path, row: dict[str, Any]) -> Outcome:
    reader = READERS.get(row.get("code", ""))
    if reader is None:
        return Outcome(False, reason=f"results of {row.get('code') or 'an unnamed code'} cannot be read")
    return reader(path, row)


def _phonons(path: Path) -> Outcome:
    """Phonons are finished when all displacements are; their result is FORCE_SETS, not an energy."""
    read_forces(path)
    return Outcome(True, True, version=f"phonopy, {FORCES} written")
