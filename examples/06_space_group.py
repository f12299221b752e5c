"""Sample inside a space group: every frame of the trajectory has it, exactly.

    python examples/06_space_group.py && ase gui pnma.traj
"""

from asegen import AnnealedLangevin, ScoreCalculator, random_crystal

# the group and the Wyckoff positions are given, their free parameters and the cell are not
atoms = random_crystal(spacegroup="Pnma", sites="Fe:4c,4a O:8d", seed=1)
constraint = atoms.constraints[0]
print(constraint)
print("free parameters of positions and cell:", constraint.degrees_of_freedom)

atoms.calc = ScoreCalculator("default")
AnnealedLangevin(atoms, seed=1, trajectory="pnma.traj").run()
print("a, b, c:", atoms.cell.lengths().round(3))
