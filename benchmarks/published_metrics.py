"""Metrics of real crystals beside the numbers published for them: a check that ours mean the same.

    python benchmarks/published_metrics.py DATA [--cache DIR] [--mp20 2000]

DATA is a folder with perov_5/val.csv.gz, carbon_24/val.csv.gz, mp20/val.csv.gz and mp_stable/{train,test}.csv.gz. The papers
give the same numbers for the test splits ("ground truth" rows of CDVAE's table 2) and for 1,000 random stable structures
against 10 % held back (table 1 of the score model with adaptive cells).
"""

import argparse
import time
from pathlib import Path

import numpy as np

from asegen.metrics import Cache, coverage, crystal_set, diversity, fingerprints, frechet, validity


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--mp20", type=int, default=0, help="only so many random rows of MP-20; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cache = Cache(options.cache) if options.cache else Cache(keep=False)
    rng = np.random.default_rng(options.seed)

    def line(what, ours, published):
        print(f"{what:58s} {ours:>9.4f} {published:>10s}", flush=True)

    print(f"{'':58s} {'here':>9s} {'published':>10s}")
    published = {
        "perov_5": ("100 %", "98.6 %", "0.6357", "12.14"),
        "carbon_24": ("100 %", "-", "0.9106", "-"),
        "mp20": ("100 %", "91.1 %", "1.011", "15.63"),
    }
    for name, (structure, composition, distance, difference) in published.items():
        crystals = crystal_set(options.data / name / "val.csv.gz")
        found = validity(crystals, cache=cache)
        line(f"{name} validation ({len(crystals)}), structure validity %", 100 * found.structure, structure)
        line(f"{name}, composition validity %", 100 * found.composition, composition)
        if name == "mp20" and options.mp20:
            crystals = crystals.subset(np.sort(rng.permutation(len(crystals))[: options.mp20]))
        started = time.perf_counter()
        prints = fingerprints(crystals, cache=cache)
        spread = diversity(crystals, prints=prints)
        line(f"{name} ({spread.n}), diversity of structures", spread.structure, distance)
        line(f"{name}, diversity of compositions", spread.composition, difference)
        print(f"  fingerprints of {len(crystals)}: {time.perf_counter() - started:.0f} s, without one: {sum(map(bool, prints.reasons))}")
    train, test = (crystal_set(options.data / "mp_stable" / f"{part}.csv.gz") for part in ("train", "test"))
    drawn = train.subset(np.sort(rng.permutation(len(train))[:1000]))
    ours, theirs = fingerprints(drawn, cache=cache), fingerprints(test, cache=cache)
    covered = coverage(drawn, test, "mp20", prints=ours, reference_prints=theirs)
    some = np.sort(rng.permutation(len(test))[:1000])
    thousand = test.subset(some)
    distance = frechet(drawn, thousand, prints=ours, reference_prints=fingerprints(thousand, cache=cache))
    line(f"1,000 stable structures against {len(test)} held back, COV-P", covered.precision, "0.998")
    line("the same, COV-R", covered.recall, "0.968")
    line("Fréchet distance, CrystalNN, 1,000 against 1,000", distance.crystalnn, "0.012")
    line("Fréchet distance, network, 1,000 against 1,000 (another network)", distance.learned, "0.044")


if __name__ == "__main__":
    main()
