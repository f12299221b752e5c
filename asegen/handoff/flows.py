"""Workflows of atomate2 (jobflow) as JSON: made here, run where VASP and a job store are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import HandoffError, MissingPackageError
from .vasp import structure_of

FILE = "flow.json"
#: Name to (module below atomate2.vasp.flows, class, kind of energy).
FLOWS = {
    "mp-gga": ("mp", "MPGGADoubleRelaxStaticMaker", "vasp:PBE:mp-gga"),
    "mp-r2scan": ("mp", "MPMetaGGADoubleRelaxStaticMaker", "vasp:r2SCAN:mp-r2scan"),
    "mp24": ("mp", "MP24DoubleRelaxStaticMaker", "vasp:r2SCAN:mp24"),
    "matpes": ("matpes", "MatPesStaticFlowMaker", "vasp:PBE+r2SCAN:matpes"),
}


class Flows:
    """One flow for each crystal, joined in one.

    Parameters
    ----------
    kind : str
        See :func:`flow_of`.
    """

    def __init__(self, kind: str = "mp-gga") -> None:
        self.kind = kind
        self.maker = _maker(kind)
        self.flows: list[Any] = []

    def add(self, atoms: Atoms, row: dict[str, Any]) -> dict[str, Any]:
        """A flow for one crystal; `row` (its provenance) becomes the metadata of every job of it."""
        scale = FLOWS[self.kind][2]
        if self.kind == "mp-gga" and _has_u(atoms):
            scale = scale.replace("PBE", "PBE+U")
        about = {"code": "vasp", "calculation": "flow", "flow": self.kind, "energy_scale": scale}
        self.flows.append(flow_of(atoms, {**row, **about}, self.kind, self.maker))
        return about

    def write(self, folder: Path) -> None:
        """Write ``flow.json``."""
        from jobflow import Flow
        from monty.json import MontyEncoder

        whole = Flow(self.flows, name="asegen")
        (folder / FILE).write_text(json.dumps(whole, cls=MontyEncoder), encoding="utf-8")


def flow_of(atoms: Atoms, row: dict[str, Any], kind: str = "mp-gga", maker: Any = None) -> Any:
    """A ``jobflow.Flow`` for one crystal.

    Parameters
    ----------
    atoms : ase.Atoms
    row : dict
        Kept as ``metadata["asegen"]`` of every job, and so in every document that the job store gets.
    kind : str
        "mp-gga" (PBE with U: two relaxations and a static run), "mp-r2scan" (the same, PBEsol first and then r2SCAN), "mp24" (today's
        r2SCAN protocol of the Materials Project), "matpes" (static PBE and r2SCAN).
    maker : optional
        The maker, if it is there already.

    Raises
    ------
    HandoffError
        An unknown kind.
    MissingPackageError
        jobflow or atomate2 is not installed.
    """
    maker = maker or _maker(kind)
    structure = structure_of(atoms)
    structure.remove_site_property("asegen_index")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flow = maker.make(structure)
    flow.name = f"{row['name']} {flow.name}"
    flow.update_metadata({"asegen": json.loads(json.dumps(row, default=_number))})
    return flow


def _has_u(atoms: Atoms) -> bool:
    """Whether the Materials Project's GGA protocol gives the crystal a U; its energies do not go with those without."""
    from pymatgen.io.vasp.sets import MPRelaxSet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(MPRelaxSet(structure_of(atoms)).incar.get("LDAU"))


def _maker(kind: str) -> Any:
    if kind not in FLOWS:
        raise HandoffError(f"unknown flow {kind!r}; known: {', '.join(FLOWS)}")
    module, name, _ = FLOWS[kind]
    try:
        from importlib import import_module

        import jobflow  # noqa: F401

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(import_module(f"atomate2.vasp.flows.{module}"), name)()
    except ImportError as error:
        raise MissingPackageError("flows need jobflow and atomate2; install them with: pip install jobflow atomate2") from error


def _number(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no plain value")
