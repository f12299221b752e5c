"""Write asegen/assets/elemental_references.json: energy and ground-state structure of every element.

    python data/make_elemental_references.py mp_elemental_references.csv

The table is the one of matbench-discovery (MIT) of 2023-02-07 with a CIF for each entry: ground states of the Materials Project (CC BY
4.0), energies on the scale of MP2020, which corrects no element. Coordinates are rounded to 1e-5 Å and 1e-6 of the cell.
"""

import csv
import json
import sys
from pathlib import Path

from asegen.checkpoint import replacing
from asegen.datasets.readers import from_cif

ASSET = Path(__file__).resolve().parent.parent / "asegen" / "assets" / "elemental_references.json"


def main(table: Path) -> None:
    with open(table, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    lines = []
    for row in rows:
        atoms = from_cif(row["cif"], row["material_id"], {}).to_atoms()
        if set(atoms.get_chemical_symbols()) != {row["element"]}:
            raise SystemExit(f"{row['material_id']} is not a crystal of {row['element']}")
        frac = atoms.get_scaled_positions()
        entry = {
            "energy_per_atom": float(row["energy_per_atom_mp2020"]),
            "material_id": row["material_id"],
            "cell": [round(float(x), 5) for x in atoms.cell.array.ravel()],
            "frac": [round(float(x), 6) for x in frac.ravel()],
        }
        lines.append(f"{json.dumps(row['element'])}: {json.dumps(entry, separators=(',', ':'))}")
    head = {
        "source": "Materials Project, elemental ground states; table of matbench-discovery (MIT) of 2023-02-07",
        "licence": "CC BY 4.0 (Materials Project)",
        "reference": "Jain et al., APL Mater. 1, 011002 (2013)",
        "scale": "MP2020",
    }
    start = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items())
    text = "{\n" + start + ',\n"elements": {\n' + ",\n".join(lines) + "\n}\n}\n"
    json.loads(text)
    with replacing(ASSET) as stream:
        stream.write(text.encode())
    print(f"{ASSET}: {len(rows)} elements, {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
