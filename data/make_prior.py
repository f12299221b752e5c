"""Measure the prior of random crystals from training arrays and write asegen/assets/prior.json.

    python data/make_prior.py TRAINING_ARRAYS

Atomic volumes are the non-negative least squares fit of cell volumes; the lattice numbers are the mean and the
standard deviation of the whitened lattice coordinates (asegen/prior.py) about a cube of that volume.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from asegen.datasets import CrystalArrays
from asegen.lattice import log_metric, pack
from asegen.prior import ISO_BASIS

arrays = CrystalArrays.open(sys.argv[1])
counts = np.zeros((len(arrays), 119))
owner = np.repeat(np.arange(len(arrays)), arrays.num_atoms)
np.add.at(counts, (owner, np.asarray(arrays.numbers, dtype=int)), 1.0)
volume = np.abs(np.linalg.det(np.asarray(arrays.cell, dtype=float)))
# relative errors count, so every row is divided by its volume
fit, _ = nnls(counts / volume[:, None], np.ones(len(volume)))
seen = counts.sum(0) > 0
reference = counts @ fit
log_cell = log_metric(torch.from_numpy(np.asarray(arrays.cell, dtype=float)))
log_cell = log_cell - torch.from_numpy(np.log(reference) / 3)[:, None, None] * torch.eye(3, dtype=torch.float64)
coordinates = pack(log_cell).numpy() @ np.asarray(ISO_BASIS).T
ratio = np.log(volume / reference)
print(f"{len(arrays)} crystals; log volume ratio median {np.median(ratio):.4f}, spread {ratio.std():.4f}")
# robust spread: a few layered crystals should not set the width of the start
table = {
    "source": arrays.meta["source"],
    "atomic_volumes": {str(z): round(float(fit[z]), 3) for z in range(1, 119) if seen[z]},
    "lattice_mean": [round(float(x), 4) for x in coordinates.mean(0)],
    "lattice_std": [round(float(x), 4) for x in coordinates.std(0)],
}
print(json.dumps({k: table[k] for k in ("lattice_mean", "lattice_std")}))
print("smallest volumes", sorted((v, z) for z, v in table["atomic_volumes"].items())[:6])
out = Path(__file__).resolve().parents[1] / "asegen" / "assets" / "prior.json"
out.write_text(json.dumps(table, indent=1) + "\n")
