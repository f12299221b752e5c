"""Energies of 7net-0 (raw PBE(+U), eV/atom) for crystals of training arrays whose energies are not published.

    python data/make_potential_energies.py ARRAYS OUT.csv [--minutes M] [--all]

ARRAYS come from `data/make_default_data.py`. Evaluated as they stand (they are relaxed by DFT): formulas with several entries of which
one has no published energy, with an entry that has one (to bring both to one scale), then, with --all, what else has none. Results
are appended one by one; the same command goes on where it was stopped.
"""

import argparse
import csv
import os
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.formula import Formula

from asegen.calculators.potentials import potential
from asegen.datasets import CrystalArrays

warnings.filterwarnings("ignore")
MOST_ATOMS = 60


def wanted(materials, every):
    """Positions of the crystals to evaluate, simple chemistry first."""
    by_formula = defaultdict(list)
    for k, row in enumerate(materials):
        row["reduced"] = "".join(f"{e}{n}" for e, n in sorted(Formula(row["formula"]).reduce()[0].count().items()))
        by_formula[row["reduced"]].append(k)
    chosen, rest = [], []
    for members in by_formula.values():
        given = ("formation_energy_per_atom", "formation_energy_per_atom_legacy")
        bare = [k for k in members if not any(materials[k][name] for name in given)]
        if len(members) > 1 and bare:
            known = [k for k in members if materials[k]["formation_energy_per_atom"]]
            legacy = [k for k in members if materials[k]["formation_energy_per_atom_legacy"] and k not in known]
            known.sort(key=lambda k: float(materials[k]["formation_energy_per_atom"]))
            legacy.sort(key=lambda k: float(materials[k]["formation_energy_per_atom_legacy"]))
            chosen += [*bare, *known[:2], *legacy[: 2 if not known else 0]]
        else:
            rest += bare

    def simple(k):
        return (len(Formula(materials[k]["formula"]).count()), len(Formula(materials[k]["formula"])), k)

    return sorted(chosen, key=simple) + (sorted(rest, key=simple) if every else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()

    from sevenn import _keys as key
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph

    torch.set_num_threads(1)
    arrays = CrystalArrays.open(args.arrays)
    with open(args.arrays / "materials.csv") as stream:
        materials = list(csv.DictReader(stream))
    calculator = potential("7net-0", device="cpu").calculator()
    knows = potential("7net-0", device="cpu").elements
    model = calculator.model
    # energies alone cost a third of energies and forces
    model.delete_module_by_key("force_output") if hasattr(model, "delete_module_by_key") else model._modules.pop("force_output")
    done = set()
    if args.out.exists():
        with open(args.out) as stream:
            done = {row["material_id"] for row in csv.DictReader(stream)}
    todo = [k for k in wanted(materials, args.all) if materials[k]["material_id"] not in done and arrays.num_atoms[k] <= MOST_ATOMS]
    print(len(todo), "to do,", len(done), "done", flush=True)
    end = time.monotonic() + 60 * args.minutes
    with open(args.out, "a", newline="") as stream:
        writer = csv.writer(stream)
        if not done:
            writer.writerow(("material_id", "energy_per_atom"))
        for count, k in enumerate(todo, 1):
            atoms_of = slice(arrays.offsets[k], arrays.offsets[k + 1])
            atoms = Atoms(numbers=arrays.numbers[atoms_of], scaled_positions=arrays.frac[atoms_of], cell=arrays.cell[k], pbc=True)
            if set(atoms.numbers.tolist()) - knows:
                continue
            with torch.no_grad():
                data = AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, calculator.cutoff, with_shift=False))
                energy = float(model(data)[key.PRED_TOTAL_ENERGY]) / len(atoms)
            if np.isfinite(energy):
                writer.writerow((materials[k]["material_id"], f"{energy:.5f}"))
            if count % 500 == 0:
                stream.flush()
                print(count, "of", len(todo), flush=True)
            if time.monotonic() > end:
                break


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
