"""Put a trained structrepdiff model into the package, with what was measured of it in its header, and its log beside the model card.

    python data/package_structrep.py runs/perov-5 --table table.json [--samplers samplers.json] [--evaluations 50 --churn 0 --order 2]

`table.json` and `samplers.json` come from benchmarks/structrepdiff.py. The model card data/model_cards/structrepdiff.md is for all
models together and is written by hand.
"""

import argparse
import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path

from asegen.structrep.model import load_structrep, save_structrep
from asegen.structrep.search import Search
from asegen.systems.structrepdiff import Sampler

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("validity.", "distributions.", "coverage.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--samplers", type=Path)
    parser.add_argument("--evaluations", type=int, default=Sampler.evaluations)
    parser.add_argument("--churn", type=float, default=Sampler.churn)
    parser.add_argument("--order", type=int, default=Sampler.order)
    parser.add_argument("--search", nargs="*", default=[], help="near=3.5 …: what differs from the defaults of the search for positions")
    args = parser.parse_args()

    (source,) = args.run.glob("*.safetensors")
    model = load_structrep(source)
    header = dict(model.header)
    header["sampler"] = asdict(Sampler(args.evaluations, args.churn, args.order))
    kinds = {entry.name: type(entry.default) for entry in fields(Search)}
    header["search"] = {key: kinds[key](value) for key, value in (entry.split("=") for entry in args.search)}
    metrics = {key: value for key, value in header["metrics"].items() if key.startswith("val_")}
    if args.table:
        table = json.loads(args.table.read_text())
        numbers = {key: round(value, 4) for key, value in table["numbers"].items() if key.startswith(KEPT) and value is not None}
        metrics[f"de novo, n = {table['n']}, against the validation split"] = {**numbers, "vectors rejected": table["vectors rejected"]}
    if args.samplers:
        for name, row in json.loads(args.samplers.read_text())["rows"].items():
            metrics[f"vectors, {name}"] = {key: value for key, value in row.items() if not isinstance(value, dict)}
    header["metrics"] = metrics
    target = ROOT / "asegen" / "assets" / "structrepdiff" / f"{model.name}.safetensors"
    save_structrep(target, model.diffusion, model.layout, header)
    shutil.copy(args.run / "metrics.csv", ROOT / "data" / "model_cards" / f"structrepdiff-{model.name}.csv")
    print(target, f"{target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
