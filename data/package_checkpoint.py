"""Put a trained checkpoint into the package, with what was measured of it in its header, its curve, log and model card.

    python data/package_checkpoint.py runs/mp20 --walk steps=50 churn=1 --prediction table.json [--de-novo table.json] [--note "…"]

`table.json` come from benchmarks/structure_prediction.py --start random and benchmarks/de_novo.py.
"""

import argparse
import json
import shutil
from pathlib import Path

from asegen.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--walk", nargs="*", default=[])
    parser.add_argument("--prediction", nargs="*", default=[])
    parser.add_argument("--de-novo", nargs="*", default=[])
    parser.add_argument("--initial", help="what training started from, if the run names a path")
    parser.add_argument("--note", default="")
    args = parser.parse_args()

    (source,) = args.run.glob("*.safetensors")
    checkpoint = load_checkpoint(source)
    header = dict(checkpoint.header)
    name = header["name"]
    if args.initial:
        header["training"]["recipe"]["initial"] = args.initial
    if args.walk:
        header["walk"] = {key: float(value) for key, value in (entry.split("=") for entry in args.walk)}
    metrics = {key: value for key, value in header["metrics"].items() if key.startswith("val_")}
    tables = []
    for path in args.prediction:
        table = json.loads(Path(path).read_text())
        for result in table["results"]:
            first = result["table"]["all"]["first"]
            key = f"structure prediction on {table['data']}, n = {first['n']}, {result['evaluations']} evaluations"
            metrics[key] = {k: first[k] for k in ("match", "rms<.2", "rms<.1", "mean rms")}
            tables.append((table["data"], result))
    for path in args.de_novo:
        metrics["de novo"] = json.loads(Path(path).read_text())
    header["metrics"] = metrics
    target = ROOT / "asegen" / "assets" / "checkpoints" / f"{name}.safetensors"
    save_checkpoint(target, checkpoint.system, header)

    cards = ROOT / "data" / "model_cards"
    shutil.copy(args.run / "curves.png", cards / f"{name}.png")
    shutil.copy(args.run / "metrics.csv", cards / f"{name}.csv")
    data, training = header["data"], header["training"]
    lines = [
        f"# {name}",
        "",
        f"- **Data**: {data['name']}; {data['count']} crystals of up to {data['max_atoms']} atoms, {len(data['elements'])} elements. "
        f"Licence: {data['licence']}.",
        f"- **Model**: system `{header['system']}`, `{header['network']['name']}` network {header['network']['options']}, "
        f"{sum(p.numel() for p in checkpoint.system.network.parameters()) / 1e6:.2f} M parameters, {target.stat().st_size / 1e6:.1f} MB.",
        f"- **Training**: `data/recipes/{name}.toml` (hash {training['recipe_hash']}), {training['steps']} steps on {training['device']}, "
        f"Log: `{name}.csv`, curves below.",
        f"- **Sampling by default**: {header['walk'] or 'package defaults'}.",
    ]
    if args.note:
        lines.append(f"- **Note**: {args.note}")
    lines += ["", "## Measured", ""]
    if tables:
        columns = ("match", "rms<.2", "rms<.1", "mean rms")
        lines += [
            "Structure prediction: formula and number of atoms given, random start, one sample each; pymatgen StructureMatcher (ltol 0.3,",
            "stol 0.5, angle_tol 10); shares in % of all structures, rms in (V/N)^(1/3). `benchmarks/structure_prediction.py`.",
            "",
            "| data | rows | n | walk | " + " | ".join(columns) + " |",
            "|---|---|---|---|" + "---|" * len(columns),
        ]
        for file, result in tables:
            for part, values in result["table"].items():
                first = values["first"]
                row = [file, part, first["n"], result["walk"] if part == "all" else "", *(first[c] for c in columns)]
                lines.append("| " + " | ".join(str(x) for x in row) + " |")
        lines.append("")
    for path in args.de_novo:
        lines += ["De novo, `benchmarks/de_novo.py`:", "", "| | |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in json.loads(Path(path).read_text()).items()]
        lines.append("")
    lines += ["## Curves", "", f"![loss curves]({name}.png)", ""]
    (cards / f"{name}.md").write_text("\n".join(lines))
    print(target, f"{target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
