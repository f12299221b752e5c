"""Keep some atoms, generate the others: ASE's FixAtoms is inpainting.

python examples/04_inpainting.py
"""

import numpy as np
from ase.constraints import FixAtoms
from ase.spacegroup import crystal

from asegen import AnnealedLangevin, ScoreCalculator

# the cations of cubic SrTiO3 are known, its oxygens are not
known = crystal(("Sr", "Ti", "O"), [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.945] * 3 + [90] * 3)
atoms = known.copy()
oxygen = atoms.numbers == 8
atoms.set_scaled_positions(np.where(oxygen[:, None], np.random.default_rng(1).random((5, 3)), atoms.get_scaled_positions()))

# fixed atoms do not move, and neither does the cell (AnnealedLangevin(..., cell=True) would let it)
atoms.set_constraint(FixAtoms(mask=~oxygen))
atoms.calc = ScoreCalculator("default")
AnnealedLangevin(atoms, seed=1, trajectory="inpainting.traj").run()

print("oxygens:", atoms.get_scaled_positions()[oxygen].round(2).tolist())
print("known:  ", known.get_scaled_positions()[oxygen].round(2).tolist())
