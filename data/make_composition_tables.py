"""Write asegen/assets/composition.json: what the metrics on compositions need to know about every element.

    python data/make_composition_tables.py

From the installed smact: two sets of oxidation states, electronegativities, the list of metals. From the installed matminer:
the 22 element properties of Magpie. From ``data/cdvae_magpie_scaler.json``: the numbers with which CDVAE scales them. asegen
reads the file, so that it needs neither package when it runs; ``tests/metrics`` compares with both.
"""

import json
import math
import warnings
from importlib.metadata import files, version
from pathlib import Path

import smact
from matminer.featurizers.composition import ElementProperty
from pymatgen.core import Element
from smact.utils.oxidation import ICSD24OxStatesFilter

from asegen.checkpoint import replacing

warnings.filterwarnings("ignore")
HERE = Path(__file__).resolve().parent


def licence(package: str) -> str:
    """Text of a package's licence, which asks to travel with what is taken from the package."""
    found = [path for path in files(package) or [] if path.name.startswith("LICENSE")]
    return found[0].read_text().strip()


def oxidation_table() -> dict[str, list]:
    """Per element: electronegativity, states of the 2014 set, states that smact_validity() uses unless told otherwise."""
    today = ICSD24OxStatesFilter().filter(consensus=3, include_zero=False, commonality="low")
    icsd24 = {row["element"]: [int(state) for state in row["oxidation_state"].split()] for _, row in today.iterrows()}
    rows = {}
    for symbol in smact.ordered_elements(1, 103):
        element = smact.Element(symbol)
        rows[symbol] = [element.pauling_eneg, element.oxidation_states_smact14 or [], icsd24.get(symbol, [])]
    return rows


def magpie_table(featurizer: ElementProperty) -> dict[str, list[float | None]]:
    """Per element: the values of Magpie's properties, None where there is none; elements without any are left out."""
    rows = {}
    for number in range(1, 119):
        element = Element.from_Z(number)
        values = [featurizer.data_source.get_elemental_property(element, name) for name in featurizer.features]
        if not all(math.isnan(value) for value in values):
            rows[element.symbol] = [None if math.isnan(v) else int(v) if v == int(v) else v for v in values]
    return rows


def lines(rows: dict[str, list]) -> str:
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in rows.items()) + "\n}"


def main() -> None:
    featurizer = ElementProperty.from_preset("magpie", impute_nan=False)
    scaler = json.loads((HERE / "cdvae_magpie_scaler.json").read_text())
    sources = {
        "oxidation": f"SMACT {version('smact')}, MIT",
        "magpie": f"matminer {version('matminer')}, BSD-3-Clause-LBNL; data of Ward et al., npj Comput. Mater. 2, 16028 (2016)",
        "scaler": f"{scaler['source']}, MIT",
    }
    licences = {"SMACT": licence("smact"), "matminer": licence("matminer"), "CDVAE": scaler["licence"]}
    columns = ["Pauling electronegativity", "smact14 oxidation states", "ICSD24 oxidation states"]
    parts = {
        "sources": json.dumps(sources, indent=1),
        "columns": json.dumps(columns),
        "oxidation": lines(oxidation_table()),
        "metals": json.dumps(list(smact.metals)),
        "properties": json.dumps(featurizer.features),
        "magpie": lines(magpie_table(featurizer)),
        "scaler": lines({name: scaler[name] for name in ("mean", "std")}),
        "licences": lines(licences),
    }
    with replacing(HERE.parent / "asegen" / "assets" / "composition.json") as stream:
        stream.write(("{\n" + ",\n".join(f'"{name}": {part}' for name, part in parts.items()) + "\n}\n").encode())


if __name__ == "__main__":
    main()
