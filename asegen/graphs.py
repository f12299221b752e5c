"""Neighbours of a crystal batch under periodic boundaries, exact for any shape of cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .crystals import CrystalBatch
from .errors import CrystalError

# A few atoms in a collapsed cell have millions of neighbours; better a sentence than a machine without memory.
_MOST_EDGES_PER_ATOM = 20_000


@dataclass(frozen=True)
class Graph:
    """Directed edges from atoms to images of atoms; both directions are listed."""

    source: Tensor
    """Atom at which an edge starts, shape (e,), int64, ascending."""
    target: Tensor
    """Atom whose image it ends at, shape (e,), int64."""
    shift: Tensor
    """Lattice translation of that image in units of the lattice vectors, shape (e, 3)."""
    crystal: Tensor
    """Crystal of each edge, shape (e,), int64."""

    def vectors(self, frac: Tensor, cell: Tensor) -> Tensor:
        """Edge vectors from source to target image, shape (e, 3), Å; differentiable in both arguments."""
        delta = frac[self.target] - frac[self.source] + self.shift.to(frac.dtype)
        return torch.einsum("ei,eij->ej", delta, cell[self.crystal])


def neighbours(batch: CrystalBatch, cutoff: float, centres: Tensor | None = None) -> Graph:
    """All pairs closer than a cutoff, with every periodic image and the atom's own images.

    Cell lists (vesin) find them in time linear in the number of atoms.

    Parameters
    ----------
    batch : CrystalBatch
        Coordinates need not be wrapped.
    cutoff : float, Å
    centres : Tensor, shape (m,), int64, optional
        Atoms at which edges start; default: all.

    Returns
    -------
    Graph

    Raises
    ------
    CrystalError
        A cell so small or flat that an atom has more than 20,000 neighbours.
    """
    from vesin import NeighborList

    frac = batch.frac.detach().cpu().double().numpy()
    cells = batch.cell.detach().cpu().double().numpy()
    bounds = batch.offsets.cpu().numpy()
    wanted = None
    if centres is not None:
        wanted = np.zeros(len(frac), dtype=bool)
        wanted[centres.cpu().numpy()] = True
    finder = NeighborList(cutoff=cutoff, full_list=True)
    sources, targets, shifts, crystals = [], [], [], []
    for number, (lo, hi, cell) in enumerate(zip(bounds[:-1], bounds[1:], cells, strict=True)):
        size = hi - lo
        expected = size * 4.19 * cutoff**3 / max(abs(np.linalg.det(cell)), 1e-9)
        if not np.isfinite(cell).all() or expected > _MOST_EDGES_PER_ATOM:
            volume = abs(np.linalg.det(cell))
            raise CrystalError(
                f"crystal {number}: a cell of {volume:.3g} Å³ for {size} atoms is too small for neighbours within {cutoff} Å"
            )
        inside = frac[lo:hi]
        home = np.floor(inside)
        i, j, shift = finder.compute(points=(inside - home) @ cell, box=cell, periodic=True, quantities="ijS")
        if wanted is not None:
            kept = wanted[lo:hi][i]
            i, j, shift = i[kept], j[kept], shift[kept]
        i, j = i.astype(np.int64), j.astype(np.int64)
        # shifts refer to wrapped coordinates; give them for the coordinates as they came
        shift = shift.astype(np.int64) - home[j].astype(np.int64) + home[i].astype(np.int64)
        order = np.argsort(i, kind="stable")
        sources.append(i[order] + lo)
        targets.append(j[order] + lo)
        shifts.append(shift[order])
        crystals.append(np.full(len(order), number))
    device = batch.frac.device
    source, target, shift, crystal = (torch.from_numpy(np.concatenate(part)).to(device) for part in (sources, targets, shifts, crystals))
    return Graph(source, target, shift, crystal)


def nearest(batch: CrystalBatch, k: int, cutoff: float) -> Graph:
    """The k nearest images around every atom, at most `cutoff` away (fewer where there are fewer).

    Ties are broken by the order of the list, so equal distances may be cut.
    """
    graph = neighbours(batch, cutoff)
    distance = graph.vectors(batch.frac, batch.cell).norm(dim=-1)
    order = torch.argsort(distance, stable=True)
    order = order[torch.argsort(graph.source[order], stable=True)]
    counts = torch.bincount(graph.source, minlength=len(batch.species))
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(order), device=order.device) - first[graph.source[order]]
    kept = order[rank < k]
    return Graph(graph.source[kept], graph.target[kept], graph.shift[kept], graph.crystal[kept])
