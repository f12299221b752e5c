"""Rebuild a crystal from its fingerprint: basin hopping on the distance between embedded atom densities.

python examples/09_reconstruct.py
ase gui basin.traj
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.optimize import LBFGS
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from asegen import CrystalBasinHopping, EADCalculator
from asegen.descriptors.target import Target
from asegen.dynamics import Moves

# a perovskite, and all that is kept of it: some numbers for each atom that know neither origin nor orientation
sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
perovskite = Atoms("SrTiO3", scaled_positions=sites, cell=[3.905, 3.905, 3.905], pbc=True)
target = Target.of(perovskite)
print("fingerprint of", perovskite.get_chemical_formula(), "has shape", tuple(target.values.shape))

# its atoms anywhere in its cell; the distance to the fingerprint is their "energy"
atoms = perovskite.copy()
atoms.set_scaled_positions(np.random.default_rng(1).random((len(atoms), 3)))
atoms.calc = EADCalculator(target)

hopping = CrystalBasinHopping(
    atoms,
    seed=1,
    temperature=0.002,
    moves=Moves(displace=1, relocate=1, swap=0.5),
    fmax=5e-4,
    relax_steps=40,
    converged=1e-3,
    trajectory="basin.traj",
    logfile="-",
)
minima, best = [], []
hopping.attach(lambda: (minima.append(hopping.trial_energy), best.append(hopping.best_energy)))
hopping.run(60)

for move, count in hopping.counts.items():
    print(f"{move:9s} tried {count.tried:3d}, accepted {count.accepted:3d}, failed {count.failed:3d}")

# the last bit down is any optimizer's
best_one = hopping.best.copy()
best_one.calc = EADCalculator(target)
LBFGS(best_one, logfile=None).run(fmax=1e-5, steps=200)
distance = StructureMatcher().get_rms_dist(*(AseAtomsAdaptor.get_structure(a) for a in (best_one, perovskite)))
print(f"loss {best_one.get_potential_energy():.1e};", f"matches the perovskite, rms {distance[0]:.4f}" if distance else "no match")

figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
axes.semilogy(minima, "o", label="minimum of the hop")
axes.semilogy(best, label="best so far")
axes.set(xlabel="hop", ylabel="loss")
axes.legend()
figure.savefig("loss.png", dpi=150)
