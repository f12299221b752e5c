"""Table 2 of StructRepDiff for a model: crystals generated, and measured against validation crystals.

    python benchmarks/structrepdiff.py MODEL --reference val.csv.gz --data-set perov-5 -n 1000 --out folder
    python benchmarks/structrepdiff.py MODEL --vectors val_arrays --compare -n 300 --out folder    # samplers against each other

A killed run goes on from its folder. The second form decodes nothing: it compares vectors with those of validation crystals
(training arrays, ``asegen data convert``), beside as many validation vectors compared with all of them.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from asegen.datasets import CrystalArrays
from asegen.descriptors.structure_vector import Decoded, count_reasons
from asegen.metrics import evaluate
from asegen.store import RunFolder
from asegen.structrep.generation import Draws, generate_structrep
from asegen.structrep.model import load_structrep
from asegen.systems.structrepdiff import Sampler

SAMPLERS = {
    "50 evaluations, 2M, no churn": Sampler(50, 0.0, 2),
    "100 evaluations, 2M, no churn": Sampler(100, 0.0, 2),
    "100 evaluations, DDIM, no churn": Sampler(100, 0.0, 1),
    "100 evaluations, 2M, churn 1": Sampler(100, 1.0, 2),
    "2,000 evaluations, ancestral": Sampler(2000, 1.0, 1),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--only", nargs="*", help="Samplers to compare, by the beginning of their names.")
    parser.add_argument("--data-set", default="perov-5")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    model = load_structrep(args.model)
    result = compare(model, args) if args.compare else table(model, args)
    target = args.out / ("samplers.json" if args.compare else "table.json")
    target.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


def table(model, args):
    """Generate and evaluate."""
    folder, draws = RunFolder(args.out / "crystals", {"model": model.hash, "n": args.n, "seed": args.seed}), Draws()
    began = time.monotonic()
    crystals = generate_structrep(
        args.n,
        args.seed,
        checkpoint=model,
        on_batch=folder.add,
        done=folder.done(),
        draws=draws,
        progress=lambda done, total: print(f"{done} of {total}, {time.monotonic() - began:.0f} s", flush=True),
    )
    seconds = time.monotonic() - began
    folder.finish(crystals)
    rejected = sum(int(atoms.info["rejected"]) for atoms in crystals)
    losses = np.array([atoms.info["loss"] for atoms in crystals])
    tasks = ["validity", "coverage", "distributions"]
    found = evaluate(crystals, args.reference, tasks=tasks, data_set=args.data_set, processes=args.processes)
    return {
        "model": model.name,
        "n": len(crystals),
        "numbers": found.numbers(),
        "missing": found.missing,
        "vectors rejected": rejected,
        "rejected by reason (last run)": dict(draws.rejected),
        "hops failed": sum(int(atoms.info["failed_hops"]) for atoms in crystals),
        "hops": sum(int(atoms.info["hops"]) for atoms in crystals),
        "loss quantiles 10, 50, 90 %": np.quantile(losses, [0.1, 0.5, 0.9]).round(4).tolist(),
        "seconds (last run)": round(seconds),
    }


def compare(model, args):
    """Vectors of several samplers beside those of validation crystals."""
    layout, scaling = model.layout, model.diffusion.scaling
    arrays = CrystalArrays.open(args.vectors) if args.vectors.is_dir() else None
    if arrays is None:
        raise SystemExit(f"{args.vectors} is no folder of training arrays")
    fitting = np.flatnonzero(arrays.num_atoms <= layout.max_atoms)
    chunks = [arrays.batch(fitting[k : k + 64]).to(dtype=torch.float64) for k in range(0, len(fitting), 64)]
    known = set(layout.elements)
    real = torch.cat([layout.encode(chunk) for chunk in chunks if set(chunk.species.tolist()) <= known]).float()
    shuffled = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    rows = {"validation vectors": {**distances(layout, scaling, real[shuffled[: args.n]], real), "seconds": 0}}
    for name, sampler in SAMPLERS.items():
        if args.only and not any(name.startswith(word) for word in args.only):
            continue
        began = time.monotonic()
        parts = [model.diffusion.sample(range(k, min(k + 64, args.n)), sampler) for k in range(0, args.n, 64)]
        rows[name] = {**distances(layout, scaling, torch.cat(parts), real), "seconds": round(time.monotonic() - began)}
        print(name, rows[name], flush=True)
    return {"model": model.name, "n": args.n, "rows": rows}


def distances(layout, scaling, vectors, real):
    """How far a set of vectors is from another; per feature in units of its spread."""
    drawn, wanted = scaling.forward(vectors), scaling.forward(real)

    def mean_wasserstein(places):
        return round(float(np.mean([wasserstein_distance(drawn[:, k], wanted[:, k]) for k in places])), 4)

    across = torch.cdist(drawn, wanted).mean()
    within = [torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (drawn, wanted)]
    decoded = [layout.decode(vector) for vector in vectors]
    elements = [len(set(d.numbers.tolist())) for d in decoded if isinstance(d, Decoded)]
    real_elements = (real[:, layout.composition] > 1e-3).sum(1).numpy()
    return {
        "descriptor": mean_wasserstein(range(layout.descriptor.stop)),
        "composition": mean_wasserstein(range(layout.composition.start, layout.composition.stop)),
        "cell": mean_wasserstein(range(layout.cell.start, layout.cell.stop)),
        "energy distance": round(float(2 * across - within[0] - within[1]), 4),
        "elements EMD": round(float(wasserstein_distance(elements, real_elements)), 3) if elements else None,
        "rejected": {reason: round(count / len(vectors), 3) for reason, count in count_reasons(decoded).items()},
    }


if __name__ == "__main__":
    main()
