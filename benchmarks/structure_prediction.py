"""Structure prediction: formula and number of atoms given, one crystal each, matched against the truth.

    python benchmarks/structure_prediction.py FILE [--checkpoint mp20] [-n 500] [--steps 50] [--json OUT]

FILE is anything `asegen data convert` reads (a CDVAE-style CSV of a validation split, say). Protocol: pymatgen
StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10); rms in units of (V/N)^(1/3); "strict" shares are those with rms
below 0.1 and 0.2 of all structures, matched or not. One sample per structure; rows drawn with a fixed seed.
"""

import argparse
import json
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")


def rms_of(pair):
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    a, b = (Structure(cell, numbers, frac) for cell, numbers, frac in pair)
    found = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10).get_rms_dist(a, b)
    return np.nan if found is None else found[0]


def plain(atoms):
    return atoms.cell.array, atoms.numbers, atoms.get_scaled_positions()


def shares(rms):
    rms = np.asarray(rms)
    matched = rms[~np.isnan(rms)]
    return {
        "match": round(100 * len(matched) / len(rms), 1),
        "rms<.2": round(100 * float((matched < 0.2).sum()) / len(rms), 1),
        "rms<.1": round(100 * float((matched < 0.1).sum()) / len(rms), 1),
        "mean rms": round(float(matched.mean()), 3) if len(matched) else None,
    }


def main():
    from ase import Atoms

    from asegen import generate
    from asegen.datasets import read_rows
    from asegen.dynamics import Walk
    from asegen.formulas import formula_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--checkpoint", default="mp20")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--walk", action="append", help="steps,correctors,churn,snr[,...]; may be repeated; default: the checkpoint's")
    parser.add_argument("--data-name", help="what FILE is, for the table; default: its name")
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--json")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()

    rows = [row for row in read_rows(args.file) if not row.error and len(row.numbers) <= args.max_atoms]
    chosen = np.sort(np.random.default_rng(args.seed).permutation(len(rows))[: args.n])
    truth = [Atoms(numbers=rows[i].numbers, scaled_positions=rows[i].frac, cell=rows[i].cell, pbc=True) for i in chosen]
    formulas = [formula_of(atoms.numbers) for atoms in truth]
    sizes = np.array([len(atoms) for atoms in truth])
    results = []
    for text in args.walk or [None]:
        from asegen.checkpoint import Checkpoint, load_checkpoint

        checkpoint = load_checkpoint(args.checkpoint)
        if text is not None:
            values = [float(x) for x in text.split(",")]
            walk = dict(zip(("steps", "correctors", "churn", "snr"), values, strict=False))
            checkpoint = Checkpoint(checkpoint.system, {**checkpoint.header, "walk": walk}, checkpoint.hash)
        walk = Walk.of(checkpoint.walk_defaults)
        start = time.time()
        made = generate(formulas, n=1, seed=args.seed, checkpoint=checkpoint)
        seconds = (time.time() - start) / len(made)
        with ProcessPoolExecutor(args.processes) as pool:
            rms = np.array(list(pool.map(rms_of, [(plain(a), plain(b)) for a, b in zip(made, truth, strict=True)], chunksize=8)))
        result = {"walk": vars(walk) if hasattr(walk, "__dict__") else str(walk), "evaluations": walk.calls, "n": len(made), **shares(rms)}
        result["s/structure"] = round(seconds, 4)
        for low, high in ((1, 5), (6, 10), (11, 20)):
            part = rms[(sizes >= low) & (sizes <= high)]
            if len(part):
                result[f"{low}-{high} atoms"] = {"n": len(part), **shares(part)}
        results.append(result)
        print(json.dumps(result), flush=True)
    if args.json:
        table = {"data": args.data_name or Path(args.file).name, "checkpoint": args.checkpoint, "results": results}
        Path(args.json).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
