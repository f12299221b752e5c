"""What a crystal looks like before anything is known but its formula: cells of a sane volume, atoms anywhere.

The reference volume of a crystal is the sum of its elements' atomic volumes, fitted to the training cells
(``assets/prior.json``, made by ``data/make_prior.py``). The lattice coordinates ``y`` of a cell are the six
components of its log metric (:mod:`asegen.lattice`), measured from a cube of the reference volume, in a basis whose
first vector is the pure change of volume, and divided by their spread over the data. Random cells are normal in ``y``;
the lattice kernel's variance-preserving noise ends at the same normal.
"""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from .crystals import MASK
from .lattice import cell_from_log, log_metric, pack, standard_cell, unpack

_S2, _S3, _S6 = math.sqrt(2), math.sqrt(3), math.sqrt(6)
#: Orthonormal basis of the packed log metric: volume, two stretches, three shears. Shape (6, 6).
ISO_BASIS = (
    (1 / _S3, 1 / _S3, 1 / _S3, 0, 0, 0),
    (1 / _S2, -1 / _S2, 0, 0, 0, 0),
    (-1 / _S6, -1 / _S6, 2 / _S6, 0, 0, 0),
    (0, 0, 0, 1, 0, 0),
    (0, 0, 0, 0, 1, 0),
    (0, 0, 0, 0, 0, 1),
)


@cache
def _table() -> dict:
    return json.loads((files("asegen") / "assets" / "prior.json").read_text())


@cache
def atomic_volumes() -> np.ndarray:
    """Volume of an atom of each element in the training cells, shape (119,), Å³; NaN where it was never seen.

    Index 0 (element not known) holds the average.
    """
    volumes = np.full(119, np.nan)
    for number, volume in _table()["atomic_volumes"].items():
        volumes[int(number)] = volume
    volumes[MASK] = 18.0
    # a few light elements sit in the gaps of others and get no volume from the fit
    return np.where(volumes < 1.0, 1.0, volumes)


def reference_volume(species: Tensor, index: Tensor, count: int) -> Tensor:
    """Sum of atomic volumes per crystal, shape (count,), Å³, float64."""
    volumes = _volume_table(species.device)[species]
    return torch.zeros(count, dtype=torch.float64, device=species.device).index_add_(0, index, volumes)


@cache
def _volume_table(device: torch.device) -> Tensor:
    return torch.from_numpy(np.nan_to_num(atomic_volumes(), nan=18.0)).to(device)


def lattice_coordinates(cell: Tensor, volume: Tensor) -> Tensor:
    """Whitened lattice coordinates y of cells about cubes of the reference volume.

    Parameters
    ----------
    cell : Tensor, shape (b, 3, 3), Å
    volume : Tensor, shape (b,), Å³
        Reference volume.

    Returns
    -------
    Tensor, shape (b, 6)
        About standard normal over the training data.
    """
    identity = torch.eye(3, dtype=cell.dtype, device=cell.device)
    centred = log_metric(cell) - (volume.log() / 3).to(cell.dtype)[:, None, None] * identity
    basis, mean, std = _whitening(cell)
    return (pack(centred) @ basis.T - mean) / std


def log_cell_of(y: Tensor, volume: Tensor) -> Tensor:
    """Log metric of cells with whitened lattice coordinates `y`, shape (b, 3, 3)."""
    identity = torch.eye(3, dtype=y.dtype, device=y.device)
    basis, mean, std = _whitening(y)
    return unpack((y * std + mean) @ basis) + (volume.log() / 3).to(y.dtype)[:, None, None] * identity


def log_gradient_of(score: Tensor) -> Tensor:
    """Gradient with respect to the log metric from the one with respect to y: (b, 6) to (b, 3, 3)."""
    basis, _, std = _whitening(score)
    return unpack((score / std) @ basis)


def lattice_score_of(log_gradient: Tensor) -> Tensor:
    """Gradient with respect to y from the one with respect to the log metric: (b, 3, 3) to (b, 6)."""
    packed = pack(log_gradient)
    basis, _, std = _whitening(packed)
    return (packed @ basis.T) * std


def lattice_tangent_of(log_change: Tensor) -> Tensor:
    """Change of y under a small change of the log metric: (b, 3, 3) to (b, 6)."""
    packed = pack(log_change)
    basis, _, std = _whitening(packed)
    return (packed @ basis.T) / std


def _whitening(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _whitening_in(like.dtype, like.device)


@cache
def _whitening_in(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    table = _table()
    values = (ISO_BASIS, table["lattice_mean"], table["lattice_std"])
    basis, mean, std = (torch.tensor(value, dtype=dtype, device=device) for value in values)
    return basis, mean, std


def start_crystal(numbers: np.ndarray, seed: int, volume: float | None = None) -> Atoms:
    """Random crystal of given atomic numbers (0: not decided) about a cube of the reference volume, Å³."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    species = torch.as_tensor(np.asarray(numbers), dtype=torch.int64)
    index = torch.zeros(len(species), dtype=torch.int64)
    reference = reference_volume(species, index, 1) if volume is None else torch.tensor([volume], dtype=torch.float64)
    y = torch.randn(1, 6, generator=generator, dtype=torch.float64)
    frac = torch.rand(len(species), 3, generator=generator, dtype=torch.float64)
    cell = standard_cell(cell_from_log(log_cell_of(y, reference)))[0]
    atoms = Atoms(numbers=numbers, scaled_positions=frac.numpy(), cell=cell.numpy(), pbc=True)
    atoms.info["seed"] = int(seed)
    if volume is not None:
        atoms.info["reference_volume"] = float(volume)
    return atoms
