"""Sample inside a space group: every frame of the trajectory has it, exactly.

python examples/06_space_group.py
ase gui rutile.traj
"""

from asegen import AnnealedLangevin, ScoreCalculator, random_crystal
from asegen.report import space_group

calc = ScoreCalculator("mp20")
for seed in range(5):
    # the group and the Wyckoff positions are given; the free parameters, here a, c and the x of the oxygens, are random
    atoms = random_crystal(spacegroup="P4_2/mnm", sites="Ti:2a O:4f", seed=seed)
    if seed == 0:
        print(atoms.constraints[0], "free parameters of positions and cell:", atoms.constraints[0].degrees_of_freedom)
        print("measured, rutile:       a = 4.594 Å, c = 2.959 Å, x = 0.305")
    atoms.calc = calc
    AnnealedLangevin(atoms, seed=seed, trajectory="rutile.traj").run()
    a, _, c = atoms.cell.lengths()
    x = atoms.get_scaled_positions()[atoms.numbers == 8][:, 0]
    x = x[x < 0.5].max()
    print(f"seed {seed}, space group {space_group(atoms, symprec=1e-4)}: a = {a:.3f} Å, c = {c:.3f} Å, x = {x:.3f}")
