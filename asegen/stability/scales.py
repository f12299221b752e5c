"""Energy scales: what energies may be compared, and the way from raw PBE(+U) to the scale of the Materials Project's hull.

A crystal's energy above the hull is a small difference of large numbers, so all of them must come from one scale. Here the
scale stands beside every energy, and there is one way only from one scale to another: `corrected`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from ase import Atoms

from ..calculators.potentials import MP2020, RAW_PBE
from ..errors import StabilityError

_KIND = "MP2020 "  # begins the name of every correction that pymatgen makes


@dataclass(frozen=True)
class Corrected:
    """An energy on the scale of `MP2020`, and how it got there."""

    energy: float
    """eV of the whole cell."""
    corrections: tuple[tuple[str, float], ...]
    """What was added: ``("anion correction (oxide)", -2.061)``, eV of the whole cell; nothing for metals and for energies that
    were on the scale already."""

    @property
    def correction(self) -> float:
        """Sum of the corrections, eV of the whole cell."""
        return float(sum(value for _, value in self.corrections))


def corrected(atoms: Atoms, energy: float, scale: str) -> Corrected:
    """An energy of PBE(+U) brought to the scale of the Materials Project's hull.

    Oxides, peroxides and superoxides are told apart by the O–O distances of the structure, anions by the oxidation states that
    pymatgen guesses from the formula; oxides and fluorides of V, Cr, Mn, Fe, Co, Ni, Mo and W count as computed with U, which
    is what potentials trained on the Materials Project learned.

    Parameters
    ----------
    atoms : Atoms
        The crystal.
    energy : float
        Its energy, eV of the whole cell.
    scale : str
        `RAW_PBE`, or `MP2020`, for which nothing is added.

    Returns
    -------
    Corrected

    Raises
    ------
    StabilityError
        The scale is another one, for which there are no corrections.

    References
    ----------
    Wang et al., Sci. Rep. 11, 15496 (2021), as implemented in pymatgen.
    """
    if scale == MP2020:
        return Corrected(float(energy), ())
    if scale != RAW_PBE:
        raise StabilityError(f"energies on the scale {scale} cannot be brought to the scale {MP2020}; only those of {RAW_PBE} can")
    from pymatgen.core import Composition, Lattice, Structure
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    symbols = atoms.get_chemical_symbols()
    # the structure alone: a calculator must not travel along
    structure = Structure(Lattice(atoms.cell.array), symbols, atoms.get_scaled_positions(wrap=False))
    entry = ComputedStructureEntry(structure, float(energy), parameters=run_parameters(Composition("".join(symbols))))
    return Corrected(float(energy), ()) if len(set(symbols)) == 1 else _adjusted(entry, float(energy))


def corrected_composition(formula: str, energy_per_atom: float) -> float:
    """As `corrected`, per atom, where there is only a formula: peroxides and superoxides are known by common formulas only.

    Parameters
    ----------
    formula : str
    energy_per_atom : float
        eV/atom, on the scale `RAW_PBE`.

    Returns
    -------
    float
        eV/atom on the scale `MP2020`.
    """
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    composition = Composition(formula)
    if len(composition) == 1:
        return float(energy_per_atom)
    energy = float(energy_per_atom) * composition.num_atoms
    entry = ComputedEntry(composition, energy, parameters=run_parameters(composition))
    return _adjusted(entry, energy).energy / float(composition.num_atoms)


def run_parameters(composition: Any) -> dict[str, Any]:
    """With which settings the Materials Project computes a composition (pymatgen's MPRelaxSet), as pymatgen's entries name them.

    Parameters
    ----------
    composition : pymatgen Composition

    Returns
    -------
    dict
        ``run_type``, ``hubbards`` (eV) and ``potcar_spec``.
    """
    potcars, hubbards = _settings()
    elements = sorted(composition.elements, key=lambda element: element.X)
    rules = hubbards.get(elements[-1].symbol, {})
    values = {e.symbol: float(rules.get(e.symbol, 0.0)) for e in elements}
    with_u = any(values.values())
    return {
        "run_type": "GGA+U" if with_u else "GGA",
        "is_hubbard": with_u,
        "hubbards": values if with_u else {},
        "potcar_spec": [{"titel": f"PAW_PBE {potcars[e.symbol]} 06Sep2000", "hash": None} for e in elements if e.symbol in potcars],
    }


def common_scale(scale: str) -> str:
    """The scale on which a hull is made of energies of a scale: `MP2020` for PBE(+U), with and without corrections, else their own."""
    return MP2020 if scale in (RAW_PBE, MP2020) else scale


def refuse_mixing(first: str, what_first: str, second: str, what_second: str) -> None:
    """Raise where two energies cannot be compared.

    Raises
    ------
    StabilityError
        The scales differ, and there is no way from one to the other; the sentence names both.
    """
    if common_scale(first) != common_scale(second):
        raise StabilityError(
            f"{what_first} is on the energy scale {first}, {what_second} on {second}; energies of different scales cannot be compared: "
            "use a reference computed with the same potential, or none (competing phases are then made)"
        )


@dataclass(frozen=True)
class ElementalReference:
    """The ground state of an element in the Materials Project."""

    symbol: str
    """Of the element."""
    energy_per_atom: float
    """eV/atom, PBE; MP2020 corrects no element, so it is on both scales."""
    material_id: str
    """In the Materials Project."""
    atoms: Atoms
    """Its structure; 1 to 64 atoms."""


@lru_cache(maxsize=1)
def elemental_references() -> Mapping[str, ElementalReference]:
    """Ground states of 89 elements (H to Pu without Po, At, Rn, Fr, Ra), by symbol.

    References
    ----------
    Materials Project (CC BY 4.0), Jain et al., APL Mater. 1, 011002 (2013); table of matbench-discovery (MIT).
    """
    content = json.loads((files("asegen") / "assets" / "elemental_references.json").read_text(encoding="utf-8"))
    found = {}
    for symbol, entry in content["elements"].items():
        frac = np.array(entry["frac"]).reshape(-1, 3)
        atoms = Atoms([symbol] * len(frac), scaled_positions=frac, cell=np.array(entry["cell"]).reshape(3, 3), pbc=True)
        found[symbol] = ElementalReference(symbol, float(entry["energy_per_atom"]), entry["material_id"], atoms)
    return found


@lru_cache(maxsize=1)
def elemental_offsets() -> Mapping[str, Mapping[str, float]]:
    """How far a packaged potential puts each element above the Materials Project's energy of it, eV/atom: potential, symbol, offset.

    Made by ``data/make_elemental_offsets.py``; elements whose ground state has more than 20 atoms are left out.
    """
    content = json.loads((files("asegen") / "assets" / "elemental_offsets.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, float]] = content["offsets"]
    return found


def formation_energy(fractions: Mapping[str, float], energy_per_atom: float, elements: Mapping[str, float]) -> float:
    """Energy of formation from the elements.

    Parameters
    ----------
    fractions : mapping of element symbol to float
        Composition by atoms; they sum to 1.
    energy_per_atom : float
        eV/atom.
    elements : mapping of element symbol to float
        Energies of the elements, eV/atom, on the same scale.

    Returns
    -------
    float
        eV/atom.

    Raises
    ------
    StabilityError
        The energy of an element is not known.
    """
    if missing := [symbol for symbol in fractions if symbol not in elements]:
        raise StabilityError(f"the energy of elemental {', '.join(missing)} is not known")
    return energy_per_atom - sum(share * elements[symbol] for symbol, share in fractions.items())


def _adjusted(entry: Any, energy: float) -> Corrected:
    from pymatgen.analysis.compatibility import CompatibilityError

    entry.data["oxidation_states"] = dict(_oxidation_states(entry.composition.reduced_formula))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = _scheme().get_adjustments(entry)
        except CompatibilityError as error:
            raise StabilityError(f"pymatgen cannot correct the energy of {entry.composition.reduced_formula}: {error}") from error
    parts = tuple((adjustment.name.removeprefix(_KIND), float(adjustment.value)) for adjustment in found)
    parts = tuple((name.removeprefix(f"{_scheme().name} "), value) for name, value in parts)
    return Corrected(energy + sum(value for _, value in parts), parts)


@lru_cache(maxsize=1)
def _scheme() -> Any:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    # the settings are those of MPRelaxSet by construction, so the names of the pseudopotentials need no check
    return MaterialsProject2020Compatibility(check_potcar=False)


@lru_cache(maxsize=1)
def _settings() -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    from pymatgen.io.vasp.sets import MPRelaxSet

    return MPRelaxSet.CONFIG["POTCAR"], MPRelaxSet.CONFIG["INCAR"]["LDAUU"]


@lru_cache(maxsize=65536)
def _oxidation_states(formula: str) -> tuple[tuple[str, float], ...]:
    """As pymatgen's scheme guesses them, which takes long for some formulas."""
    from pymatgen.core import Composition

    try:
        guesses = Composition(formula).oxi_state_guesses(max_sites=-20)
    except ValueError:  # too many atoms
        return ()
    return tuple(guesses[0].items()) if guesses else ()


__all__ = [
    "Corrected",
    "ElementalReference",
    "common_scale",
    "corrected",
    "corrected_composition",
    "elemental_offsets",
    "elemental_references",
    "formation_energy",
    "refuse_mixing",
    "run_parameters",
]
