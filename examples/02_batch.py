"""Many crystals at once: formulas, several formula units, or from nothing.

python examples/02_batch.py
"""

import ase.io

from asegen import generate
from asegen.report import summarize

# formulas are compositions, cells have any size; the list is flat, three of the first and three of the second
crystals = generate(["SrTiO3", "NaCl"], n=3, seed=0)
# cells of exactly so many formula units
crystals += generate("TiO2", n=2, units=[1, 2], seed=0)

# no formula: elements and numbers of atoms are generated too
crystals += generate(n=4, seed=0)

for atoms in crystals:
    row = summarize(atoms)
    print(f"{row.formula:12s} {row.symbol:10s} {row.volume_per_atom:6.2f} Å³/atom  seed {atoms.info['seed']}")

ase.io.write("crystals.extxyz", crystals)

# the same seed gives the same crystals, whatever the batch size
again = generate("NaCl", n=2, units=1, start="random", seed=7, batch_size=1)
assert abs(again[0].positions - generate("NaCl", n=2, units=1, start="random", seed=7)[0].positions).max() < 1e-4
