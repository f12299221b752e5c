"""Keep some atoms, generate the others: ASE's FixAtoms is inpainting.

python examples/04_inpainting.py
"""

import numpy as np
from ase.constraints import FixAtoms
from ase.geometry import get_distances
from ase.spacegroup import crystal

from asegen import AnnealedLangevin, ScoreCalculator

# in cubic SrTiO3 all is known but where the titanium sits
known = crystal(("Sr", "Ti", "O"), [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.945] * 3 + [90] * 3)
titanium = known.numbers == 22
calc = ScoreCalculator("mp20")

for seed in range(5):
    atoms = known.copy()
    frac = atoms.get_scaled_positions()
    frac[titanium] = np.random.default_rng(seed).random(3)
    atoms.set_scaled_positions(frac)

    # fixed atoms do not move, and neither does the cell (AnnealedLangevin(..., cell=True) would let it)
    atoms.set_constraint(FixAtoms(mask=~titanium))
    atoms.calc = calc
    AnnealedLangevin(atoms, seed=seed, trajectory="inpainting.traj").run()

    _, off = get_distances(atoms.positions[titanium], known.positions[titanium], cell=known.cell, pbc=True)
    print(f"seed {seed}: from {frac[titanium][0].round(2)} to {off.item():.2f} Å from where it belongs")
