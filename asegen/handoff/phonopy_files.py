"""Phonons by finite displacements: phonopy's files, a static calculation per displaced supercell, and the forces back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..checkpoint import replacing
from ..errors import HandoffError, MissingPackageError
from .provenance import FORMAT, atoms_of, read_row, sha_of, structure_of, write_row
from .results import READERS
from .supercells import supercell_for

YAML, FORCES = "phonopy_disp.yaml", "FORCE_SETS"
Static = Callable[[Path, Atoms], tuple[dict[str, Any], list[str]]]


def write_displacements(
    place: Path, atoms: Atoms, row: dict[str, Any], static: Static, *, min_length: float = 10.0, displacement: float = 0.01
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Write ``phonopy_disp.yaml`` and a folder ``disp-001``, … with a static calculation of each displaced supercell.

    Parameters
    ----------
    place : path
        Folder of the crystal.
    atoms : ase.Atoms
        As :func:`asegen.handoff.checks.checked` returns it; held atoms are displaced like others.
    row : dict
        Its provenance.
    static : callable
        Writes the inputs of one supercell to a folder; returns what ``asegen.json`` shall say, and remarks.
    min_length, displacement : float, Å

    Returns
    -------
    row : dict
        For the ``asegen.json`` of the crystal.
    runs : list of str
        Folders of the displacements.
    remarks : list of str

    Raises
    ------
    HandoffError
        phonopy cannot make displacements of the crystal.
    MissingPackageError
        phonopy is not installed.
    """
    phonon = _phonopy(atoms, min_length, displacement)
    phonon.save(str(place / YAML), settings={"displacements": True, "force_sets": False, "force_constants": False})
    supercells = displaced_supercells(phonon)
    runs: list[str] = []
    remarks: list[str] = []
    details: dict[str, Any] = {}
    for number, supercell in enumerate(supercells, start=1):
        run = f"disp-{number:03d}"
        (place / run).mkdir()
        details, heard = static(place / run, supercell)
        remarks += heard
        runs.append(run)
        one = {
            "format": FORMAT,
            "target": "phonopy",
            "kind": "displacement",
            "id": f"{row['id']}/{run}",
            "position": row["position"],
            "name": f"{row['name']}/{run}",
            "formula": supercell.get_chemical_formula("metal"),
            "info": row["info"],
            "structure": structure_of(supercell),
            "sha256": sha_of(supercell),
            "order": list(range(len(supercell))),
        }
        write_row(place / run, {**one, **details})
    about: dict[str, Any] = {key: details[key] for key in ("code", "set", "energy_scale") if key in details}
    more: dict[str, Any] = {
        "calculation": "phonons",
        "displacements": runs,
        "displacement": displacement,
        "supercell": np.diag(phonon.supercell_matrix).astype(int).tolist(),
        "supercell_atoms": len(phonon.supercell),
    }
    return {**about, **more}, runs, list(dict.fromkeys(remarks))


def displaced_supercells(phonon: Any) -> list[Atoms]:
    """The supercells of a ``Phonopy`` object, or of a folder with ``phonopy_disp.yaml``, one for each displacement."""
    if isinstance(phonon, (str, Path)):
        phonon = _read(Path(phonon))
    return [_to_ase(cell) for cell in phonon.supercells_with_displacements or []]


def read_forces(folder: str | Path, forces: Sequence[np.ndarray] | None = None) -> Any:
    """Write ``FORCE_SETS`` from finished runs, and let phonopy read it.

    The mean force on a supercell, which the grids of the code leave, is taken off each atom.

    Parameters
    ----------
    folder : path
        A crystal's folder of ``asegen export --to phonopy``.
    forces : sequence of arrays, optional
        Forces on the atoms of each of :func:`displaced_supercells`, each of shape (n, 3), eV/Å, from elsewhere (any ASE calculator).
        Default: from the runs in ``disp-001``, ….

    Returns
    -------
    phonopy.Phonopy
        With force constants (eV/Å²).

    Raises
    ------
    HandoffError
        A displacement that is not finished, or forces that do not fit.
    MissingPackageError
        phonopy is not installed.
    """
    folder = Path(folder)
    phonon = _read(folder)
    supercells = displaced_supercells(phonon)
    if forces is None:
        forces = _forces_of_runs(folder, supercells)
    shapes = [np.shape(entry) for entry in forces]
    if shapes != [(len(cell), 3) for cell in supercells]:
        size = len(supercells[0]) if supercells else 0
        raise HandoffError(f"forces of shapes {shapes} do not fit: {len(supercells)} displacements of {size} atoms are in {folder / YAML}")
    values = np.array(forces, dtype=float)
    if not np.isfinite(values).all():
        raise HandoffError(f"{folder}: a force is not a finite number")
    import phonopy
    from phonopy.file_IO import get_FORCE_SETS_lines

    phonon.forces = values - values.mean(axis=1, keepdims=True)
    with replacing(folder / FORCES) as stream:
        stream.write(("\n".join(get_FORCE_SETS_lines(phonon.dataset)) + "\n").encode())
    return phonopy.load(str(folder / YAML), force_sets_filename=str(folder / FORCES), is_nac=False, log_level=0)


def _forces_of_runs(folder: Path, supercells: Sequence[Atoms]) -> list[np.ndarray]:
    row = read_row(folder)
    runs = row.get("displacements")
    if not runs or len(runs) != len(supercells):
        raise HandoffError(f"{folder} is no folder of displacements, or {YAML} is not the one that was written with it")
    found = []
    for run, supercell in zip(runs, supercells, strict=True):
        one = read_row(folder / run)
        outcome = READERS[one["code"]](folder / run, one)
        if not outcome.finished or not outcome.converged or outcome.atoms is None:
            raise HandoffError(f"{folder / run}: {outcome.reason}")
        if not np.allclose(atoms_of(one).positions, supercell.positions, atol=1e-5):
            raise HandoffError(f"{folder / run} is another displacement than that in {YAML}")
        found.append(outcome.atoms.get_forces())
    return found


def _phonopy(atoms: Atoms, min_length: float, displacement: float) -> Any:
    if not 0 < displacement < 0.5:
        raise HandoffError(f"a displacement of {displacement:g} Å is not possible; 0.01 is usual")
    phonopy = _package()
    from phonopy.structure.atoms import PhonopyAtoms

    moments = atoms.get_initial_magnetic_moments() if atoms.has("initial_magmoms") else None
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        scaled_positions=atoms.get_scaled_positions(wrap=False),
        cell=atoms.cell.array,
        magnetic_moments=moments,
    )
    matrix = np.diag(supercell_for(atoms.cell.array, min_length))
    try:
        phonon = phonopy.Phonopy(cell, supercell_matrix=matrix, primitive_matrix="auto" if moments is None else "P", log_level=0)
        phonon.generate_displacements(distance=displacement)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HandoffError(f"phonopy makes no displacements of this crystal: {reason}") from error
    return phonon


def _read(folder: Path) -> Any:
    phonopy = _package()
    from phonopy.interface.phonopy_yaml import read_phonopy_yaml

    path = folder / YAML
    try:
        # not phonopy.load: it takes any FORCE_SETS that lies in the working directory
        content = read_phonopy_yaml(str(path))
        phonon = phonopy.Phonopy(content.unitcell, content.supercell_matrix, content.primitive_matrix, log_level=0)
        phonon.dataset = content.dataset
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise HandoffError(f"{path} cannot be read: {error}") from error
    return phonon


def _package() -> Any:
    try:
        import phonopy
    except ImportError as error:
        raise MissingPackageError("phonons by displacements need phonopy; install it with: pip install phonopy") from error
    return phonopy


def _to_ase(cell: Any) -> Atoms:
    atoms = Atoms(cell.symbols, scaled_positions=cell.scaled_positions, cell=cell.cell, pbc=True)
    if cell.magnetic_moments is not None:
        atoms.set_initial_magnetic_moments(cell.magnetic_moments)
    return atoms
