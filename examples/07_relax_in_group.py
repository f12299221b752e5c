"""Any ASE optimizer keeps the group: relax crystals with EMT, in the space group they are given.

    python examples/07_relax_in_group.py
"""

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from asegen import SpaceGroup, random_crystal

# a random crystal of a group carries its constraint
alloy = random_crystal("Cu3Au", spacegroup="Pm-3m", sites="Cu:3c Au:1a", seed=0)
alloy.calc = EMT()
FIRE(FrechetCellFilter(alloy), trajectory="cu3au.traj", logfile=None).run(fmax=1e-3)
print(f"Cu3Au in Pm-3m: a = {alloy.cell.lengths()[0]:.3f} Å")

# on a crystal of your own: the group is given, not detected, and small deviations are taken out
copper = bulk("Cu", cubic=True)
copper.rattle(0.05, seed=0)
copper.set_constraint(SpaceGroup("Fm-3m", copper))
copper.calc = EMT()
FIRE(FrechetCellFilter(copper), logfile=None).run(fmax=1e-3)
print(f"Cu in Fm-3m: a = {copper.cell.lengths()[0]:.3f} Å, angles {np.round(copper.cell.angles(), 6)}")
