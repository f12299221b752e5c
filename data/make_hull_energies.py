"""Energy above the hull of every crystal of training arrays, into the arrays.

    python data/make_hull_energies.py ARRAYS POTENTIAL.csv DATA

ARRAYS come from `data/make_default_data.py`, POTENTIAL.csv from `data/make_potential_energies.py`, DATA holds ``reference/`` with formation
energies. Written are ``property_e_above_hull.npy`` (eV/atom), ``property_e_above_hull_published.npy`` (0: by the potential) and
``property_material.npy`` (number of the id), and ``hull.csv``, a line for each crystal that says where its energy comes from.

Crystals of one formula are ordered on one scale. In the order of trust:

1. ``published``: energy above the hull of the MP2020 scheme, or the formation energy of that scheme less the hull's energy there;
2. ``legacy``: formation energy of the older scheme, moved by the difference between the schemes at this composition (both correct a
   composition by one number) where a crystal of the formula has both, else above the older scheme's own hull;
3. ``listed``: no energy, but on a list of stable materials: on the hull;
4. ``computed``: 7net-0's energy, moved onto the crystals of the formula that have another one, else as a formation energy (MP2020
   corrections) less the hull's energy.
"""

import argparse
import csv
import gzip
import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
from ase.formula import Formula
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element

from asegen.stability.scales import corrected_composition, elemental_references

warnings.filterwarnings("ignore")
LOWEST = -0.05
"""A potential that finds a crystal further below all published ones of its formula has found a hole of its own, eV/atom."""


class Hulls:
    """Hulls of formation energies (eV/atom, elements are zero), one for each chemical system that is asked for."""

    def __init__(self, file):
        self.lowest = {}
        with gzip.open(file, "rt") as stream:
            for row in csv.DictReader(stream):
                self.add(row["formula"], float(row["formation_energy_per_atom"]))
        self.by_system = defaultdict(list)
        self.made = {}

    def add(self, formula, energy):
        key = reduced(formula)
        self.lowest[key] = min(energy, self.lowest.get(key, np.inf))

    def index(self):
        for key in self.lowest:
            self.by_system[frozenset(Formula(key).count())].append(key)

    def energy(self, formula):
        """Energy of the hull at a composition."""
        composition = Composition(formula)
        elements = frozenset(e.symbol for e in composition.elements)
        if len(elements) == 1:
            return 0.0
        if elements not in self.made:
            entries = [PDEntry(Composition(symbol), 0.0) for symbol in elements]
            for system, keys in self.within(elements):
                if len(system) > 1:
                    entries += [PDEntry(c := Composition(key), self.lowest[key] * c.num_atoms) for key in keys if self.lowest[key] < 0]
            self.made = {elements: PhaseDiagram(entries, [Element(symbol) for symbol in sorted(elements)])}
        return self.made[elements].get_hull_energy_per_atom(composition)

    def within(self, elements):
        symbols = sorted(elements)
        for bits in range(1, 2 ** len(symbols)):
            system = frozenset(s for k, s in enumerate(symbols) if bits >> k & 1)
            if system in self.by_system:
                yield system, self.by_system[system]


@cache
def reduced(formula):
    """Reduced formula, elements sorted; pymatgen reads brackets, ASE reduces."""
    counts = {e: round(n) for e, n in Composition(formula).get_el_amt_dict().items()}
    return "".join(f"{e}{n}" for e, n in sorted(Formula.from_dict(counts).reduce()[0].count().items()))


def number(text):
    return float(text) if text else np.nan


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("potential", type=Path)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()

    with open(args.arrays / "materials.csv") as stream:
        rows = list(csv.DictReader(stream))
    with open(args.potential) as stream:
        potential = {row["material_id"]: float(row["energy_per_atom"]) for row in csv.DictReader(stream)}
    schemes = ("mp2020", "mp_legacy")
    new, old = (Hulls(args.data / f"reference/{scheme}_formation_energies.csv.gz") for scheme in schemes)
    by_formula = defaultdict(list)
    for k, row in enumerate(rows):
        by_formula[reduced(row["formula"])].append(k)
        if row["formation_energy_per_atom"]:
            new.add(row["formula"], float(row["formation_energy_per_atom"]))
        if row["formation_energy_per_atom_legacy"]:
            old.add(row["formula"], float(row["formation_energy_per_atom_legacy"]))
    new.index()
    old.index()
    references = {symbol: reference.energy_per_atom for symbol, reference in elemental_references().items()}

    hull = np.full(len(rows), np.nan)
    source = [""] * len(rows)
    for done, (formula, members) in enumerate(sorted(by_formula.items(), key=lambda item: sorted(Formula(item[0]).count()))):
        own = [rows[k] for k in members]
        above = np.array([number(r["e_above_hull"]) for r in own])
        calculated = np.array([number(r["e_above_hull_calc"]) for r in own])
        formation = np.array([number(r["formation_energy_per_atom"]) for r in own])
        legacy = np.array([number(r["formation_energy_per_atom_legacy"]) for r in own])
        listed = np.array([r["stable_list"] == "1" for r in own])
        computed = np.array([potential.get(r["material_id"], np.nan) for r in own])
        found, kind = above.copy(), np.where(np.isfinite(above), "published", "").astype(object)

        def fill(values, name):
            which = np.isnan(found) & np.isfinite(values)  # noqa: B023
            found[which], kind[which] = values[which], name  # noqa: B023

        if np.isfinite(formation).any():
            level = formation - above if np.isfinite(formation - above).any() else formation - calculated
            fill(formation - (np.nanmedian(level) if np.isfinite(level).any() else new.energy(formula)), "published")
        if np.isfinite(legacy).any():
            shift = np.nanmedian(found - legacy) if np.isfinite(found - legacy).any() else -old.energy(formula)
            fill(legacy + shift, "legacy")
        if not np.isfinite(found).any() and listed.any():
            lowest = computed == np.nanmin(np.where(listed, computed, np.inf))
            fill(np.where(listed & (lowest | (listed.sum() == 1)), 0.0, np.nan), "listed")
            if not np.isfinite(found).any():
                fill(np.where(listed, 0.0, np.nan), "listed")
        if np.isfinite(computed).any():
            if np.isfinite(found - computed).any():
                shifted = computed + np.nanmedian(found - computed)
                fill(np.where(shifted > np.nanmin(found) + LOWEST, shifted, np.nan), "computed")
            elif not np.isfinite(found).any():
                counts = Composition(formula).fractional_composition.get_el_amt_dict()
                if set(counts) <= set(references):
                    each = np.array([corrected_composition(formula, e) if np.isfinite(e) else np.nan for e in computed])
                    fill(each - sum(x * references[e] for e, x in counts.items()) - new.energy(formula), "computed")
        for k, value, name in zip(members, found, kind, strict=True):
            hull[k], source[k] = value, name
        if done % 5000 == 0:
            print(done, "of", len(by_formula), flush=True)

    np.save(args.arrays / "property_e_above_hull.npy", hull.astype(np.float32))
    np.save(args.arrays / "property_e_above_hull_published.npy", np.array([s not in ("", "computed") for s in source], dtype=np.float32))
    ids = [row["material_id"].split("-") for row in rows]
    np.save(args.arrays / "property_material.npy", np.array([float(n) * (1 if kind == "mp" else -1) for kind, n in ids], dtype=np.float32))
    with open(args.arrays / "hull.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("material_id", "formula", "e_above_hull", "source"))
        writer.writerows((r["material_id"], r["formula"], f"{h:.5f}", s) for r, h, s in zip(rows, hull, source, strict=True))
    print({name: source.count(name) for name in sorted(set(source))})


if __name__ == "__main__":
    main()
