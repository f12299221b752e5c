"""Write asegen/assets/elemental_offsets.json: how far the potentials are from the Materials Project's energies of the elements.

    python data/make_elemental_offsets.py [7net-0 7net-l3i5 chgnet]

One single point of each packaged structure of at most 20 atoms (asegen/assets/elemental_references.json), eV/atom, the potential's
energy minus the Materials Project's. Elements are not corrected on MP2020, so that scales do not matter here.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from asegen.calculators.potentials import POTENTIALS, evaluate, potential
from asegen.checkpoint import replacing
from asegen.stability.scales import elemental_references

ASSET = Path(__file__).resolve().parent.parent / "asegen" / "assets" / "elemental_offsets.json"
MOST_ATOMS = 20


def main(names: list[str]) -> None:
    offsets: dict[str, dict[str, float]] = {}
    for name in names:
        model = potential(name, device="cpu")
        offsets[name] = {}
        for symbol, reference in elemental_references().items():
            if len(reference.atoms) > MOST_ATOMS:
                continue
            atoms = reference.atoms.copy()
            atoms.calc = model.calculator()
            try:
                energy = evaluate(atoms).energy
            except Exception as error:  # CHGNet refuses isolated atoms
                print(f"{name} {symbol}: {error}")
                continue
            offsets[name][symbol] = round(energy / len(atoms) - reference.energy_per_atom, 4)
        large = {symbol: value for symbol, value in offsets[name].items() if abs(value) > 0.03}
        print(name, len(offsets[name]), dict(sorted(large.items(), key=lambda item: -abs(item[1]))), flush=True)
    head = {
        "what": f"energy of a single point minus that of the Materials Project, eV/atom; elemental references of up to {MOST_ATOMS} atoms",
        "packages": {package: version(package) for package in sorted({POTENTIALS[name].package for name in names})},
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    tables = ",\n".join(f"{json.dumps(name)}: {json.dumps(values, separators=(',', ':'))}" for name, values in offsets.items())
    text = "{\n" + ",\n".join(lines) + ',\n"offsets": {\n' + tables + "\n}\n}\n"
    json.loads(text)
    with replacing(ASSET) as stream:
        stream.write(text.encode())


if __name__ == "__main__":
    main(sys.argv[1:] or list(POTENTIALS))
