"""Put a trained prototype model into the package, with what was measured of it in its header, and write its model card.

    python data/package_prototypes.py runs/prototypes/mp20.safetensors --recipe prototypes.toml --prediction table.json …
        [--plot reliability.png] [--note "…"]

`table.json` come from benchmarks/structure_prediction.py.
"""

import argparse
import json
import shutil
from pathlib import Path

from asegen.prototypes.model import load_prototypes, save_prototypes

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("match", "rms<.2", "rms<.1", "mean rms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--prediction", nargs="*", default=[])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--note", default="")
    args = parser.parse_args()

    model = load_prototypes(args.model)
    header, name = dict(model.header), model.name
    tables = [json.loads(Path(path).read_text()) for path in args.prediction]
    results = [(table["data"], result) for table in tables for result in table["results"]]
    metrics = {}
    for data, result in results:
        for which, row in result["table"]["all"].items():
            kind = "new=True" if result["new"] else "default"
            metrics[f"structure prediction on {data}, n = {row['n']}, {kind}, {which}"] = {c: row[c] for c in COLUMNS}
        if "reliability" in result:
            metrics["expected calibration error of the first answer"] = result["reliability"]["error"]
    header["metrics"] = metrics
    target = ROOT / "asegen" / "assets" / "prototypes" / f"{name}.safetensors"
    save_prototypes(target, model.table, model.ranker, header)

    cards = ROOT / "data" / "model_cards"
    data, training = header["data"], header["training"]
    once = sum(len(p.examples) == 1 for p in model.table.prototypes)
    lines = [
        f"# prototypes of {name}",
        "",
        f"- **Data**: {data['name']}; {data['count']} crystals of up to {data['max_atoms']} atoms ({data['unused']} have no",
        f"  primitive standard cell and were left out). Licence: {data['licence']}.",
        f"- **Model**: {data['prototypes']} prototypes, {once} of them seen once; ranker {header['ranker']};",
        f"  {target.stat().st_size / 1e6:.1f} MB.",
        f"- **Training**: `data/recipes/{args.recipe}` (hash {training['recipe_hash']}), {training['seconds']} s on two shared cores.",
        f"  Losses by pass (leave-one-out, nats): {training['losses']}.",
        "- **Contents**: sites, regressions of the free parameters, and each training crystal's elements, own parameters and energy above"
        f" the hull where known; {len(header.get('handbook', {}))} compounds of a handbook table.",
    ]
    if args.note:
        lines.append(f"- **Note**: {args.note}")
    lines += [
        "",
        "## Measured",
        "",
        "Formula and number of atoms given; pymatgen StructureMatcher (ltol 0.3, stol 0.5, angle_tol 10); shares in % of all rows, rms in",
        "(V/N)^(1/3). `benchmarks/structure_prediction.py`.",
        "",
        "| data | asked for | rows | answers | n | " + " | ".join(COLUMNS) + " |",
        "|---|---|---|---|---|" + "---|" * len(COLUMNS),
    ]
    for file, result in results:
        for part, values in result["table"].items():
            for which, row in values.items():
                kind = "new entries" if result["new"] else "default"
                lines.append("| " + " | ".join(str(x) for x in (file, kind, part, which, row["n"], *(row[c] for c in COLUMNS))) + " |")
    if args.plot:
        shutil.copy(args.plot, cards / f"prototypes-{name}.png")
        lines += ["", "How often the first answer is right, against the probability that it carries:", ""]
        lines.append(f"![reliability](prototypes-{name}.png)")
    (cards / f"prototypes-{name}.md").write_text("\n".join([*lines, ""]))
    print(target, f"{target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
