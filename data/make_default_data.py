"""All Materials Project crystals at hand as one folder of training arrays for the packaged `default`, each material once.

    python data/make_default_data.py DATA OUT [--max-atoms 100]

DATA holds the CSV files below (material_id, cif and energies as columns). Where a material stands in several files the first one
counts: PBE cells before newer relaxations. Besides the arrays the folder gets ``materials.csv``: a line for each crystal, in
the order of the arrays, with its id, formula, and what is published of its energy (`data/make_hull_energies.py` fills the rest).
"""

import argparse
import csv
import gzip
from pathlib import Path

from asegen.datasets import read_rows
from asegen.datasets.arrays import write_arrays
from asegen.formulas import formula_of

FILES = (
    "mp20/train.csv.gz",
    "mp20/val.csv.gz",
    "mp20_for_default/rows.csv.gz",
    "mpts52/val.csv.gz",
    "mp_stable/train.csv.gz",
    "mp_stable/test.csv.gz",
    "mp_2025_le20/mp_2025_le20.csv.gz",
)
ENERGIES = {
    "formation_energy_per_atom": "formation_energy_per_atom",
    "formation_energy_per_atom_legacy": "formation_energy_per_atom_legacy",
    "e_above_hull": "e_above_hull",
    "energy_above_hull": "e_above_hull",
    "e_above_hull_calc": "e_above_hull_calc",
}
COLUMNS = ("material_id", "formula", "file", *dict.fromkeys(ENERGIES.values()), "stable_list")
csv.field_size_limit(10**9)


def published(data):
    """What any of the files says of a material's energy."""
    found = {}
    for file in FILES:
        with gzip.open(data / file, "rt") as stream:
            for row in csv.DictReader(stream):
                known = found.setdefault(row["material_id"], {"stable_list": 0})
                known |= {name: float(row[column]) for column, name in ENERGIES.items() if row.get(column)}
                if file.startswith("mp_stable") or row.get("stable_list") in ("1", "1.0"):
                    known["stable_list"] = 1
    with gzip.open(data / "reference/mp2020_formation_energies.csv.gz", "rt") as stream:
        for row in csv.DictReader(stream):
            if row["material_id"] in found:
                known = found[row["material_id"]]
                known.setdefault("formation_energy_per_atom", float(row["formation_energy_per_atom"]))
                if row["e_above_hull"]:
                    known.setdefault("e_above_hull", float(row["e_above_hull"]))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--max-atoms", type=int, default=100)
    args = parser.parse_args()

    energies = published(args.data)
    lines = []

    def rows():
        seen = set()
        for file in FILES:
            count = 0
            for row in read_rows(args.data / file):
                if row.name in seen or row.error or len(row.numbers) > args.max_atoms:
                    continue
                seen.add(row.name)
                count += 1
                told = {"material_id": row.name, "formula": formula_of(row.numbers), "file": file.split("/")[0]}
                lines.append({**told, **energies[row.name]})
                yield row
            print(f"{file}: {count} materials", flush=True)

    meta = write_arrays(rows(), args.out, max_atoms=args.max_atoms, source="Materials Project")
    with open(args.out / "materials.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    print(meta["count"], "crystals", meta["atoms"], "atoms")


if __name__ == "__main__":
    main()
