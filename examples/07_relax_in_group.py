"""Any ASE optimizer keeps the group: relax crystals with EMT, in the space group they are given.

python examples/07_relax_in_group.py
"""

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from asegen import SpaceGroup, random_crystal
from asegen.report import space_group

# a random crystal of a group carries its constraint
alloy = random_crystal("Cu3Au", spacegroup="Pm-3m", sites="Cu:3c Au:1a", seed=0)
alloy.calc = EMT()
start = alloy.cell.lengths()[0]
FIRE(FrechetCellFilter(alloy), trajectory="cu3au.traj", logfile=None).run(fmax=1e-3)
print(f"Cu3Au in Pm-3m: a = {start:.3f} Å, relaxed {alloy.cell.lengths()[0]:.3f} Å (measured 3.75 Å)")

# on a crystal of your own: the group is given, not detected, and small deviations are taken out
copper = bulk("Cu", cubic=True)
copper.rattle(0.05, seed=0)
copper.set_constraint(SpaceGroup("Fm-3m", copper))
copper.calc = EMT()
FIRE(FrechetCellFilter(copper), logfile=None).run(fmax=1e-3)
print(f"Cu in Fm-3m: a = {copper.cell.lengths()[0]:.3f} Å, angles {np.round(copper.cell.angles(), 6)} (measured 3.615 Å)")

# the other way round: the energy likes fcc better than bcc, a crystal held in the group of bcc cannot go there
bcc = bulk("Cu", "bcc", a=2.9, cubic=True)
bcc.set_constraint(SpaceGroup("Im-3m", bcc))
bcc.calc = EMT()
FIRE(FrechetCellFilter(bcc), logfile=None).run(fmax=1e-3)
above = bcc.get_potential_energy() / len(bcc) - copper.get_potential_energy() / len(copper)
print(f"Cu in Im-3m: space group {space_group(bcc, symprec=1e-4)}, {1000 * above:.0f} meV/atom above fcc")
