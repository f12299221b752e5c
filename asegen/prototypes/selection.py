"""The order in which candidates are tried: support by like candidates first, no near repeats early on."""

from __future__ import annotations

import torch
from torch import Tensor

from .table import Family

#: Scale of the squared distance between environments (relative to their size) over which two candidates support each other.
LIKENESS = 0.02


def distances(family: Family, index: Tensor, other: Tensor | None = None) -> Tensor:
    """How different candidates of one formula are, shape (t, t): 0 for equal surroundings of all elements, about 1 for unlike ones.

    With `other`, shape (u,), from each of the candidates to each of those, shape (t, u).

    Compared are the numbers of neighbours of every element in every shell around every element, so prototypes of different
    groups that are nearly the same crystal are close.
    """
    own = surroundings(family, index)
    theirs = own if other is None else surroundings(family, other)
    size = own.square().sum(1)[:, None] + theirs.square().sum(1)[None]
    return torch.cdist(own, theirs).square() / (size + 1e-9)


def surroundings(family: Family, index: Tensor) -> Tensor:
    """Neighbours of every element in every shell around every element, weighted by the elements' shares, shape (t, k · k · shells)."""
    prototype, order = family.split(index)
    where = torch.argsort(family.orders[order], 1)
    rows = torch.arange(len(index))[:, None, None]
    shells = family.environment[prototype][rows, where[:, :, None], where[:, None, :]]
    return (shells * family.share.sqrt()[:, None, None]).reshape(len(index), -1)


def select(family: Family, index: Tensor, probability: Tensor, first: Tensor, diversity: float) -> list[int]:
    """Order of candidates.

    A candidate's merit is its own probability plus that of like candidates, because an answer counts as right if it is
    nearly the right crystal. The best is taken; then, again and again, the best of the rest, where the merit of those
    like one already taken is lowered by the factor ``1 - diversity · likeness``.

    Parameters
    ----------
    family : Family
    index : Tensor, shape (t,)
    probability : Tensor, shape (t,)
    first : Tensor of bool, shape (t,)
        Candidates that come before all others.
    diversity : float
        Between 0 (sorted by probability) and 1.
    """
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity = {diversity} must lie between 0 and 1")
    likeness = torch.exp(-distances(family, index) / LIKENESS).double()
    merit = likeness @ probability if diversity > 0 else probability.clone()
    damping = torch.ones_like(merit)
    order: list[int] = []
    left = torch.ones(len(index), dtype=torch.bool)
    while left.any():
        pool = left & first if (left & first).any() else left
        score = torch.where(pool, (merit if not order else probability) * damping, -1.0)
        best = int(score.argmax())
        order.append(best)
        left[best] = False
        damping = damping * (1 - diversity * likeness[best])
    return order


__all__ = ["LIKENESS", "distances", "select", "surroundings"]
