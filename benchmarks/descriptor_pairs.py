"""Does the descriptor tell structures apart? Pairs of crystals of the same formula that differ but have close descriptors.

    python benchmarks/descriptor_pairs.py FILE [--pairs 2000]

All pairs of crystals in FILE with the same atoms are compared: by pymatgen's StructureMatcher (the papers' tolerances; rms < 0.1 is
"the same") and by the rms residual of their descriptors, each in its own cell. A good descriptor has small residuals for the same
structures only.
"""

import argparse
from collections import defaultdict
from itertools import combinations

import numpy as np

from asegen.crystals import CrystalBatch
from asegen.descriptors.ead import OURS, PAPER
from asegen.descriptors.target import Target
from asegen.metrics import crystal_set, match


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--pairs", type=int, default=2000)
    options = parser.parse_args()
    crystals = crystal_set(options.file)
    groups = defaultdict(list)
    for i in np.nonzero(crystals.good)[0].tolist():
        groups[tuple(np.sort(crystals.rows[i].numbers).tolist())].append(i)
    pairs = [pair for members in groups.values() for pair in combinations(members, 2)]
    pairs = [pairs[k] for k in np.sort(np.random.default_rng(0).permutation(len(pairs))[: options.pairs])]
    first, second = (crystals.subset([pair[k] for pair in pairs]) for k in (0, 1))
    rms = match(first, second, polymorphs=False).row_rms
    same = rms < 0.1
    print(f"{len(pairs)} pairs with the same atoms, {int(same.sum())} the same structure (rms < 0.1), {int((~same).sum())} others")
    print(f"{'descriptor':22s} {'numbers':>8s}  others closer than .005  .01  .02  .05  .1   same, median residual   others, 1 % quantile")
    for name, ead in (("ours", OURS), ("paper", PAPER)):
        for pooling in ("sites", "moments", "extrema"):
            residuals = np.array([residual(a, b, ead, pooling) for a, b in zip(first.atoms, second.atoms, strict=True)])
            other = residuals[~same]
            counts = "".join(f"{int((other < limit).sum()):5d}" for limit in (0.005, 0.01, 0.02, 0.05, 0.1))
            size = {"sites": "N x " + str(ead.size), "moments": str(4 * ead.size), "extrema": str(2 * ead.size)}[pooling]
            print(
                f"{name + ', ' + pooling:22s} {size:>8s} {counts:>40s} {np.median(residuals[same]):18.3f} {np.quantile(other, 0.01):24.3f}",
                flush=True,
            )


def residual(a, b, ead, pooling):
    target = Target.of(a, ead, pooling)
    ordered = b[np.argsort(b.numbers, kind="stable")]
    return float(target.loss(ead(CrystalBatch.from_atoms(ordered))[None])) ** 0.5


if __name__ == "__main__":
    main()
