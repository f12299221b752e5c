"""De novo generation, measured with every metric that applies.

    python benchmarks/de_novo.py REFERENCE [--train TRAIN] [--checkpoint default] [-n 1000] [--out FOLDER]

REFERENCE is a file of real crystals (CSV with a cif column, extxyz, …), TRAIN what the checkpoint was trained on, for novelty. The folder
gets metrics.json, crystals.csv and pictures.
"""

import argparse
import json
import time
from dataclasses import replace

from asegen import generate, load_checkpoint
from asegen.metrics import Cache, evaluate
from asegen.metrics.plots import write_report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference")
    parser.add_argument("--train")
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--walk", nargs="*", help="steps=50 temperature=0.7 …; default: the checkpoint's")
    parser.add_argument("--out")
    args = parser.parse_args()

    checkpoint = load_checkpoint(args.checkpoint)
    if args.walk:
        walk = dict(entry.split("=") for entry in args.walk)
        checkpoint = replace(checkpoint, header={**checkpoint.header, "walk": {key: float(value) for key, value in walk.items()}})
    start = time.time()
    crystals = generate(n=args.n, seed=args.seed, checkpoint=checkpoint)
    seconds = (time.time() - start) / len(crystals)
    found = evaluate(crystals, args.reference, args.train, cache=Cache())
    print(json.dumps({**found.numbers(), "s/structure": round(seconds, 4)}, indent=1))
    if args.out:
        write_report(found, args.out)


if __name__ == "__main__":
    main()
