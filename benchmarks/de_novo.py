"""De novo generation: validity, charge balance, and distributions beside those of the training data.

    pip install smact
    python benchmarks/de_novo.py [--checkpoint default] [-n 1000] [--data ARRAYS] [--picture FILE.png] [--json FILE]

structural validity   no two atoms (own images included) closer than 0.5 Å, volume above 0.1 Å³
charge balance        SMACT's validity with its 2014 oxidation states, metals and pure elements allowed
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from asegen import generate, load_checkpoint
from asegen.datasets import CrystalArrays
from asegen.report import summarize


def density(atoms):
    return atomic_masses[atoms.numbers].sum() / atoms.get_volume() * 1.66054


def main():
    from smact.screening import smact_validity

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--walk", nargs="*", help="steps=50 temperature=0.7 …; default: the checkpoint's")
    parser.add_argument("--data", help="training arrays to compare with")
    parser.add_argument("--picture")
    parser.add_argument("--json")
    args = parser.parse_args()

    start = time.time()
    checkpoint = load_checkpoint(args.checkpoint)
    if args.walk:
        walk = dict(entry.split("=") for entry in args.walk)
        checkpoint = replace(checkpoint, header={**checkpoint.header, "walk": {key: float(value) for key, value in walk.items()}})
    crystals = generate(n=args.n, seed=args.seed, checkpoint=checkpoint)
    seconds = time.time() - start
    rows = [summarize(atoms) for atoms in crystals]
    formulas = [atoms.symbols.formula.reduce()[0].format("metal") for atoms in crystals]
    balanced = [bool(smact_validity(f, oxidation_states_set="smact14", include_alloys=True)) for f in formulas]
    result = {
        "n": len(crystals),
        "structural validity %": round(100 * np.mean([row.valid for row in rows]), 2),
        "charge balanced %": round(100 * np.mean(balanced), 1),
        "unique formulas %": round(100 * len(set(formulas)) / len(formulas), 1),
        "P1 % (spglib, symprec 0.1)": round(100 * np.mean([row.spacegroup <= 1 for row in rows]), 1),
        "s/structure": round(seconds / len(crystals), 4),
    }
    ours = {
        "density (g/cm³)": np.array([density(a) for a in crystals]),
        "number of elements": np.array([len(set(a.numbers)) for a in crystals]),
        "atoms per cell": np.array([len(a) for a in crystals]),
    }
    theirs = None
    if args.data:
        from scipy.stats import wasserstein_distance

        arrays = CrystalArrays.open(args.data)
        chosen = np.random.default_rng(0).choice(len(arrays), min(5000, len(arrays)), replace=False)
        real = arrays.batch(chosen).to_atoms()
        theirs = {
            "density (g/cm³)": np.array([density(a) for a in real]),
            "number of elements": np.array([len(set(a.numbers)) for a in real]),
            "atoms per cell": np.array([len(a) for a in real]),
        }
        for name in ours:
            result[f"earth mover's distance, {name}"] = round(float(wasserstein_distance(ours[name], theirs[name])), 3)
    print(json.dumps(result, indent=1))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    if args.picture:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 3.2), layout="constrained")
        for axis, (name, values) in zip(figure.subplots(1, 3), ours.items(), strict=True):
            both = values if theirs is None else np.concatenate([values, theirs[name]])
            whole = np.issubdtype(values.dtype, np.integer)
            bins = np.arange(both.min(), both.max() + 2) - 0.5 if whole else np.linspace(0, np.quantile(both, 0.995), 40)
            axis.hist(values, bins, density=True, alpha=0.6, label=f"generated ({len(values)})")
            if theirs is not None:
                axis.hist(theirs[name], bins, density=True, histtype="step", lw=1.5, color="k", label="training data")
            axis.set_xlabel(name)
            axis.legend()
        figure.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()
