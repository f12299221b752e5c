"""A score model is an ASE calculator, and generating a crystal is running an ASE dynamics.

python examples/01_calculator.py
ase gui gen.traj
"""

from ase.optimize import FIRE

from asegen import AnnealedLangevin, ScoreCalculator, ScoreFilter, random_crystal

# five atoms anywhere in a random cell of a volume that fits Sr, Ti and O
atoms = random_crystal("SrTiO3", seed=0)

# forces are the score of the positions, stress the score of the cell, both at a noise level sigma (Å)
atoms.calc = ScoreCalculator("default")
atoms.calc.set(sigma=1.0)
print("largest force at sigma = 1 Å:", abs(atoms.get_forces()).max().round(2), "eV/Å at kT = 1 eV")

# walk down the noise levels; every frame of the trajectory knows its sigma, seed and checkpoint
AnnealedLangevin(atoms, seed=0, trajectory="gen.traj", logfile="-").run()
print(atoms, atoms.info["checkpoint_hash"])

# ASE's optimizers follow the score at a fixed level to where it vanishes
atoms.calc.set(sigma=0.05)
FIRE(ScoreFilter(atoms), logfile=None).run(fmax=0.1, steps=50)
print("cell:", atoms.cell.cellpar().round(2))
