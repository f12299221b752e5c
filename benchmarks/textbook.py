"""Textbook compounds: is the first answer for a formula alone the structure in the textbook?

    python benchmarks/textbook.py FILE [-n 8] [--checkpoint default] [--order stable] [--units given] [--no-handbook] [--json OUT]

FILE has a line for each compound: formula, atoms_in_primitive_cell, and accepted space groups with Å³/atom (``225:23.05 194:…``). An
answer is right if its group (spglib, symprec 0.1 Å) is accepted and its volume is within 12 % of that group's. ``--units given`` asks for
the right number of formula units, which a user does not know; ``--no-handbook`` leaves out what the model's file holds of handbooks.
"""

import argparse
import csv
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

VOLUME = 0.12


def read(file):
    with open(file) as stream:
        for row in csv.DictReader(stream):
            accepted = [entry.split(":") for entry in row["accepted"].split()]
            yield row["formula"], int(row["atoms_in_primitive_cell"]), {int(group): float(volume) for group, volume in accepted}


def right(atoms, accepted, with_volume=True):
    from asegen.report import space_group

    group = space_group(atoms)
    if group not in accepted:
        return False
    return not with_volume or abs(atoms.get_volume() / len(atoms) / accepted[group] - 1) <= VOLUME


def main():
    from asegen import generate, load_prototypes
    from asegen.formulas import numbers_of
    from asegen.prototypes.ranking import composition_key
    from asegen.report import space_group

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--prototypes")
    parser.add_argument("--order", default="stable")
    parser.add_argument("--units", choices=("any", "given"), default="any")
    parser.add_argument("--no-handbook", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()

    model = load_prototypes(args.prototypes or args.checkpoint)
    listed = model.header.get("handbook", {})
    count = sum(composition_key(numbers_of(formula)) in listed for formula, _, _ in read(args.file))
    print(f"{count} of the compounds are in the handbook table of the model")
    if args.no_handbook:
        model = replace(model, header={**model.header, "handbook": {}})
    options = {"n": args.n, "checkpoint": args.checkpoint, "prototypes": model, "order": args.order}
    begin = time.time()
    rows = []
    for formula, atoms, accepted in read(args.file):
        units = None if args.units == "any" else max(1, atoms // len(numbers_of(formula)))
        made = generate(formula, units=units, **options)
        hits = [right(one, accepted) for one in made]
        groups = [right(one, accepted, with_volume=False) for one in made]
        rows.append({"formula": formula, "rank": hits.index(True) + 1 if any(hits) else None, "group": groups[0]})
        if not hits[0]:
            energies = [1000 * one.info.get("e_above_hull", np.nan) for one in made]
            found = [f"{space_group(one)}:{one.get_volume() / len(one):.2f}:{e:.0f}" for one, e in zip(made, energies, strict=True)]
            wanted = " ".join(f"{group}:{volume}" for group, volume in accepted.items())
            print(f"{formula:10s} wanted {wanted:22s} rank {rows[-1]['rank']}; group:Å³/atom:meV/atom {' '.join(found[:6])}")
    count = len(rows)
    table = {
        "compounds": count,
        "first answer: group": round(100 * sum(row["group"] for row in rows) / count, 1),
        "first answer: group and volume": round(100 * sum(row["rank"] == 1 for row in rows) / count, 1),
        f"best of {args.n}": round(100 * sum(row["rank"] is not None for row in rows) / count, 1),
        "seconds per formula": round((time.time() - begin) / count, 3),
    }
    for name, value in table.items():
        print(f"{name:32s} {value}")
    if args.json:
        told = {"file": args.file.name, **options, "prototypes": model.name, "table": table, "rows": rows}
        Path(args.json).write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
