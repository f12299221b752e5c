"""Crystal graph convolutional network: crystals to activations and an energy per atom.

After T. Xie and J. C. Grossman, Phys. Rev. Lett. 120, 145301 (2018). Two things differ, so that equal crystals give equal
numbers:

* The paper takes the 12 nearest neighbours. In most crystals the 12th is one of several at the same distance, and which
  of them is taken depends on the order of the atoms and on the cell. Here the distance of the 12th sets the reach of an atom
  (:func:`local_graph`), and everything within takes part, with a weight that falls smoothly to zero.
* The paper normalises over the batch. Here every atom is normalised by itself, in training as afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from ..crystals import CrystalBatch
from ..errors import CrystalError
from ..graphs import neighbours
from .base import ElementEmbedding

#: Neighbours whose distance sets the reach of an atom, as in the paper.
NEIGHBOURS = 12
#: Nothing farther away counts, Å, as in the paper's code.
CUTOFF = 8.0
# The reach is this times the distance of the 12th neighbour; weights fall from one at that distance to zero at the reach.
_REACH = 1.25
# Atoms on top of each other would have no reach at all; this share of the cutoff, 2 Å, is shorter than any in a real crystal.
_SHORTEST_REACH = 0.25
# Five times the density of diamond has 2,000 atoms within 8 Å; beyond, the search is narrowed to about as many.
_MOST_WITHIN = 2000.0
# Heaps of atoms and flat cells have more pairs than a crystal; better a sentence than a machine without memory.
_MOST_PAIRS, _MOST_EDGES = 1e7, 1_000_000
# Edges handled at a time, about 80 MB in double precision.
_EDGES_AT_A_TIME = 16_384


@dataclass(frozen=True)
class LocalGraph:
    """Atoms of some crystals and the distances to their surroundings; no positions, so nothing that depends on a frame."""

    species: Tensor
    """Atomic numbers, shape (n,), int64."""
    crystal: Tensor
    """Crystal of each atom, shape (n,), int64, ascending."""
    source: Tensor
    """Atom that an edge belongs to, shape (e,), int64."""
    target: Tensor
    """Atom whose image is near it, shape (e,), int64."""
    distance: Tensor
    """Shape (e,), Å."""
    weight: Tensor
    """One within the distance of the 12th neighbour, zero at the reach, shape (e,)."""
    count: int = 1
    """Number of crystals."""

    @staticmethod
    def join(graphs: Sequence[LocalGraph]) -> LocalGraph:
        """Graph of all crystals of some graphs, in their order."""
        atoms = np.cumsum([0] + [len(g.species) for g in graphs])
        crystals = np.cumsum([0] + [g.count for g in graphs])
        return LocalGraph(
            torch.cat([g.species for g in graphs]),
            torch.cat([g.crystal + int(c) for g, c in zip(graphs, crystals[:-1], strict=True)]),
            torch.cat([g.source + int(a) for g, a in zip(graphs, atoms[:-1], strict=True)]),
            torch.cat([g.target + int(a) for g, a in zip(graphs, atoms[:-1], strict=True)]),
            torch.cat([g.distance for g in graphs]),
            torch.cat([g.weight for g in graphs]),
            int(crystals[-1]),
        )

    def to(self, dtype: torch.dtype) -> LocalGraph:
        """The graph with its real numbers in another type."""
        return replace(self, distance=self.distance.to(dtype), weight=self.weight.to(dtype))


def local_graph(atoms: Atoms) -> LocalGraph:
    """Surroundings of every atom of a crystal.

    The reach of an atom is 5/4 of the distance of its 12th neighbour, between 2 and 8 Å (less among crowded atoms). It is a
    continuous function of the geometry and the same in every cell of the crystal.

    Parameters
    ----------
    atoms : ase.Atoms
        Any density: among crowded atoms the search ends before 8 Å.

    Returns
    -------
    LocalGraph
        In double precision.

    Raises
    ------
    CrystalError
        No atoms, not periodic, a cell without volume, or so many atoms in so small or flat a cell that there are millions of pairs.
    """
    batch = CrystalBatch.from_atoms(atoms)
    cell, size = atoms.cell.array, len(atoms)
    volume = abs(float(np.linalg.det(cell)))
    cutoff = min(CUTOFF, (_MOST_WITHIN * volume / size * 3 / (4 * math.pi)) ** (1 / 3))
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    pairs = size**2 * float(np.prod(np.floor(2 * cutoff / heights) + 1))  # if all were in one place
    crowded = CrystalError(f"the crystal has {size} atoms in {volume:.3g} Å³, {heights.min():.3g} Å high: too crowded for neighbours")
    if not pairs < _MOST_PAIRS:
        raise crowded
    graph = neighbours(batch, cutoff)
    distance = graph.vectors(batch.frac, batch.cell).norm(dim=-1)
    order = torch.argsort(distance, stable=True)
    order = order[torch.argsort(graph.source[order], stable=True)]
    counts = torch.bincount(graph.source, minlength=size)
    first = counts.cumsum(0) - counts
    reach = torch.full((size,), CUTOFF, dtype=distance.dtype)
    full = counts >= NEIGHBOURS
    reach[full] = distance[order[first[full] + NEIGHBOURS - 1]] * _REACH
    reach = reach.clamp(_SHORTEST_REACH * cutoff, cutoff)
    share = distance / reach[graph.source]
    kept = torch.nonzero(share < 1.0)[:, 0]
    if len(kept) > _MOST_EDGES:
        raise crowded
    # from 1 at 1/1.25 of the reach to 0 at the reach, slopes included
    weight = 0.5 + 0.5 * torch.cos(math.pi * ((share[kept] - 1 / _REACH) / (1 - 1 / _REACH)).clamp(min=0.0))
    return LocalGraph(batch.species, torch.zeros_like(batch.species), graph.source[kept], graph.target[kept], distance[kept], weight)


class GatedConvolution(nn.Module):
    """One convolution: what an atom hears from each neighbour passes a gate (eq. 5 of the paper)."""

    def __init__(self, width: int, gaussians: int) -> None:
        super().__init__()
        # the linear map of (atom, neighbour, distance), as the sum of three, so that atoms are mapped once and not per edge
        self.own = nn.Linear(width, 2 * width)
        self.other = nn.Linear(width, 2 * width, bias=False)
        self.edge = nn.Linear(gaussians, 2 * width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, graph: LocalGraph, expanded: Tensor, total: Tensor) -> Tensor:
        own, other, heard = self.own(states), self.other(states), torch.zeros_like(states)
        for lo in range(0, len(expanded), _EDGES_AT_A_TIME):
            part = slice(lo, lo + _EDGES_AT_A_TIME)
            gate, core = (self.edge(expanded[part]) + own[graph.source[part]] + other[graph.target[part]]).chunk(2, -1)
            message = torch.sigmoid(gate) * nn.functional.softplus(core) * graph.weight[part, None]
            heard = heard.index_add(0, graph.source[part], message)
        # crowded atoms hear the mean, lonely ones the sum: bounded whatever the crystal
        return nn.functional.softplus(states + self.norm(heard / total[:, None]))


class CGCNN(nn.Module):
    """Energy per atom of crystals, and the activations it is read from.

    Parameters
    ----------
    width : int
        Numbers per atom.
    layers : int
        Convolutions.
    hidden : int
        Activations per crystal.
    gaussians : int
        Functions that a distance is expanded in, evenly from 0 to 8 Å.
    """

    def __init__(self, width: int = 64, layers: int = 3, hidden: int = 96, gaussians: int = 41) -> None:
        super().__init__()
        self.embedding = ElementEmbedding(width)
        self.convolutions = nn.ModuleList(GatedConvolution(width, gaussians) for _ in range(layers))
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, 1)
        self.centres: Tensor
        self.register_buffer("centres", torch.linspace(0.0, CUTOFF, gaussians), persistent=False)

    def forward(self, graph: LocalGraph) -> tuple[Tensor, Tensor]:
        """Activations, shape (b, hidden), and energies per atom in units of the training data's spread, shape (b,)."""
        spacing = CUTOFF / (len(self.centres) - 1)
        expanded = torch.exp(-(((graph.distance[:, None] - self.centres) / spacing) ** 2))
        states = self.embedding(graph.species)
        total = torch.zeros_like(states[:, 0]).index_add_(0, graph.source, graph.weight).clamp(min=NEIGHBOURS)
        for convolution in self.convolutions:
            states = convolution(states, graph, expanded, total)
        sizes = torch.bincount(graph.crystal, minlength=graph.count)
        pooled = states.new_zeros(graph.count, states.shape[1]).index_add_(0, graph.crystal, states) / sizes[:, None]
        activations = nn.functional.softplus(self.hidden(nn.functional.softplus(pooled)))
        return activations, self.output(activations)[:, 0]
