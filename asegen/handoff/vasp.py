"""Input files of VASP, by the sets of the Materials Project in pymatgen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixCartesian

from ..errors import HandoffError
from .checks import free_axes

#: Name to (class in pymatgen, its options, functional).
SETS: dict[str, tuple[str, dict[str, Any], str]] = {
    "mp-relax": ("MPRelaxSet", {}, "PBE"),
    "mp-scan": ("MPScanRelaxSet", {}, "r2SCAN"),
    "matpes-pbe": ("MatPESStaticSet", {"xc_functional": "PBE"}, "PBE"),
    "matpes-r2scan": ("MatPESStaticSet", {"xc_functional": "r2SCAN"}, "r2SCAN"),
}
#: Forces for phonons: no step of the ions, tight electrons, no grid that moves with the atoms.
_STATIC = {
    "NSW": 0,
    "IBRION": -1,
    "ISIF": 2,
    "EDIFF": 1e-8,
    "LREAL": False,
    "ADDGRID": True,
    "PREC": "Accurate",
    "ISMEAR": 0,
    "SIGMA": 0.05,
    "NELM": 200,
    "EDIFFG": None,
    "LWAVE": False,
    "LCHARG": False,
    "LAECHG": False,
    "LVTOT": False,
    "LELF": False,
}


@dataclass(frozen=True)
class Vasp:
    """How VASP is asked."""

    set: str
    potcar: bool
    settings: dict[str, Any] = field(default_factory=dict)

    def files(self, folder: Path, atoms: Atoms, static: bool = False) -> tuple[dict[str, Any], list[str]]:
        """Write POSCAR, INCAR, KPOINTS (where the set has no KSPACING) and POTCAR.spec or POTCAR for one crystal.

        Parameters
        ----------
        folder : path
        atoms : ase.Atoms
            As :func:`asegen.handoff.checks.checked` returns it. They are written element by element, by electronegativity.
        static : bool
            One tightly converged energy with forces, for phonons.

        Returns
        -------
        row : dict
            For ``asegen.json``: ``order`` (place in `atoms` of each atom written), set, ``energy_scale``, …
        remarks : list of str
            What pymatgen warns of.

        Raises
        ------
        HandoffError
            The set has no answer for the crystal (an element without POTCAR), or no POTCARs are configured.
        """
        from pymatgen.io.vasp import Incar, sets

        name, options, functional = SETS[self.set]
        incar = {**(_STATIC if static else {}), **self.settings}
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                chosen = getattr(sets, name)(structure_of(atoms), user_incar_settings=incar, **options)
                chosen.write_input(str(folder), potcar_spec=not self.potcar)
                written = chosen.poscar.structure
                symbols = list(chosen.potcar_symbols)
                tags = chosen.incar
                Incar(self.settings).check_params()  # a value that VASP does not know is a remark
            except OSError as error:
                if error.errno is not None:  # the disk
                    raise
                raise HandoffError(self._complaint(error)) from error
            except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
                raise HandoffError(self._complaint(error)) from error
        u = bool(tags.get("LDAU"))
        scale = f"vasp:{functional}{'+U' if u else ''}:{self.set}"
        if self.settings:
            scale += ":" + ",".join(f"{key}={value}" for key, value in sorted(self.settings.items()))
        row = {
            "code": "vasp",
            "calculation": "static" if int(tags.get("NSW", 0)) == 0 else "relax",
            "set": self.set,
            "potcar_symbols": symbols,
            "potcar_functional": str(chosen.potcar_functional),
            "order": [int(i) for i in written.site_properties["asegen_index"]],
            "energy_scale": scale,
        }
        return row, list(dict.fromkeys(_sentence(w) for w in heard if _matters(w)))

    def _complaint(self, error: Exception) -> str:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if self.potcar:
            return (
                f"VASP input could not be written: {reason}; --potcar needs your POTCARs in PMG_VASP_PSP_DIR (pmg config --add"
                " PMG_VASP_PSP_DIR FOLDER); without it POTCAR.spec is written"
            )
        return f"VASP's set {self.set} has no input for this crystal: {reason}"


def vasp(set: str = "mp-relax", *, potcar: bool = False, settings: Mapping[str, Any] | None = None) -> Vasp:
    """How VASP is asked.

    Parameters
    ----------
    set : str
        "mp-relax" (MPRelaxSet: PBE with U), "mp-scan" (MPScanRelaxSet: r2SCAN), "matpes-pbe" or "matpes" and "matpes-r2scan"
        (MatPESStaticSet: one energy with forces).
    potcar : bool
        Write POTCAR from the user's own files (PMG_VASP_PSP_DIR) instead of POTCAR.spec, which needs no licence.
    settings : dict, optional
        Further INCAR tags; they win.

    Raises
    ------
    HandoffError
        An unknown set, or a tag that pymatgen does not know.
    """
    name = "matpes-pbe" if set == "matpes" else set
    if name not in SETS:
        raise HandoffError(f"unknown set {set!r} of VASP inputs; known: {', '.join(SETS)}")
    tags = {key.upper(): value for key, value in (settings or {}).items()}
    for tag in tags:
        _refuse_unknown(tag)
    return Vasp(name, potcar, tags)


def _refuse_unknown(tag: str) -> None:
    from difflib import get_close_matches

    from pymatgen.io.vasp import Incar

    known = list(Incar.INCAR_PARAMS)
    if tag not in known:
        close = get_close_matches(tag, known, n=1)
        raise HandoffError(f"{tag} is no INCAR tag that pymatgen knows{f'; did you mean {close[0]}?' if close else ''}")


def structure_of(atoms: Atoms) -> Any:
    """pymatgen's ``Structure``, with the place of each atom as the site property ``asegen_index``.

    Moments, if there are any, become ``magmom``; held atoms become ``selective_dynamics``.

    Raises
    ------
    HandoffError
        Atoms that are held along some Cartesian axes only, in a cell whose vectors do not run along these: VASP holds atoms along
        lattice vectors.
    """
    from pymatgen.core import Lattice, Structure

    properties: dict[str, list[Any]] = {"asegen_index": list(range(len(atoms)))}
    if atoms.has("initial_magmoms"):
        properties["magmom"] = atoms.get_initial_magnetic_moments().tolist()
    free = free_axes(atoms)
    if not free.all():
        cell = atoms.cell.array
        if any(isinstance(c, FixCartesian) for c in atoms.constraints) and not np.allclose(cell, np.diag(np.diag(cell)), atol=1e-8):
            raise HandoffError("VASP holds atoms along lattice vectors, and those of this cell do not run along x, y and z; use FixAtoms")
        properties["selective_dynamics"] = free.tolist()
    # coordinates as they are: wrapped ones would differ from the crystal given by lattice vectors
    frac = atoms.get_scaled_positions(wrap=False)
    return Structure(Lattice(atoms.cell.array), atoms.get_chemical_symbols(), frac, site_properties=properties)


def _matters(warning: warnings.WarningMessage) -> bool:
    """Whether a warning is about the input, not about pymatgen's own code."""
    return not issubclass(warning.category, (DeprecationWarning, FutureWarning, ResourceWarning)) and "OLD_ERROR_HANDLING" not in str(
        warning.message
    )


def _sentence(warning: warnings.WarningMessage) -> str:
    return " ".join(str(warning.message).split())
