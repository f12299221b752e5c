"""Many crystals at once: formulas, several formula units, or from nothing.

python examples/02_batch.py
"""

import ase.io

from asegen import generate
from asegen.report import summarize

# formulas are taken as written: ten atoms, then two; the list is flat, three of the first and three of the second
crystals = generate(["Sr2Ti2O6", "NaCl"], n=3, seed=0)

# no formula: elements and numbers of atoms are generated too
crystals += generate(n=4, seed=0)

for atoms in crystals:
    row = summarize(atoms)
    print(f"{row.formula:12s} {row.symbol:10s} {row.volume_per_atom:6.2f} Å³/atom  seed {atoms.info['seed']}")

ase.io.write("crystals.extxyz", crystals)

# the same seed gives the same crystals, whatever the batch size
again = generate("NaCl", n=2, seed=7, batch_size=1)
assert abs(again[0].positions - generate("NaCl", n=2, seed=7)[0].positions).max() < 1e-4
