"""What every network takes and returns. A network knows nothing of sampling or of how it is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..symmetry.symmetry import Symmetry

NUM_SPECIES = 119  # atomic numbers 0 (not decided) to 118


@dataclass(frozen=True)
class NetworkInput:
    """Noisy crystals, their level and what is known about them."""

    species: Tensor
    """Atomic numbers, 0 where not decided, shape (n,), int64."""
    frac: Tensor
    """Fractional coordinates, shape (n, 3)."""
    cell: Tensor
    """Lattice vectors as rows, shape (b, 3, 3), Å."""
    lattice: Tensor
    """Whitened lattice coordinates of those cells, shape (b, 6)."""
    num_atoms: Tensor
    """Atoms per crystal, shape (b,), int64."""
    time: Tensor
    """Noise level as time in [0, 1], shape (b,)."""
    volume: Tensor
    """Reference volume, shape (b,), Å³."""
    position_norm: Tensor
    """Root mean square of the position score at that level, 1/fractional units, shape (b,)."""
    lattice_alpha: Tensor
    """Share α of the clean lattice that is left at that level, shape (b,); the noise has width √(1 − α²)."""
    condition: Tensor | None = None
    """What else is fixed (space group, properties, …) as one vector per crystal, shape (b, c)."""
    symmetry: Symmetry | None = None
    """What the crystals have exactly, elements included, for networks that can save work by it; it never changes an answer."""


class NetworkOutput(NamedTuple):
    """Raw outputs, each about unit size at every noise level; a system turns them into scores."""

    position: Tensor
    """Position score over its root mean square, fractional components, shape (n, 3)."""
    lattice: Tensor
    """Velocity α ε − s y of the lattice coordinates, shape (b, 6)."""
    elements: Tensor
    """Logits over atomic numbers, shape (n, NUM_SPECIES)."""


class Network(Protocol):
    """Noisy crystals to raw outputs."""

    def __call__(self, inputs: NetworkInput) -> NetworkOutput: ...


@cache
def element_table() -> list[list[float]]:
    """What the periodic table says about elements 1 to 118 (``data/make_elements.py``), about unit size."""
    return json.loads((files("asegen") / "assets" / "elements.json").read_text())


class ElementEmbedding(nn.Module):
    """Vector of an element: a linear map of what the periodic table says, plus a learned correction."""

    def __init__(self, width: int) -> None:
        super().__init__()
        table = torch.tensor(element_table())
        features = torch.zeros(NUM_SPECIES, table.shape[1])
        features[1 : 1 + len(table)] = table
        self.register_buffer("features", features)
        self.known = nn.Linear(features.shape[1], width)
        self.learned = nn.Embedding(NUM_SPECIES, width)
        nn.init.normal_(self.learned.weight, std=0.1)

    def forward(self, species: Tensor) -> Tensor:
        table = self.known(self.features) + self.learned.weight
        return table[species]


class LevelEmbedding(nn.Module):
    """Vector of what belongs to a whole crystal: noise level, size, volume, condition, and (not for networks that must
    not depend on the choice of cell) the lattice coordinates."""

    def __init__(self, width: int, num_conditions: int = 0, max_size: int = 64, use_lattice: bool = True) -> None:
        super().__init__()
        self.use_lattice = use_lattice
        self.waves: Tensor
        self.register_buffer("waves", torch.arange(1, 17, dtype=torch.float32) * 1.5707963)
        self.size = nn.Embedding(max_size + 1, width)
        self.num_conditions = num_conditions
        self.mlp = nn.Sequential(nn.Linear(32 + 1 + 6 * use_lattice + 2 + num_conditions, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, inputs: NetworkInput) -> Tensor:
        time = inputs.time.to(self.waves.dtype)
        waves = time[:, None] * self.waves
        num_atoms = inputs.num_atoms.to(waves.dtype)
        per_atom = (inputs.volume.to(waves.dtype) / num_atoms / 18.0).log()
        parts = [waves.sin(), waves.cos(), time[:, None]]
        if self.use_lattice:
            parts.append(inputs.lattice.to(waves.dtype))
        parts += [per_atom[:, None], (num_atoms.log() - 2.0)[:, None]]
        if self.num_conditions:
            absent = waves.new_zeros(len(time), self.num_conditions)
            parts.append(absent if inputs.condition is None else inputs.condition.to(waves.dtype))
        size = self.size(inputs.num_atoms.clamp(max=self.size.num_embeddings - 1))
        return self.mlp(torch.cat(parts, -1)) + size
