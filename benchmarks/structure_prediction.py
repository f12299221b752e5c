"""Structure prediction: formula and number of atoms given, matched against the truth.

    python benchmarks/structure_prediction.py FILE [--checkpoint mp20] [-n 500] [--where structure_source=mp20]
        [--best-of 20] [--new] [--start random] [--order likely] [--units given] [--train TRAIN] [--reliability PNG] [--json OUT]

FILE is anything `asegen data convert` reads (a CDVAE-style CSV of a validation split, say); ``--units any`` gives the composition alone.
With TRAIN, rows are told apart by whether their prototype (anonymous formula and space group) occurs there. Protocol: ``matching.py``.
``--new`` leaves known crystals of the very composition out: every row of a validation split is a crystal that is not in the training
split, so a known polymorph is never the answer. ``--reliability`` plots how often the first answer is right (rms < .2) against the
probability that it carries.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from matching import known_rows, matched_rows, print_table, report, validation_rows, volume_errors


def reliability(probability, right, file=None, bins=(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)):
    """Predicted probability against the share of right answers, bin by bin; the expected calibration error."""
    which = np.digitize(probability, bins[1:-1])
    full = [which == k for k in range(len(bins) - 1) if (which == k).any()]
    rows = [(probability[own].mean(), right[own].mean(), int(own.sum())) for own in full]
    error = sum(count * abs(p - share) for p, share, count in rows) / len(probability)
    print(f"reliability of the first answer: expected calibration error {error:.3f}")
    print("  " + "  ".join(f"{p:.2f}:{share:.2f} ({count})" for p, share, count in rows))
    if file:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
        axes.plot([0, 1], [0, 1], color="0.7", lw=1)
        axes.scatter([r[0] for r in rows], [r[1] for r in rows], s=[10 + 2 * r[2] ** 0.7 for r in rows])
        axes.set(xlabel="probability given", ylabel="share right (rms < .2)", xlim=(0, 1), ylim=(0, 1))
        figure.savefig(file, dpi=110)
    return {"error": round(float(error), 4), "bins": [[round(float(p), 3), round(float(share), 3), count] for p, share, count in rows]}


def main():
    from asegen import generate
    from asegen.checkpoint import Checkpoint, load_checkpoint
    from asegen.dynamics import Walk
    from asegen.formulas import formula_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--checkpoint", default="mp20")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--where", action="append", default=[], help="COLUMN=VALUE or COLUMN<VALUE: rows of FILE to use; may be repeated")
    parser.add_argument("--order", choices=("likely", "stable"), default="likely")
    parser.add_argument("--units", choices=("given", "any"), default="given")
    parser.add_argument("--unseen", help="training file: leave out rows whose composition occurs there")
    parser.add_argument("--least-atoms", type=int, default=1)
    parser.add_argument("--train", help="training data, to tell known from new prototypes")
    parser.add_argument("--best-of", type=int, default=1)
    parser.add_argument("--start", choices=("prototypes", "random"))
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--diversity", type=float, default=0.5)
    parser.add_argument("--refine", type=float, default=0.0)
    parser.add_argument("--prototypes")
    parser.add_argument("--walk", action="append", help="steps,correctors,churn,snr[,...]; may be repeated; default: the checkpoint's")
    parser.add_argument("--data-name", help="what FILE is, for the table; default: its name")
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--reliability")
    parser.add_argument("--json")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()

    sizes = (args.least_atoms, args.max_atoms)
    truth = validation_rows(args.file, args.n, args.seed, args.where, sizes, args.unseen)
    formulas = [formula_of(atoms.numbers) for atoms in truth]
    known = known_rows(args.train, truth) if args.train else None
    results = []
    for text in args.walk or [None]:
        checkpoint = load_checkpoint(args.checkpoint)
        if text is not None:
            values = [float(x) for x in text.split(",")]
            walk = dict(zip(("steps", "correctors", "churn", "snr"), values, strict=False))
            checkpoint = Checkpoint(checkpoint.system, {**checkpoint.header, "walk": walk}, checkpoint.hash)
        options = {name: getattr(args, name) for name in ("start", "order", "new", "diversity", "refine", "prototypes")}
        options["units"] = 1 if args.units == "given" else None
        start = time.time()
        # formula by formula: where the score model cannot fill the rest of a list, it is shorter
        answers = [generate(f, n=args.best_of, seed=args.seed, checkpoint=checkpoint, **options) for f in formulas]
        seconds = (time.time() - start) / len(formulas)
        found = matched_rows(answers, truth, args.processes)
        rms = [one for one, _ in found]
        table = report(rms, truth, known)
        walk = Walk.of(checkpoint.walk_defaults)
        result = {"walk": str(walk), "evaluations": walk.calls, "seconds per formula": round(seconds, 4), **options, "table": table}
        results.append(result)
        result["volumes"] = volume_errors(found)
        print_table(f"{args.checkpoint}, {seconds:.3f} s per formula, {json.dumps(options)}", table)
        print(result["volumes"])
        if args.reliability:
            chance = np.array([bool(a) and a[0].info.get("probability", 0.0) for a in answers])
            result["reliability"] = reliability(chance, np.array([len(r) > 0 and r[0] < 0.2 for r in rms]), args.reliability)
    if args.json:
        summary = {"data": args.data_name or Path(args.file).name, "checkpoint": args.checkpoint, "results": results}
        Path(args.json).write_text(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
