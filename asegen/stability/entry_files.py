"""Competing phases from the files people have, and from the Materials Project."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..calculators.potentials import MP2020, RAW_PBE
from ..errors import DataError, StabilityError
from .entries import Entry, EntrySet, Phases, fractions_of
from .scales import common_scale, corrected, corrected_composition, elemental_references

_FORMATION = "formation_energy_per_atom"
_ENERGY = "energy_per_atom"
_NAMES = ("material_id", "entry_id", "id", "name")
_FORMULAS = ("formula", "pretty_formula", "formula_pretty", "composition")
_CORRECTED = "MP2020"
_HOW = f"name its scale: {RAW_PBE!r} or {MP2020!r} (--reference-scale), or the scale of your own calculator"


def read_entries(path: str | Path, scale: str | None = None) -> EntrySet:
    """Entries of a reference file, brought to the scale of the hull.

    Parameters
    ----------
    path : str or Path
        - ``.csv``, ``.csv.gz`` with a column ``formula`` and either ``formation_energy_per_atom`` or ``energy_per_atom`` (eV/atom);
          ``material_id`` is taken as the name.
        - ``.json``, ``.json.gz`` of pymatgen: a list (or a dict that holds one under ``entries``) of `ComputedEntry`,
          `ComputedStructureEntry` or `PDEntry`, or a `PhaseDiagram`, as dicts.
    scale : str, optional
        On which scale the energies are: ``"PBE(+U)"``, which is then corrected, ``"MP2020"``, or the scale of a calculator of your own.
        Default: formation energies count as MP2020; entries that carry pymatgen's corrections say it themselves; everything
        else is refused.

    Returns
    -------
    EntrySet
        Rows that cannot be read are in its `broken`, each with the reason.

    Raises
    ------
    DataError
        The file does not exist, is of no known kind, or cannot be read at all.
    StabilityError
        The scale is not known, or no row has an energy.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist" if not path.exists() else f"{path} is not a file of entries")
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    if kind == ".csv":
        return _from_csv(path, scale)
    if kind == ".json":
        return _from_json(path, scale)
    raise DataError(f"{path}: unknown kind of reference; known are .csv and .json (pymatgen), also with .gz")


class MaterialsProject:
    """Competing phases from the interface of the Materials Project, asked once for each chemical system.

    Parameters
    ----------
    key : str, optional
        Default: ``$MP_API_KEY``, else ``$PMG_MAPI_KEY``.

    Raises
    ------
    StabilityError
        There is no key.
    """

    scale = MP2020
    name = "Materials Project (online)"
    potential = None

    def __init__(self, key: str | None = None) -> None:
        self._key = key or os.environ.get("MP_API_KEY") or os.environ.get("PMG_MAPI_KEY") or ""
        if not self._key:
            raise StabilityError(
                "the Materials Project asks for a key: get one at materialsproject.org/api and put it into MP_API_KEY; "
                "or go without it (no --reference: competing phases are then made here)"
            )
        self._known: dict[frozenset[str], Phases] = {}

    def prepare(self, systems: Iterable[frozenset[str]]) -> None:
        """Nothing is to be prepared: each system is asked for by itself."""

    def phases(self, elements: frozenset[str]) -> Phases:
        """Phases that hold no other elements than these.

        Raises
        ------
        StabilityError
            The Materials Project does not answer, or refuses the key.
        """
        if elements not in self._known:
            self._known[elements] = self._ask(elements)
        return self._known[elements]

    def _ask(self, elements: frozenset[str]) -> Phases:
        from pymatgen.ext.matproj import MPRester

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = MPRester(self._key).get_entries_in_chemsys(sorted(elements))
        except Exception as error:  # whatever the network and its library raise
            raise StabilityError(f"the Materials Project did not answer ({type(error).__name__}: {error})") from error
        entries, broken, _ = _entries_of([_numbers_of(entry) for entry in found], self.name, MP2020)
        missing = tuple(f"{len(broken)} entries that cannot be read (first: {broken[0]})" for _ in broken[:1])
        return Phases(tuple(entries), f"{self.name}, scale {MP2020} (pymatgen's corrections)", missing)


# ------------------------------------------------------------------------------------------------------------------ tables


def _from_csv(path: Path, scale: str | None) -> EntrySet:
    csv.field_size_limit(2**31 - 1)
    try:
        with _text(path) as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            formula = next((name for name in _FORMULAS if name in columns), None)
            column = next((name for name in (_FORMATION, _ENERGY) if name in columns), None)
            if formula is None or column is None:
                raise DataError(f"{path} needs the columns formula and {_FORMATION} or {_ENERGY} (it has: {', '.join(columns) or 'none'})")
            name = next((name for name in _NAMES if name in columns), "")
            rows = [(row.get(name) or f"row {number}", row[formula] or "", row[column] or "") for number, row in enumerate(reader, start=1)]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    if column == _FORMATION:
        return _formation_entries(path, rows, scale)
    if scale is None:
        raise StabilityError(f"{path} holds energies of an unknown scale; {_HOW}")
    entries, broken = [], []
    for called, written, value in rows:
        try:
            energy = _number(value)
            fractions_of(written)
            energy = corrected_composition(written, energy) if scale == RAW_PBE else energy
            entries.append(Entry(written, energy, common_scale(scale), path.name, called))
        except StabilityError as error:
            broken.append(f"{called}: {error}")
    note = "corrected from the formulas alone: peroxides are known only by common formulas" if scale == RAW_PBE else "scale as given"
    return EntrySet(entries, path.name, note, broken)


def _formation_entries(path: Path, rows: Sequence[tuple[str, str, str]], scale: str | None) -> EntrySet:
    """Formation energies as energies: with the elements of the Materials Project, which are the zero of this scale."""
    if scale not in (None, MP2020):
        raise StabilityError(
            f"{path} holds formation energies on the scale {scale}, whose elements are not known; give a column {_ENERGY} instead, "
            "with rows for the elements"
        )
    elements = {symbol: reference.energy_per_atom for symbol, reference in elemental_references().items()}
    entries, broken = [], []
    for called, formula, value in rows:
        try:
            energy = _number(value)
            fractions = fractions_of(formula)
            if unknown := [symbol for symbol in fractions if symbol not in elements]:
                raise StabilityError(f"no elemental energy of {', '.join(unknown)} is known")
        except StabilityError as error:
            broken.append(f"{called}: {error}")
            continue
        energy += sum(share * elements[symbol] for symbol, share in fractions.items())
        entry = Entry(formula, energy, MP2020, path.name, called)
        entry.__dict__["fractions"] = fractions  # known already; 50,000 formulas are not read twice
        entries.append(entry)
    how = "as given" if scale else f"formation energies, taken to be {MP2020}"
    return EntrySet(entries, path.name, f"{how}; elements of the Materials Project are the zero", broken)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise StabilityError(f"{text!r} is no energy" if text else "it has no energy")
    return value


# ---------------------------------------------------------------------------------------------------------------- pymatgen


def _from_json(path: Path, scale: str | None) -> EntrySet:
    try:
        with _text(path) as stream:
            content = json.load(stream)
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    listed = _listed(content)
    if listed is None:
        raise DataError(f"{path} holds no entries of pymatgen (a list of them, a dict with 'entries', or a phase diagram)")
    read: list[dict[str, Any] | str] = []
    for number, item in enumerate(listed, start=1):
        try:
            read.append(_numbers_of(_decoded(item)))
        except Exception as error:  # pymatgen raises whatever a broken dict makes it raise
            read.append(f"entry {number}: {type(error).__name__}: {error}")
    entries, broken, note = _entries_of(read, path.name, scale)
    return EntrySet(entries, path.name, note, broken)


def _listed(content: Any) -> list[Any] | None:
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        return None
    for holder in (content, content.get("computed_data")):  # PhaseDiagram, older and today's
        if isinstance(holder, dict) and isinstance(holder.get("all_entries"), list):
            return list(holder["all_entries"])
    if isinstance(content.get("entries"), list):
        return list(content["entries"])
    if "composition" in content and "energy" in content:
        return [content]
    if content and all(isinstance(value, dict) and "energy" in value for value in content.values()):
        return list(content.values())
    return None


def _decoded(item: Any) -> Any:
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

    if not isinstance(item, dict):
        raise ValueError(f"{str(item)[:40]!r} is no entry")
    item = {key: value for key, value in item.items() if not key.startswith("@")} | {"@class": item.get("@class", "")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if item["@class"] == "PDEntry" or ("energy_adjustments" not in item and "correction" not in item and "parameters" not in item):
            return PDEntry.from_dict(item)
        return (ComputedStructureEntry if "structure" in item else ComputedEntry).from_dict(item)


def _numbers_of(entry: Any) -> dict[str, Any]:
    """What is needed of an entry of pymatgen: energies with and without corrections, eV/atom."""
    count = float(entry.composition.num_atoms)
    adjustments = [adjustment.name or "" for adjustment in getattr(entry, "energy_adjustments", ())]
    raw = getattr(entry, "uncorrected_energy", entry.energy)
    if not (math.isfinite(entry.energy) and math.isfinite(raw)):
        raise ValueError("its energy is not finite")
    structure = getattr(entry, "structure", None)
    return {
        "formula": entry.composition.formula.replace(" ", ""),
        "energy": float(entry.energy) / count,
        "raw": float(raw) / count,
        "scheme": MP2020 if adjustments and all(name.startswith(_CORRECTED) for name in adjustments) else "other" if adjustments else "",
        "name": str(getattr(entry, "entry_id", None) or getattr(entry, "name", "") or entry.composition.reduced_formula),
        "structure": structure,
    }


def _entries_of(read: Iterable[dict[str, Any] | str], source: str, scale: str | None) -> tuple[list[Entry], list[str], str]:
    """Entries on one scale, what was broken, and how the scale is known."""
    broken = [item for item in read if isinstance(item, str)]
    good = [item for item in read if not isinstance(item, str)]
    schemes = {item["scheme"] for item in good}
    if scale is None and good:
        if MP2020 not in schemes or "other" in schemes:
            what = "corrections of an unknown scheme" if "other" in schemes else "no corrections"
            raise StabilityError(f"the entries of {source} carry {what}, so their scale is not known; {_HOW}")
        scale, how = MP2020, "known by its corrections"  # metals carry none
    else:
        how = "scale as given"
    entries = []
    for item in good:
        try:
            energy = _on_scale(item, str(scale))
            entry = Entry(item["formula"], energy, common_scale(str(scale)), source, item["name"], _atoms_of(item["structure"]))
            fractions_of(entry.formula)
            entries.append(entry)
        except StabilityError as error:
            broken.append(f"{item['name']}: {error}")
    return entries, broken, f"raw PBE(+U) energies, corrected here; {how}" if scale == RAW_PBE else how


def _on_scale(item: dict[str, Any], scale: str) -> float:
    if scale != RAW_PBE:
        return float(item["energy"])
    atoms = _atoms_of(item["structure"])
    if atoms is None:
        return corrected_composition(item["formula"], item["raw"])
    return corrected(atoms, item["raw"] * len(atoms), RAW_PBE).energy / len(atoms)


def _atoms_of(structure: Any) -> Any:
    from ase import Atoms

    if structure is None:
        return None
    symbols = [site.specie.symbol for site in structure]
    return Atoms(symbols, scaled_positions=structure.frac_coords, cell=structure.lattice.matrix, pbc=True)


def _text(path: Path) -> Any:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


__all__ = ["MaterialsProject", "read_entries"]
