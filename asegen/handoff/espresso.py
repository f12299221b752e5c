"""Input files of Quantum ESPRESSO's pw.x."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import HandoffError
from .pseudos import Pseudo, find_pseudos, pseudos_for, sha_of_file

CALCULATIONS = ("scf", "relax", "vc-relax")
INPUT, OUTPUT = "espresso.pwi", "espresso.pwo"
#: Ry; where no header of the elements suggests one.
ECUTWFC = 50.0
#: Start of an element that is often magnetic: (up - down) / valence electrons.
MAGNETIC = {"V": 0.3, "Cr": 0.5, "Mn": 0.5, "Fe": 0.5, "Co": 0.4, "Ni": 0.3, "Ce": 0.2, "Nd": 0.3, "Sm": 0.3, "Eu": 0.5, "Gd": 0.5}
_SECTIONS = ("control", "system", "electrons", "ions", "cell")


@dataclass(frozen=True)
class Espresso:
    """How pw.x is asked; one for a whole export, so that its energies have one scale."""

    calculation: str
    pseudos: dict[str, Pseudo]
    """Of every element of the folder of pseudopotentials."""
    place: Path
    """That folder."""
    ecutwfc: float
    """Ry."""
    ecutrho: float
    """Ry."""
    kspacing: float
    """Largest distance between k-points, 1/Å, with the 2 pi."""
    smearing: str | None
    """None: fixed occupations, for insulators."""
    degauss: float
    """Ry."""
    magnetic: bool
    settings: dict[str, Any] = field(default_factory=dict)
    scale: str = ""
    """Which energies can be compared: functional, pseudopotentials and cut-offs."""

    def files(self, folder: Path, atoms: Atoms, pseudo_dir: str, shared: Path, static: bool = False) -> dict[str, Any]:
        """Write ``espresso.pwi`` for one crystal, and its pseudopotentials to a folder that the whole export shares.

        Parameters
        ----------
        folder : path
            Where pw.x will run.
        atoms : ase.Atoms
            As :func:`asegen.handoff.checks.checked` returns it; their order is kept.
        pseudo_dir : str
            The shared folder as seen from `folder`.
        shared : path
            The shared folder.
        static : bool
            One tightly converged energy with forces, for phonons.

        Returns
        -------
        dict
            For ``asegen.json``: calculation, cut-offs, k-points, pseudopotentials, ``energy_scale``.

        Raises
        ------
        HandoffError
            An element without pseudopotential.
        """
        from ase.io.espresso import write_espresso_in

        pseudos = pseudos_for(atoms.get_chemical_symbols(), self.pseudos, self.place)
        atoms = self._with_moments(atoms, pseudos)
        kpoints = k_mesh(atoms.cell.array, self.kspacing)
        namelists = self._namelists(atoms, pseudo_dir, static)
        shared.mkdir(exist_ok=True)
        for pseudo in pseudos.values():
            if not (shared / pseudo.path.name).exists():
                shutil.copyfile(pseudo.path, shared / pseudo.path.name)
        names = {element: pseudo.path.name for element, pseudo in pseudos.items()}
        with open(folder / INPUT, "w", encoding="utf-8") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_espresso_in(stream, atoms, input_data=namelists, pseudopotentials=names, kpts=kpoints)
        return {
            "code": "espresso",
            "calculation": namelists["control"]["calculation"],
            "ecutwfc": self.ecutwfc,
            "ecutrho": self.ecutrho,
            "kpoints": list(kpoints),
            "nspin": namelists["system"].get("nspin", 1),
            "pseudopotentials": {e: {"file": p.path.name, "sha256": sha_of_file(p.path)} for e, p in pseudos.items()},
            "energy_scale": self.scale,
        }

    def _with_moments(self, atoms: Atoms, pseudos: Mapping[str, Pseudo]) -> Atoms:
        """Moments as shares of the valence electrons, which is what pw.x wants; those given are in Bohr magnetons."""
        atoms = atoms.copy()
        symbols = atoms.get_chemical_symbols()
        if atoms.has("initial_magmoms") and atoms.get_initial_magnetic_moments().any():
            moments = atoms.get_initial_magnetic_moments()
            shares = [float(np.clip(m / pseudos[s].valence, -1, 1)) for m, s in zip(moments, symbols, strict=True)]
        else:
            shares = [MAGNETIC.get(symbol, 0.0) if self.magnetic else 0.0 for symbol in symbols]
        atoms.set_initial_magnetic_moments(np.round(shares, 4))
        return atoms

    def _namelists(self, atoms: Atoms, pseudo_dir: str, static: bool) -> dict[str, dict[str, Any]]:
        calculation = "scf" if static else self.calculation
        found: dict[str, dict[str, Any]] = {
            "control": {
                "calculation": calculation,
                "prefix": "asegen",
                "outdir": "./scratch",
                "pseudo_dir": pseudo_dir,
                "tprnfor": True,
                "tstress": True,
                "etot_conv_thr": 1e-5 * len(atoms),
                "forc_conv_thr": 1e-4 if static else 5e-4,
                "nstep": 200,
            },
            "system": {"ecutwfc": self.ecutwfc, "ecutrho": self.ecutrho},
            "electrons": {"conv_thr": 1e-11 if static else 1e-9 * len(atoms), "electron_maxstep": 200, "mixing_beta": 0.4},
        }
        if self.smearing is None:
            found["system"]["occupations"] = "fixed"
        else:
            found["system"].update(occupations="smearing", smearing=self.smearing, degauss=self.degauss)
        if atoms.get_initial_magnetic_moments().any():
            found["system"]["nspin"] = 2
        if calculation != "scf":
            found["ions"] = {"ion_dynamics": "bfgs"}
        if calculation == "vc-relax":
            found["cell"] = {"cell_dynamics": "bfgs", "press_conv_thr": 0.5}
        for key, value in self.settings.items():
            found.setdefault(_section_of(key), {})[key] = value
        return found


def espresso(
    elements: Iterable[str],
    *,
    calculation: str = "vc-relax",
    pseudo_dir: str | Path | None = None,
    ecutwfc: float | None = None,
    ecutrho: float | None = None,
    kspacing: float = 0.25,
    smearing: str | None = "cold",
    degauss: float = 0.01,
    magnetic: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Espresso:
    """How pw.x is asked for crystals of some elements.

    Parameters
    ----------
    elements : iterable of str
        All that occur; the cut-offs are the largest that their pseudopotentials suggest, the same for every crystal.
    calculation : str
        "scf", "relax" (positions) or "vc-relax" (positions and cell).
    pseudo_dir : path, optional
        See :func:`asegen.handoff.pseudos.find_pseudos`.
    ecutwfc, ecutrho : float, optional, Ry
        Instead of those suggested. Where no header suggests any: 50 Ry, and eight times that for the density (four times if
        all potentials are norm-conserving).
    kspacing : float, 1/Å
        Largest distance between k-points of the Gamma-centred mesh, with the 2 pi (VASP's KSPACING).
    smearing : str, optional
        "cold", "gaussian", …; None: fixed occupations.
    degauss : float, Ry
    magnetic : bool
        Start V, Cr, Mn, Fe, Co, Ni and some rare earths magnetic where a crystal has no moments of its own.
    settings : dict, optional
        Further entries of the namelists, such as ``{"conv_thr": 1e-10}``; they win.

    Raises
    ------
    HandoffError
        An unknown calculation or setting, impossible numbers, or no folder of pseudopotentials.
    """
    if calculation not in CALCULATIONS:
        raise HandoffError(f"unknown calculation {calculation!r} of espresso; known: {', '.join(CALCULATIONS)}")
    if not kspacing > 0 or not degauss > 0 or (ecutwfc is not None and not ecutwfc > 0) or (ecutrho is not None and not ecutrho > 0):
        raise HandoffError("k-point spacing, smearing width and cut-offs of espresso must be more than 0")
    for key in settings or {}:
        _section_of(key)
    place, known = find_pseudos(pseudo_dir)
    used = [known[element] for element in sorted(set(elements)) if element in known]
    wave = ecutwfc or max([p.ecutwfc or ECUTWFC for p in used], default=ECUTWFC)
    wave = float(np.ceil(wave)) if ecutwfc is None else float(ecutwfc)
    soft = any(p.kind != "NC" and p.kind != "SL" and p.ecutrho is None for p in used)
    density = ecutrho or max([wave * (8 if soft else 4), *(p.ecutrho or 0.0 for p in used)])
    density = float(np.ceil(density)) if ecutrho is None else float(ecutrho)
    return Espresso(
        calculation=calculation,
        pseudos=known,
        place=place,
        ecutwfc=wave,
        ecutrho=density,
        kspacing=kspacing,
        smearing=smearing,
        degauss=degauss,
        magnetic=magnetic,
        settings=dict(settings or {}),
        scale=f"espresso:PBE:{_scale(known, wave, density, settings or {})}",
    )


def k_mesh(cell: np.ndarray, spacing: float) -> tuple[int, int, int]:
    """Gamma-centred mesh whose points lie at most `spacing` (1/Å, with the 2 pi) apart; `cell` in Å, shape (3, 3)."""
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(cell), axis=0)
    return tuple(int(n) for n in np.maximum(1, np.ceil(lengths / spacing - 1e-6)))  # type: ignore[return-value]


def _section_of(key: str) -> str:
    """Namelist that an entry belongs to."""
    from ase.io.espresso_namelist.keys import pw_keys

    plain = key.split("(")[0].lower()
    for section in _SECTIONS:
        if any(plain == name.split("(")[0].lower() for name in pw_keys.get(section.upper(), pw_keys.get(section, ()))):
            return section
    raise HandoffError(f"{key!r} is no entry of pw.x's input")


def _scale(known: Mapping[str, Pseudo], ecutwfc: float, ecutrho: float, settings: Mapping[str, Any]) -> str:
    """Short hash of all that sets the zero of energy: every pseudopotential that the folder offers, cut-offs, own settings."""
    text = "\n".join(f"{element} {sha_of_file(known[element].path)}" for element in sorted(known))
    text += f"\n{ecutwfc:.6g} {ecutrho:.6g} {sorted((str(k), str(v)) for k, v in settings.items())}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]
