"""A ranked table for a formula: which prototypes it may take, and the crystals that they predict.

python examples/05_prototypes.py [FORMULA]
"""

import sys

from ase.io import write

from asegen import generate, load_prototypes
from asegen.symmetry.sites import format_sites

formula = sys.argv[1] if len(sys.argv) > 1 else "Ba4Zr4S12"  # as written: 20 atoms in the primitive cell

candidates, other = load_prototypes("default").rank(formula, n=5)
for candidate in candidates:
    known = "known" if candidate.known else ""
    print(f"{candidate.probability:6.3f}  {candidate.prototype.number:3d}  {format_sites(candidate.sites):30s} {known}")
print(f"{other:6.3f}  some prototype that nobody has seen")

crystals = generate(formula, n=5)  # the same, as ase.Atoms, best first
for atoms in crystals:
    print(atoms.info["rank"], atoms.info["prototype"], f"{atoms.get_volume() / len(atoms):.1f} Å³/atom")
write("candidates.extxyz", crystals)
