"""Local steps towards a target: Levenberg-Marquardt on the residuals of the descriptor, many trials at once.

The loss is a sum of squares that is zero at the solution, so second-order steps need the first derivatives only, and converge
in tens of evaluations where gradient descent needs hundreds. Every trial has its own damping.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..descriptors.ead import EAD
from ..descriptors.jacobian import invariants_and_jacobian
from ..descriptors.target import Target, compared_numbers, pooled


@dataclass(frozen=True)
class Fitted:
    """Where the trials ended."""

    frac: Tensor
    """Fractional positions, shape (b, n, 3)."""
    rms: Tensor
    """Root mean square residual, shape (b,); 0 is the target."""
    evaluations: int
    """Evaluations of the descriptor and its derivatives, of all trials together each."""


def fit(target: Target, frac: Tensor, cell: Tensor, *, steps: int = 40, longest: float = 0.4, solved: float = 1e-4) -> Fitted:
    """Move trials towards a target.

    Parameters
    ----------
    target : Target
        What is wanted.
    frac : Tensor, shape (b, n, 3)
        Trial positions, atoms in the order of ``target.numbers``.
    cell : Tensor, shape (3, 3)
        Lattice vectors as rows, Å.
    steps : int
        Most evaluations after the first.
    longest : float
        Longest displacement of an atom in a step, Å.
    solved : float
        Stop when a trial has a smaller rms residual.
    """
    b, n, _ = frac.shape
    to_frac = torch.linalg.inv(cell)
    damping = torch.ones(b, dtype=frac.dtype)
    residual, jacobian = _linearised(target, frac, cell)
    loss = residual.square().mean(dim=1)
    identity = torch.eye(3 * n, dtype=frac.dtype)
    evaluations = 1
    for _ in range(steps):
        if float(loss.min()) < solved**2 or float(damping.min()) > 1e5:
            break
        normal = jacobian.transpose(1, 2) @ jacobian
        slope = jacobian.transpose(1, 2) @ residual.unsqueeze(2)
        size = normal.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)
        step = -torch.linalg.solve(normal + (damping * size).view(-1, 1, 1) * identity, slope).view(b, n, 3)
        step = step * (longest / step.norm(dim=2).amax(dim=1).clamp_min(1e-12)).clamp_max(1.0).view(-1, 1, 1)
        moved = frac + step @ to_frac
        new_residual, new_jacobian = _linearised(target, moved, cell)
        evaluations += 1
        new_loss = new_residual.square().mean(dim=1)
        better = new_loss < loss  # also False for NaN
        damping = torch.where(better, damping / 4, damping * 4).clamp(1e-9, 1e6)
        frac = torch.where(better.view(-1, 1, 1), moved, frac)
        residual = torch.where(better.view(-1, 1), new_residual, residual)
        jacobian = torch.where(better.view(-1, 1, 1), new_jacobian, jacobian)
        loss = torch.where(better, new_loss, loss)
    return Fitted(frac, loss.sqrt(), evaluations)


def _linearised(target: Target, frac: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals (b, d) and their derivatives with respect to Cartesian positions (b, d, 3n)."""
    ead: EAD = target.ead
    invariants, jacobian = invariants_and_jacobian(ead, frac, cell, target.numbers)
    scale = target.scale.to(invariants)
    found = compared_numbers(invariants, scale)
    slopes = (jacobian / (2 * found * scale)[..., None, None]).flatten(3)
    values = target.values.to(found)
    if target.pooling == "sites":
        return (found - values[target.pairs(found)]).flatten(1), slopes.flatten(1, 2)
    largest, smallest = found.argmax(dim=1), found.argmin(dim=1)

    def at(atoms: Tensor) -> Tensor:
        index = atoms[:, None, :, None].expand(-1, 1, -1, slopes.shape[-1])
        return slopes.gather(1, index).squeeze(1)

    rows = [at(largest), at(smallest)]
    if target.pooling == "moments":
        deviation = found - found.mean(dim=1, keepdim=True)
        spread = (deviation.square().mean(dim=1) + 1e-8).sqrt()
        mean_slope = slopes.mean(dim=1)
        spread_slope = (deviation.unsqueeze(3) * slopes).mean(dim=1) / spread.unsqueeze(2)
        rows = [mean_slope, spread_slope, *rows]
    return pooled(found, target.pooling) - values, torch.cat(rows, dim=1)
