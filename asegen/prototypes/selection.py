"""The order in which candidates are tried: each next one is the most likely to be right where all before it were wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .table import Family

#: Scale of the squared distance between environments (relative to their size) over which two candidates are nearly the same crystal.
LIKENESS = 0.02


def distances(family: Family, index: Tensor, other: Tensor | None = None) -> Tensor:
    """How different candidates of one formula are, shape (t, t): 0 for equal surroundings of all elements, about 1 for unlike ones.

    With `other`, shape (u,), from each of the candidates to each of those, shape (t, u).

    Compared are the numbers of neighbours of every element in every shell around every element, so prototypes of different
    groups or cells of different sizes that are nearly the same crystal are close.
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
    return (shells * family.share.sqrt()[:, None, None]).flatten(1)


def select(
    likeness: np.ndarray, probability: np.ndarray, diversity: float, covered: np.ndarray | None = None, n: int | None = None
) -> list[tuple[int, float]]:
    """Candidates in the order in which to try them, each with the probability that it is the first that is right.

    An answer counts as right if it is nearly the right crystal, so a candidate is worth the probability of all that are like it, as
    far as no better one has covered them: ``Σ_j p_j max(0, L_kj − max_i L_ij)`` over those i taken before (greedy facility location,
    Nemhauser, Wolsey and Fisher, Math. Program. 14, 265, 1978). These gains never rise along the list; they are scaled to add up to
    ``Σ p``, which changes them only where something is covered from the start.

    Parameters
    ----------
    likeness : ndarray, shape (t, t)
        1 for the same crystal, 0 for another one.
    probability : ndarray, shape (t,)
    diversity : float
        Between 0 (every candidate stands for itself: the order of the probabilities) and 1.
    covered : ndarray, shape (t,), optional
        Largest likeness to what is already in the list.
    n : int, optional
        At most so many.
    """
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity = {diversity} must lie between 0 and 1")
    like = diversity * likeness
    np.fill_diagonal(like, 1.0)
    done = np.zeros(len(probability)) if covered is None else diversity * covered
    left = np.ones(len(probability), dtype=bool)
    scale = probability.sum() / max(float((1 - done) @ probability), 1e-300)
    order: list[tuple[int, float]] = []
    while left.any() and (n is None or len(order) < n):
        gain = np.where(left, np.clip(like - done, 0, None) @ probability, -1.0)
        best = int(gain.argmax())
        order.append((best, scale * float(gain[best])))
        left[best] = False
        done = np.maximum(done, like[best])
    return order


__all__ = ["LIKENESS", "distances", "select", "surroundings"]
