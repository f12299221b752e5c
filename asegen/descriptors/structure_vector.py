"""Structures as vectors and back: R = [EAD of the structure | composition fractions, N | a b c α β γ] (StructRepDiff, section 4.1).

The first part is, for every invariant ρ of the embedded atom density, the largest and the smallest over the atoms, and the smallest
distance in the crystal. The vector holds √ρ, which has the units of a sum of atomic numbers: ρ itself is quadratic in them and in every
displacement, and would be ruled by a few heavy atoms.

All of it is unchanged by rotations, translations and the order of atoms; it does depend on the choice of the cell, so crystals are
expected in standard cells (``asegen data convert``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from ase.geometry import cellpar_to_cell
from torch import Tensor

from ..crystals import CrystalBatch
from ..errors import DataError, DescriptorError
from ..graphs import Graph, neighbours
from .ead import EAD

FLATTEST = 0.05
"""Smallest volume of a cell in units of a·b·c; training cells are far above."""
SMALLEST = 1.0
"""Smallest volume per atom, Å³; hydrogen under pressure has more."""
FURTHEST = 0.5
"""How far, in atoms, an entry of a composition may be from a whole number; from 1/2 on it would be a coin toss."""
REASONS = ("number of atoms", "composition", "cell")


@dataclass(frozen=True)
class Decoded:
    """What a vector says of a crystal: everything but the positions."""

    numbers: np.ndarray
    """Atomic numbers, ascending, shape (N,)."""
    cell: np.ndarray
    """Lattice vectors as rows, shape (3, 3), Å."""
    target: Tensor
    """Descriptor that the positions must have: largest ρ, smallest ρ, smallest distance, shape (2 size + 1,), float64."""


@dataclass(frozen=True)
class Rejected:
    """Why a vector is no crystal."""

    reason: str
    """One of :data:`REASONS`."""
    sentence: str


@dataclass(frozen=True)
class StructureVector:
    """The layout of the vectors of one data set.

    Parameters
    ----------
    ead : EAD
    elements : tuple of int
        Atomic numbers that occur, ascending; one entry of the composition each.
    max_atoms : int
        Largest number of atoms that a vector may stand for.
    """

    ead: EAD
    elements: tuple[int, ...]
    max_atoms: int

    def __post_init__(self) -> None:
        if not self.elements or list(self.elements) != sorted(set(self.elements)) or not 1 <= self.elements[0] <= self.elements[-1] <= 118:
            raise DescriptorError("the elements of a structure vector must be distinct atomic numbers in ascending order")
        if self.max_atoms < 1:
            raise DescriptorError(f"max_atoms = {self.max_atoms} must be at least 1")

    @property
    def descriptor(self) -> slice:
        """√ρ pooled, and the smallest distance (Å)."""
        return slice(0, 2 * self.ead.size + 1)

    @property
    def composition(self) -> slice:
        """Share of each element among the atoms."""
        return slice(self.descriptor.stop, self.descriptor.stop + len(self.elements))

    @property
    def count(self) -> int:
        """Place of N."""
        return self.composition.stop

    @property
    def cell(self) -> slice:
        """a, b, c (Å), α, β, γ (degrees)."""
        return slice(self.count + 1, self.count + 7)

    @property
    def size(self) -> int:
        """Entries of a vector."""
        return self.cell.stop

    def describe(self) -> dict[str, Any]:
        """Plain JSON types for a header; :meth:`from_description` reads them."""
        ead = {
            "orders": list(self.ead.orders),
            "radial": [list(pair) for pair in self.ead.radial],
            "cutoff": self.ead.cutoff,
            "directions": self.ead.directions,
        }
        return {"ead": ead, "elements": list(self.elements), "max_atoms": self.max_atoms}

    @classmethod
    def from_description(cls, entries: dict[str, Any]) -> StructureVector:
        """Inverse of :meth:`describe`."""
        return cls(ead_of(entries["ead"]), tuple(int(z) for z in entries["elements"]), int(entries["max_atoms"]))

    def encode(self, batch: CrystalBatch) -> Tensor:
        """Vectors of crystals.

        Parameters
        ----------
        batch : CrystalBatch

        Returns
        -------
        Tensor, shape (b, size)
            In the dtype of the batch.

        Raises
        ------
        DataError
            A crystal with an element or a number of atoms that the vectors do not hold.
        """
        unknown = sorted(set(batch.species.tolist()) - set(self.elements))
        if unknown:
            names = ", ".join(chemical_symbols[z] for z in unknown)
            raise DataError(f"the vectors hold no place for {names}; they were made for {len(self.elements)} elements")
        if len(batch) and int(batch.num_atoms.max()) > self.max_atoms:
            raise DataError(f"a crystal has {int(batch.num_atoms.max())} atoms; the vectors were made for up to {self.max_atoms}")
        counts = batch.num_atoms.to(batch.frac.dtype)
        place = torch.zeros(119, dtype=torch.int64)
        place[list(self.elements)] = torch.arange(len(self.elements))
        fractions = batch.frac.new_zeros(len(batch), len(self.elements))
        fractions.index_put_((batch.index, place[batch.species]), (1 / counts)[batch.index], accumulate=True)
        target = pooled(self.ead, batch)
        descriptor = torch.cat([target[:, :-1].clamp_min(0).sqrt(), target[:, -1:]], dim=1)
        return torch.cat([descriptor, fractions, counts[:, None], cell_parameters(batch.cell)], dim=1)

    def decode(self, vector: Tensor) -> Decoded | Rejected:
        """What a vector says, or why it says nothing.

        Parameters
        ----------
        vector : Tensor, shape (size,)

        Raises
        ------
        DataError
            The vector has another length: it was made for other parameters or elements.
        """
        if vector.shape != (self.size,):
            shape = tuple(vector.shape)
            raise DataError(f"a vector of shape {shape} was made for other parameters or elements; here it has {self.size} entries")
        vector = vector.detach().cpu().double()
        if not bool(torch.isfinite(vector).all()):
            return Rejected("cell", "a number that is not finite")
        counts = self.counts_of(vector)
        if isinstance(counts, Rejected):
            return counts
        parameters = vector[self.cell].numpy()
        cell = cell_of(parameters)
        if cell is None:
            return Rejected("cell", f"no cell of positive volume has a, b, c, α, β, γ = {np.round(parameters, 2).tolist()}")
        if np.linalg.det(cell) < SMALLEST * counts.sum():
            return Rejected("cell", f"{np.linalg.det(cell):.2f} Å³ for {counts.sum()} atoms")
        part = vector[self.descriptor]
        target = torch.cat([part[:-1].clamp_min(0).square(), part[-1:].clamp_min(0)])
        return Decoded(np.repeat(np.array(self.elements), counts), cell, target)

    def counts_of(self, vector: Tensor) -> np.ndarray | Rejected:
        """Atoms of each element, shape (elements,): the whole numbers nearest to N times the fractions among those that sum to N."""
        total = round(float(vector[self.count]))
        if not 1 <= total <= self.max_atoms:
            return Rejected("number of atoms", f"{total} atoms, not 1 to {self.max_atoms}")
        wanted = total * vector[self.composition].numpy()
        counts = nearest_counts(wanted, total)
        off = float(np.abs(counts - wanted).max())
        if off >= FURTHEST:
            return Rejected("composition", f"no composition of {total} atoms is near: {off:.2f} atoms off")
        return counts


def ead_of(entries: dict[str, Any]) -> EAD:
    """The descriptor that a header or a recipe names.

    Raises
    ------
    DescriptorError
        Entries are missing, unknown, or impossible.
    """
    try:
        unknown = set(entries) - {"orders", "radial", "cutoff", "directions"}
        if unknown:
            raise ValueError(f"unknown entry {', '.join(sorted(unknown))}")
        radial = tuple((float(eta), float(center)) for eta, center in entries["radial"])
        orders = tuple(int(order) for order in entries["orders"])
        return EAD(orders, radial, float(entries["cutoff"]), bool(entries.get("directions", False)))
    except (KeyError, TypeError, ValueError) as error:
        raise DescriptorError(f"the descriptor needs orders, radial (pairs of eta and centre), cutoff, directions: {error}") from error


def pooled(ead: EAD, batch: CrystalBatch, graph: Graph | None = None) -> Tensor:
    """Descriptor of whole crystals: largest ρ, smallest ρ, smallest distance (at most the cutoff), shape (b, 2 size + 1)."""
    graph = neighbours(batch, ead.cutoff) if graph is None else graph
    invariants = ead(batch, graph)
    index = batch.index[:, None].expand(-1, ead.size)
    empty = invariants.new_zeros(len(batch), ead.size)
    largest, smallest = (empty.scatter_reduce(0, index, invariants, how, include_self=False) for how in ("amax", "amin"))
    distances = graph.vectors(batch.frac, batch.cell).norm(dim=1)
    nearest = distances.new_full((len(batch),), ead.cutoff).scatter_reduce(0, graph.crystal, distances, "amin")
    return torch.cat([largest, smallest, nearest[:, None]], dim=1)


def nearest_counts(wanted: np.ndarray, total: int) -> np.ndarray:
    """Non-negative whole numbers that sum to `total`, nearest to `wanted` (least squares), shape (k,).

    Each atom goes where it lowers the sum of squares most. That is optimal, because the cost of every entry is convex.
    """
    counts = np.clip(np.floor(wanted), 0, None).astype(int)
    while counts.sum() > total:
        filled = np.flatnonzero(counts > 0)
        counts[filled[np.argmin((wanted - counts)[filled])]] -= 1
    while counts.sum() < total:
        counts[np.argmax(wanted - counts)] += 1
    return counts


def cell_parameters(cell: Tensor) -> Tensor:
    """a, b, c (Å), α, β, γ (degrees) of cells, shape (b, 3, 3) → (b, 6)."""
    lengths = cell.norm(dim=-1)
    unit = cell / lengths[..., None]
    cosines = torch.stack([(unit[:, i] * unit[:, j]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))], dim=-1)
    return torch.cat([lengths, torch.rad2deg(torch.acos(cosines.clamp(-1, 1)))], dim=-1)


def cell_of(parameters: np.ndarray) -> np.ndarray | None:
    """Cell of six parameters, a along x and b in the xy plane, shape (3, 3), Å; None where there is none of positive volume."""
    lengths, angles = parameters[:3], parameters[3:]
    if lengths.min() <= 0.5 or angles.min() <= 0 or angles.max() >= 180:
        return None
    x, y, z = np.cos(np.radians(angles))
    gram = 1 - x * x - y * y - z * z + 2 * x * y * z  # (volume / abc)²
    if gram < FLATTEST**2:
        return None
    return np.asarray(cellpar_to_cell(parameters))


def count_reasons(results: list[Decoded | Rejected]) -> dict[str, int]:
    """How many vectors were rejected, by reason."""
    found = Counter(result.reason for result in results if isinstance(result, Rejected))
    return {reason: found[reason] for reason in REASONS}


__all__ = ["Decoded", "Rejected", "StructureVector", "cell_of", "cell_parameters", "count_reasons", "ead_of", "nearest_counts", "pooled"]
