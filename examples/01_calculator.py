"""A score model is an ASE calculator, and generating a crystal is running an ASE dynamics.

python examples/01_calculator.py
ase gui gen.traj
"""

import numpy as np
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE

from asegen import AnnealedLangevin, ScoreCalculator, ScoreFilter, random_crystal
from asegen.report import space_group

# five atoms anywhere in a random cell of a volume that fits Sr, Ti and O
atoms = random_crystal("SrTiO3", seed=0)
print("start: cell", atoms.cell.cellpar().round(1))

# walk down the noise levels; every frame of the trajectory has its score as forces, and knows its sigma, seed and checkpoint
atoms.calc = ScoreCalculator("mp20")
AnnealedLangevin(atoms, seed=0, trajectory="gen.traj", logfile="-").run()

# a perovskite: measured are a = 3.905 Å, space group 221, and six oxygens 1.95 Å away from the titanium
first, second, distance = neighbor_list("ijd", atoms, 2.4)
around_titanium = distance[(atoms.numbers[first] == 22) & (atoms.numbers[second] == 8)]
print("end: cell", atoms.cell.cellpar().round(2), "space group", space_group(atoms, symprec=0.2))
print("Ti-O:", np.sort(around_titanium).round(2), "Å")

# at a fixed level ASE's optimizers follow the forces, here from where the atoms are shaken to (the cell stays: docs/conventions.md)
before = atoms.positions.copy()
atoms.rattle(0.1, seed=1)
atoms.calc.set(sigma=0.1)
print("largest force of the shaken crystal:", abs(atoms.get_forces()).max().round(1), "eV/Å at kT = 1 eV")
FIRE(ScoreFilter(atoms), logfile=None).run(fmax=0.05, steps=100)
moved = atoms.positions - before
print("back to within", np.linalg.norm(moved - moved.mean(0), axis=1).max().round(3), "Å")
