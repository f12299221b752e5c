"""What forms, for a formula: known crystals by their energies, and the prototypes that it may take otherwise.

python examples/05_prototypes.py [FORMULA]
"""

import sys

from ase.io import write

from asegen import generate, load_prototypes
from asegen.symmetry.sites import format_sites

formula = sys.argv[1] if len(sys.argv) > 1 else "BaZrS3"  # a composition: cells of any size

candidates, other = load_prototypes("default").rank(formula, n=6)
for candidate in candidates:
    origin = candidate.material_id or "predicted"
    energy = f"{1000 * candidate.hull:4.0f}"  # meV/atom above the convex hull
    print(f"{candidate.probability:6.3f} {energy}  {candidate.prototype.number:3d}  {format_sites(candidate.sites):36s} {origin}")
print(f"{other:6.3f}  some prototype that nobody has seen")

crystals = generate(formula, n=6)  # the same, as ase.Atoms, best first
for atoms in crystals:
    print(atoms.info["rank"], len(atoms), "atoms", atoms.info["prototype"], f"{atoms.get_volume() / len(atoms):.1f} Å³/atom")
write("candidates.extxyz", crystals)
