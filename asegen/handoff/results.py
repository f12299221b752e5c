"""What VASP and pw.x left in a folder: structure, energy, forces, stress, or the reason why there are none."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from .espresso import OUTPUT
from .provenance import atoms_of, reordered


@dataclass(frozen=True)
class Outcome:
    """What came of one calculation."""

    finished: bool
    """The code ended by itself and its output can be read."""
    converged: bool = False
    """Electrons and, where they move, ions and cell have converged."""
    reason: str = ""
    """Why it is not finished or not converged; empty if it is both."""
    version: str = ""
    atoms: Atoms | None = None
    """Last structure in the order of the crystal given, with a calculator that holds ``energy`` (eV), ``forces`` (eV/Å) and, where
    there is one, ``stress`` (eV/Å³, ASE's sign and order)."""


def read_vasp(folder: Path, row: dict[str, Any]) -> Outcome:
    """Outcome of a VASP run, from its ``vasprun.xml``; `row` is its ``asegen.json``. The energy is the one extrapolated to no smearing."""
    from ase.units import GPa
    from pymatgen.io.vasp.outputs import Vasprun

    path = next((folder / name for name in ("vasprun.xml", "vasprun.xml.gz") if (folder / name).exists()), None)
    if path is None:
        begun = next((name for name in ("OUTCAR", "vasp.out") if (folder / name).exists()), None)
        word = "not run yet" if begun is None else f"VASP has crashed or was stopped, see {begun}"
        return Outcome(False, reason=f"{word}: there is no vasprun.xml")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = Vasprun(str(path), parse_dos=False, parse_eigen=False, parse_projected_eigen=False, parse_potcar_file=False)
            last = run.ionic_steps[-1]
            structure = run.final_structure
            energy = float(run.final_energy)
            electrons, ions = bool(run.converged_electronic), bool(run.converged_ionic)
    except Exception as error:  # a torn or foreign file fails anywhere inside the parser
        return Outcome(False, reason=f"vasprun.xml cannot be read, the run was stopped or has crashed ({_first_line(error)})")
    symbols = [site.specie.symbol for site in structure]
    atoms = Atoms(symbols, scaled_positions=structure.frac_coords, cell=structure.lattice.matrix, pbc=True)
    results: dict[str, Any] = {"energy": energy, "forces": np.asarray(last["forces"], dtype=float)}
    if last.get("stress") is not None and np.size(last["stress"]) == 9:
        results["stress"] = -0.1 * GPa * np.asarray(last["stress"], dtype=float).ravel()[[0, 4, 8, 5, 2, 1]]
    missing = ("" if electrons else "electrons") + (" and " if not (electrons or ions) else "") + ("" if ions else "ions")
    reason = f"the {missing} did not converge" if missing else ""
    return _outcome(atoms, results, row, electrons and ions, reason, f"VASP {run.vasp_version}")


def read_espresso(folder: Path, row: dict[str, Any]) -> Outcome:
    """Outcome of a pw.x run, from ``espresso.pwo``; `row` is its ``asegen.json``. The energy is pw.x's total energy."""
    from ase.io import read

    path = folder / OUTPUT
    if not path.exists():
        return Outcome(False, reason=_without_output(folder))
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"Program PWSCF\s+v\.?(\S+)", text)
    version = f"Quantum ESPRESSO {found[1]}" if found else ""
    crash = re.search(r"Error in routine\s+(.+?)\n\s*(.*?)\n", text)
    if crash:
        return Outcome(False, reason=f"pw.x stopped: {' '.join(crash[2].split()) or crash[1].strip()}", version=version)
    if "JOB DONE" not in text:
        return Outcome(False, reason=f"{OUTPUT} has no end: the run goes on, or was stopped", version=version)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            last: Any = read(str(path), index=-1, format="espresso-out")
        results = {key: value for key, value in last.calc.results.items() if key in ("energy", "forces", "stress") and value is not None}
        float(results["energy"])
        np.reshape(results["forces"], (len(last), 3))
    except Exception as error:  # as above
        if "convergence NOT achieved" in text:
            return Outcome(True, reason="the electrons did not converge", version=version)
        return Outcome(False, reason=f"{OUTPUT} cannot be read ({_first_line(error)})", version=version)
    atoms = Atoms(last.get_chemical_symbols(), positions=last.positions, cell=last.cell.array, pbc=True)
    reason = _not_converged(text, row)
    if row.get("calculation") == "scf" and len(atoms) == len(row["order"]):
        exact = atoms_of(row)
        if (exact.numbers == atoms.numbers).all() and abs(exact.cell.volume / atoms.cell.volume - 1) < 1e-4:
            atoms.set_cell(exact.cell.array)
            atoms.set_positions(exact.positions)  # pw.x prints seven digits
    return _outcome(atoms, results, row, not reason, reason, version)


READERS = {"vasp": read_vasp, "espresso": read_espresso}


def _without_output(folder: Path) -> str:
    """What became of pw.x where its output is missing: never begun, or crashed with an output that went elsewhere."""
    crash = folder / "CRASH"
    if crash.exists():
        lines = [line.strip() for line in crash.read_text(encoding="utf-8", errors="replace").splitlines()]
        said = [line for line in lines if line and not line.startswith(("%", "task #", "from "))]
        return f"pw.x has crashed: {' '.join(said[0].split()) if said else 'CRASH does not say why'}; there is no {OUTPUT}"
    if (folder / "input_tmp.in").exists() or (folder / "scratch").exists():
        return f"pw.x was begun, but there is no {OUTPUT}: it has crashed, was stopped, or writes elsewhere"
    return f"not run yet: there is no {OUTPUT}"


def _not_converged(text: str, row: dict[str, Any]) -> str:
    last_scf = text[text.rfind("Self-consistent Calculation") :]
    if "convergence NOT achieved" in last_scf:
        return "the electrons did not converge"
    if row.get("calculation") == "scf" or ("End of BFGS Geometry Optimization" in text and "bfgs converged" in text):
        return ""
    return "the ions did not converge"


def _outcome(atoms: Atoms, results: dict[str, Any], row: dict[str, Any], converged: bool, reason: str, version: str) -> Outcome:
    order = row["order"]
    given = np.array(row["structure"]["numbers"])
    if len(order) != len(atoms) or not np.array_equal(given[order], atoms.numbers):
        return Outcome(False, reason="the folder holds the calculation of another crystal", version=version)
    final = reordered(atoms, order)
    results = {**results, "forces": np.asarray(results["forces"])[np.argsort(order)]}
    final.calc = SinglePointCalculator(final, **results)
    return Outcome(True, converged, reason, version, final)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
