"""Is every training crystal found again, with its own cell? And do known polymorphs stand in the order of their published energies?

    python benchmarks/known_crystals.py FILE [-n 1000] [--model default] [--elements 1] [--where COLUMN=VALUE]

FILE holds crystals that the model was trained on. A crystal is found if one of the known crystals of its composition has its space group
(spglib, symprec 0.1 Å) and its volume within 3 %; the length error is the largest relative difference of the standard conventional
cells' three lengths to the nearest of those. Pairs of crystals of one composition in FILE whose published energies (``e_above_hull``)
differ by more than 10 meV/atom are in order if the lower one comes first in the list.
"""

import argparse
import warnings
from collections import defaultdict

import numpy as np
import spglib
from matching import composition_of, validation_rows

warnings.filterwarnings("ignore")


def described(atoms):
    """Space group, conventional lengths and volume per atom."""
    found = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=0.1)
    if found is None:
        return None
    return found.number, np.linalg.norm(found.std_lattice, axis=1), atoms.get_volume() / len(atoms)


def main():
    from asegen import load_prototypes
    from asegen.formulas import formula_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--model", default="default")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-atoms", type=int, default=100)
    parser.add_argument("--elements", type=int, help="only crystals of so many elements")
    parser.add_argument("--where", action="append", default=[])
    args = parser.parse_args()

    model = load_prototypes(args.model)
    every = validation_rows(args.file, 10**9, args.seed, args.where, (1, args.max_atoms), energy="e_above_hull")
    if args.elements:
        every = [atoms for atoms in every if len(set(atoms.numbers)) == args.elements]
    chosen = np.random.default_rng(args.seed).permutation(len(every))[: args.n]
    missing, errors = [], []
    for k in chosen:
        truth = described(every[k])
        if truth is None:
            continue
        near = []
        for candidate in model.rank(every[k].numbers)[0]:
            made = described(candidate.crystal()[0]) if candidate.known else None
            if made is not None and made[0] == truth[0] and abs(made[2] / truth[2] - 1) < 0.03:
                near.append(np.abs(np.sort(made[1]) / np.sort(truth[1]) - 1).max())
        (errors.append(min(near)) if near else missing.append(f"{formula_of(every[k].numbers)} {truth[0]}"))
    count = len(errors) + len(missing)
    print(f"{count} crystals, {100 * len(errors) / count:.1f} % found again with group and volume")
    print(f"length error: median {100 * np.median(errors):.3f} %, 95th percentile {100 * np.quantile(errors, 0.95):.2f} %")
    print("not found, for example:", ", ".join(missing[:20]))

    by_composition = defaultdict(list)
    for atoms in every:
        if np.isfinite(atoms.info["energy"]):
            by_composition[composition_of(atoms.numbers)].append(atoms)
    several = [members for members in by_composition.values() if len(members) > 1]
    right = pairs = 0
    for members in several[: 3 * args.n]:
        order = {candidate.material_id: place for place, candidate in enumerate(model.rank(members[0].numbers)[0]) if candidate.known}
        places = [(order[name], atoms.info["energy"]) for atoms in members if (name := atoms.info["name"]) in order]
        for i, (first, low) in enumerate(places):
            for second, high in places[:i]:
                if abs(low - high) > 0.01 and first != second:
                    pairs += 1
                    right += (first < second) == (low < high)
    if pairs:
        share = 100 * right / pairs
        print(f"{pairs} pairs of polymorphs more than 10 meV/atom apart, {share:.1f} % in the order of their published energies")


if __name__ == "__main__":
    main()
