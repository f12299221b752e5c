"""The embedded atom density (EAD): invariants of the density that an atom's neighbours make at its place.

For every atom i, order L and radial function g,

    ρ_i(L, g) = Σ_{a+b+c=L} L!/(a! b! c!) [ Σ_j Z_j x_ij^a y_ij^b z_ij^c g(r_ij) ]²,      g(r) = exp(−η (r − r_s)²) f_c(r),

with all periodic images j within the cutoff and f_c(r) = ½ (cos(π r / r_c) + 1) (Zhang et al., J. Phys. Chem. Lett. 10, 4962
(2019); StructRepDiff, eq. 2). The bracket, a moment of the density, is a matrix product of monomials and radial functions over
the neighbours, which is how it is computed. With `directions` the monomials are those of the unit vector r_ij/r_ij, so that
orders and distances have comparable sizes; without, they are the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..crystals import CrystalBatch
from ..errors import DescriptorError
from ..graphs import Graph, neighbours

EDGES_AT_ONCE = 100_000
"""Neighbours held at a time; more are treated block by block, and once more when a gradient is taken."""
_FAINT = 45.0
"""Exponent η (r − r_s)² beyond which a radial function is nothing beside the others: exp(−45) = 3e-20."""


@dataclass(frozen=True)
class EAD:
    """The parameters of the descriptor.

    Two descriptors with different parameters cannot be compared: whatever stores descriptors stores these beside them.
    """

    orders: tuple[int, ...] = (0, 1, 2, 3)
    """Orders L, each at most 4."""
    radial: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    """Pairs (η, r_s): inverse squared width in Å⁻², centre in Å."""
    cutoff: float = 20.0
    """r_c, Å."""
    directions: bool = False
    """Monomials of the unit vector instead of the vector."""

    def __post_init__(self) -> None:
        if not self.orders or not self.radial or any(not 0 <= order <= 4 for order in self.orders):
            given = f"{self.orders}, {self.radial}"
            raise DescriptorError(f"the descriptor needs orders from 0 to 4 and at least one radial function, not {given}")
        if not self.cutoff > 0 or any(eta <= 0 for eta, _ in self.radial):
            raise DescriptorError("the cutoff and every eta of the descriptor must be positive")

    @property
    def size(self) -> int:
        """Numbers per atom."""
        return len(self.orders) * len(self.radial)

    @cached_property
    def reach(self) -> float:
        """Distance beyond which every radial function is below 1e-19, at most the cutoff, Å: farther neighbours are left out."""
        return min(self.cutoff, max(center + math.sqrt(_FAINT / eta) for eta, center in self.radial))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Name of every number of an atom, in order."""
        return tuple(f"L={order} eta={eta:g} rs={center:g}" for order in self.orders for eta, center in self.radial)

    def __call__(self, batch: CrystalBatch, graph: Graph | None = None) -> Tensor:
        """Invariants of all atoms.

        Parameters
        ----------
        batch : CrystalBatch
            Differentiable, twice and more, in ``frac`` and ``cell``.
        graph : Graph, optional
            Neighbours within `reach` (or farther) found before.

        Returns
        -------
        Tensor, shape (n, size)
            Order by order, radial function by radial function.

        Raises
        ------
        CrystalError
            A cell so small that an atom has too many neighbours within `reach`.
        """
        graph = neighbours(batch, self.reach) if graph is None else graph
        counts = torch.bincount(graph.source, minlength=len(batch.species))
        blocks = _blocks(counts, EDGES_AT_ONCE)
        densities = batch.species.to(batch.frac.dtype)
        parts = []
        for atoms, edges in blocks:
            arguments = (batch.frac, batch.cell, densities, graph, atoms, edges, counts[atoms])
            if len(blocks) == 1 or not torch.is_grad_enabled():
                parts.append(self._invariants(*arguments))
            else:
                parts.append(checkpoint(self._invariants, *arguments, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(parts)

    def _invariants(
        self, frac: Tensor, cell: Tensor, densities: Tensor, graph: Graph, atoms: slice, edges: slice, counts: Tensor
    ) -> Tensor:
        """Invariants of a block of atoms, shape (atoms, size)."""
        source, target = graph.source[edges], graph.target[edges]
        width = int(counts.max()) if len(counts) else 0
        if width == 0:
            return frac.new_zeros(len(counts), self.size)
        # (index_select and not indexing: its derivative is several times faster)
        delta = frac.index_select(0, target) - frac.index_select(0, source) + graph.shift[edges].to(frac.dtype)
        if len(cell) == 1:
            vectors = delta @ cell[0]
        else:
            vectors = (delta.unsqueeze(1) @ cell.index_select(0, graph.crystal[edges])).squeeze(1)
        # One row for each function: elementwise work runs along memory. What multiplies both factors multiplies the smaller one.
        columns = vectors.T.contiguous()
        distances = _lengths(columns)
        monomials = torch.stack(self._powers(columns, distances, self._damping(distances) * densities.index_select(0, target)))
        radial = self._gaussians(distances)
        # Neighbours of an atom side by side, short lists filled up with zeros: one matrix product for each atom.
        starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts, output_size=len(source))
        slot = (source - atoms.start) * width + torch.arange(len(source), device=source.device) - starts
        left = monomials.new_zeros(len(monomials), len(counts) * width).index_copy(1, slot, monomials)
        right = radial.new_zeros(len(radial), len(counts) * width).index_copy(1, slot, radial)
        moments = left.view(-1, len(counts), width).transpose(0, 1) @ right.view(-1, len(counts), width).permute(1, 2, 0)
        return self.contract(moments)

    def contract(self, moments: Tensor) -> Tensor:
        """Invariants of moments, (n, monomials, radial) → (n, size)."""
        weights = multinomials(self.orders, moments.dtype, moments.device)
        return torch.einsum("lm,nmg->nlg", weights, moments**2).flatten(1)

    def parts(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Monomials, shape (e, monomials), and radial functions, shape (e, radial), of neighbour vectors, shape (e, 3)."""
        columns = vectors.T
        distances = _lengths(columns)
        monomials = self._powers(columns, distances, torch.ones_like(distances))
        return torch.stack(monomials, dim=1), (self._gaussians(distances) * self._damping(distances)).T

    def _damping(self, distances: Tensor) -> Tensor:
        inside = (distances < self.cutoff).to(distances.dtype)
        return 0.5 * (torch.cos(math.pi / self.cutoff * distances) + 1) * inside

    def _gaussians(self, distances: Tensor) -> Tensor:
        """exp(−η (r − r_s)²), shape (radial, e)."""
        eta, center = distances.new_tensor(self.radial).T.unsqueeze(2)
        away = distances - center
        # Exponentials that underflow take ten times as long, and exp(−80) is as good as nothing.
        return torch.exp((away * (away * -eta)).clamp_min(-80.0))

    def _powers(self, columns: Tensor, distances: Tensor, first: Tensor) -> list[Tensor]:
        return _powers(columns / distances if self.directions else columns, self.orders, first)


OURS = EAD(orders=(0, 1, 2, 3), radial=tuple((1.0, 1.0 + 0.75 * k) for k in range(8)), cutoff=6.5, directions=True)
"""Short-ranged, wide enough for a descent from an atom's distance away: 32 numbers per atom."""
PAPER = EAD(orders=(0, 1, 2), radial=tuple((eta, center) for eta in (1.0, 20.0, 90.0) for center in (0.0, 2.0, 4.0, 6.0)), cutoff=20.0)
"""The widths of the group's code (η = 1, 20, 90 Å⁻²) and the paper's cutoff."""


def monomials_of(vectors: Tensor, orders: tuple[int, ...]) -> Tensor:
    """x^a y^b z^c of all orders asked for, shape (e, number of monomials)."""
    return torch.stack(_powers(vectors.T, orders, torch.ones_like(vectors[:, 0])), dim=1)


def _powers(columns: Tensor, orders: tuple[int, ...], first: Tensor) -> list[Tensor]:
    """x^a y^b z^c times `first`, each of shape (e,), from coordinates of shape (3, e)."""
    powers: dict[tuple[int, int, int], Tensor] = {(0, 0, 0): first}
    for order in range(1, max(orders) + 1):
        for exponent in exponents(order):
            axis = next(k for k in range(3) if exponent[k])
            lower = tuple(e - (k == axis) for k, e in enumerate(exponent))
            powers[exponent] = powers[lower] * columns[axis]  # type: ignore[index]
    return [powers[e] for order in orders for e in exponents(order)]


def _lengths(columns: Tensor) -> Tensor:
    """Lengths of vectors of shape (3, e), at least 1e-6 Å: derivatives of all orders are finite where two atoms coincide."""
    return (columns * columns).sum(dim=0).clamp_min(1e-12).sqrt()


@lru_cache(maxsize=16)
def exponents(order: int) -> tuple[tuple[int, int, int], ...]:
    """All (a, b, c) with a + b + c = order."""
    return tuple((a, b, order - a - b) for a, b in product(range(order, -1, -1), repeat=2) if a + b <= order)


def multinomials(orders: tuple[int, ...], dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Multinomial coefficients as a matrix from monomials to orders, shape (orders, monomials)."""
    return torch.tensor(_multinomials(orders), dtype=dtype, device=device)


@lru_cache(maxsize=16)
def _multinomials(orders: tuple[int, ...]) -> list[list[float]]:
    columns = [(row, exponent) for row, order in enumerate(orders) for exponent in exponents(order)]
    weights = [[0.0] * len(columns) for _ in orders]
    for column, (row, (a, b, c)) in enumerate(columns):
        weights[row][column] = math.factorial(a + b + c) / (math.factorial(a) * math.factorial(b) * math.factorial(c))
    return weights


def _blocks(counts: Tensor, most: int) -> list[tuple[slice, slice]]:
    """Consecutive atoms with at most so many edges together (at least one atom), and the slice of their edges."""
    found: list[tuple[slice, slice]] = []
    first = edge = total = 0
    for atom, count in enumerate(counts.tolist()):
        if atom > first and total + count > most:
            found.append((slice(first, atom), slice(edge, edge + total)))
            first, edge, total = atom, edge + total, 0
        total += count
    found.append((slice(first, len(counts)), slice(edge, edge + total)))
    return found
