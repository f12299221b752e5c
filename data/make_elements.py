"""Write asegen/assets/elements.json: what the periodic table says about every element, scaled to about unit size.

    python data/make_elements.py

Columns: period and group (one-hot), block (one-hot), electronegativity, atomic and ionic radius, Mendeleev number,
valence. Taken from pymatgen; networks read the table once, and carry it in their checkpoint.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from pymatgen.core import Element

warnings.filterwarnings("ignore")
rows = []
for z in range(1, 119):
    e = Element.from_Z(z)
    one_hot = [float(e.row == p) for p in range(1, 8)] + [float(e.group == g) for g in range(1, 19)]
    one_hot += [float(e.block == b) for b in "spdf"]
    radius = float(e.atomic_radius or np.nan)
    ionic = float(e.average_ionic_radius or np.nan)
    mendeleev = float(e.mendeleev_no or np.nan)
    states = e.common_oxidation_states or (0,)
    numbers = [e.X, radius, ionic, mendeleev / 50, min(states) / 4, max(states) / 4, z / 50, e.is_lanthanoid, e.is_transition_metal]
    rows.append(one_hot + [float(x) for x in numbers])
table = np.array(rows)
numeric = table[:, 29:]
mean, spread = np.nanmean(numeric, 0), np.nanstd(numeric, 0)
table[:, 29:] = np.nan_to_num((numeric - mean) / spread)
out = Path(__file__).resolve().parents[1] / "asegen" / "assets" / "elements.json"
out.write_text("[\n" + ",\n".join(json.dumps([round(float(x), 3) for x in row]) for row in table) + "\n]\n")
