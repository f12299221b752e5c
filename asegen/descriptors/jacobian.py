"""Derivatives of all invariants with respect to all positions, for many trial structures in one cell.

A gradient of one scalar needs one backward pass; a least-squares step needs the derivatives of every number. They are
written out here: a neighbour at r changes the moment of its centre by ∇(M g), and the invariant by twice the moment times that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..crystals import CrystalBatch
from ..graphs import neighbours
from .ead import EAD, exponents, monomials_of, multinomials


def invariants_and_jacobian(ead: EAD, frac: Tensor, cell: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Invariants and their derivatives with respect to Cartesian positions.

    Parameters
    ----------
    ead : EAD
    frac : Tensor, shape (b, n, 3)
        Trial positions, fractional.
    cell : Tensor, shape (3, 3)
        Lattice vectors of all trials as rows, Å.
    numbers : Tensor, shape (n,)
        Atomic numbers.

    Returns
    -------
    invariants : Tensor, shape (b, n, size)
    jacobian : Tensor, shape (b, n, size, n, 3)
        Derivative of a number of the second index with respect to the position of the fourth, 1/Å.
    """
    b, n, _ = frac.shape
    batch = CrystalBatch(numbers.repeat(b), frac.reshape(-1, 3), cell.expand(b, 3, 3), torch.full((b,), n))
    graph = neighbours(batch, ead.cutoff)
    vectors = graph.vectors(batch.frac, batch.cell)
    target = graph.target % n
    density = numbers.to(frac.dtype)[target].unsqueeze(1)
    distance = vectors.norm(dim=1).clamp_min(1e-4).unsqueeze(1)
    unit = vectors / distance
    wave = math.pi / ead.cutoff
    damping = 0.5 * (torch.cos(wave * distance) + 1)
    eta, center = vectors.new_tensor(ead.radial).T
    gauss = torch.exp(-eta * (distance - center) ** 2) * density
    radial = gauss * damping
    slope = -0.5 * wave * torch.sin(wave * distance) * gauss - 2 * eta * (distance - center) * radial
    argument = unit if ead.directions else vectors
    monomials, gradient = monomials_of(argument, ead.orders), monomial_gradients(argument, ead.orders)
    if ead.directions:  # only the part across the vector turns it
        along = (gradient @ unit.unsqueeze(2)) * unit.unsqueeze(1)
        gradient = (gradient - along) / distance.unsqueeze(2)
    # moments of all centres
    counts = torch.bincount(graph.source, minlength=b * n)
    width = max(1, int(counts.max())) if len(counts) else 1
    rank = torch.arange(len(target)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts, output_size=len(target))
    slot = graph.source * width + rank
    left = monomials.new_zeros(b * n * width, monomials.shape[1]).index_copy_(0, slot, monomials).view(b * n, width, -1)
    right = radial.new_zeros(b * n * width, radial.shape[1]).index_copy_(0, slot, radial).view(b * n, width, -1)
    moments = left.transpose(1, 2) @ right
    weights = multinomials(ead.orders, moments.dtype)
    invariants = ead.contract(moments)
    # what every neighbour does to the invariants of its centre
    at_edge = moments[graph.source]
    parts, start = [], 0
    for row, order in enumerate(ead.orders):
        these = slice(start, start + len(exponents(order)))
        start = these.stop
        double = 2 * weights[row, these].view(1, -1, 1) * at_edge[:, these]
        turned = torch.bmm(double.transpose(1, 2), gradient[:, these]) * radial.unsqueeze(2)
        stretched = (double * monomials[:, these].unsqueeze(2)).sum(dim=1) * slope
        parts.append(turned + stretched.unsqueeze(2) * unit.unsqueeze(1))
    by_edge = torch.stack(parts, dim=1).flatten(1)
    summed = by_edge.new_zeros(b * n * n, by_edge.shape[1]).index_add_(0, graph.source * n + target, by_edge)
    jacobian = summed.view(b * n, n, ead.size, 3)
    centres = torch.arange(b * n)
    # A centre that moves shifts all its neighbours the other way; its own images move with it.
    jacobian[centres, centres % n] -= jacobian.sum(dim=1)
    return invariants.view(b, n, -1), jacobian.view(b, n, n, ead.size, 3).transpose(2, 3)


def monomial_gradients(vectors: Tensor, orders: tuple[int, ...]) -> Tensor:
    """Derivatives of `monomials_of`, shape (e, monomials, 3)."""
    powers = [[torch.ones_like(vectors[:, axis])] for axis in range(3)]
    for axis in range(3):
        for _ in range(max(orders)):
            powers[axis].append(powers[axis][-1] * vectors[:, axis])
    zero = torch.zeros_like(vectors[:, 0])
    columns = []
    for order in orders:
        for exponent in exponents(order):
            for axis in range(3):
                lowered = [e - (k == axis) for k, e in enumerate(exponent)]
                if lowered[axis] < 0:
                    columns.append(zero)
                else:
                    factors = [powers[k][e] for k, e in enumerate(lowered)]
                    columns.append(exponent[axis] * factors[0] * factors[1] * factors[2])
    return torch.stack(columns, dim=1).view(len(vectors), -1, 3)
