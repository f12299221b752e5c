"""From a formula to a judgement: relaxed polymorphs, energies above the hull, phonons of the best.

One call of `screen` does what the steps below it do one by one.
"""

from asegen import generate
from asegen.stability import polymorphs, relax, screen

crystals = generate("NaCl", n=6, seed=0)

found = screen(crystals, "7net-0", hull=False, phonons=1)
for number in found.best:
    row = found.rows[number]
    mode = row.get("min_frequency", "not computed")
    print(f"{row['formula']} {row['spacegroup']:>3}  {1000 * row['above_lowest']:6.1f} meV/atom  lowest mode (THz): {mode}")

# the same steps, one by one; each crystal stays an ase.Atoms with its energy. The order is by what the prototypes say and the energy
# together (order="energy": by energy alone); what did not converge or fell into a hole of the potential comes last.
relaxed = relax(crystals, "7net-0", processes=1)
for one in polymorphs(relaxed):
    chance = f"probability {one.probability:.3f}" if one.probability is not None else one.reason or "no probability"
    print(f"group {one.spacegroup}, {one.atoms.get_potential_energy() / len(one.atoms):.4f} eV/atom, {chance}, found {one.found} times")

# Left out above: `hull=False`. With it competing phases of Na–Cl are made and relaxed once, and remembered (a minute or two);
# a file of entries answers at once:  screen(crystals, reference="mp2020_formation_energies.csv")
