"""p(prototype, assignment | composition): which prototype a composition takes, and which element goes where.

A prototype brings its number of formula units, so cells of all sizes stand for the same election. Two questions have different
answers. *Likely*: which crystal would a database of such crystals hold next? *Stable*: which one forms? For the second one, examples near
the convex hull weigh more than those far from it, and the networks see the mean energy of what votes for a candidate.

Two stages, both trained on leave-one-out retrieval from the training compositions.

1. A kernel over compositions: every example votes for its prototype with weight ``exp(-Σ_s w_s d(a_s, e_s))``, ``d`` a learned
   distance between elements. Votes of one candidate are summed.
2. A small graph network on the slots of a candidate: nodes are slots with their elements, edges the shells of neighbours of the
   prototype. It corrects the logarithm of the votes for the best candidates.

For a new entry of the training data a third number matters: a candidate that is (nearly) a known crystal of the very formula is
taken. Its logarithm is lowered by what was learned from formulas with several entries.

An example never votes for itself, so rare prototypes get the weight that they deserve (Good and Turing's argument).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..networks.base import element_table
from .selection import distances
from .table import SHELLS, TYPICAL_HULL, Family

#: Candidates that the network looks at.
TOP = 64
#: Distances (:func:`asegen.prototypes.selection.distances`) over which a candidate is like a known crystal.
TAKEN_SCALES = (0.02, 0.2)
_NEVER = -1e4
_FLOOR = -30.0
_FEATURES = 11


class ElementMetric(nn.Module):
    """The kernel of the first stage."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        table = torch.tensor(element_table())
        vectors = 0.05 * torch.randn(119, width)
        numeric = table[:, 29:38]
        vectors[1:, : numeric.shape[1]] += 0.5 * numeric
        self.vectors = nn.Parameter(vectors)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.share = nn.Parameter(torch.tensor(0.3))
        self.slots = nn.Parameter(torch.tensor(0.3))
        self.power = nn.Parameter(torch.tensor(0.3))
        self.repeat = nn.Parameter(torch.tensor(-1.0))
        self.far = nn.Parameter(torch.tensor(1.0))

    def forward(self, family: Family, elements: Tensor, repeats: bool = True, stable: bool = False) -> Tensor:
        """Logarithm of the weight of every vote, shape (b, p, m).

        Parameters
        ----------
        family : Family
        elements : Tensor, shape (b, k)
            Elements of each query in the order of the family's counts.
        repeats : bool
            Whether examples with the query's own composition are treated as what they are for a new entry of the training
            data: a sign that this prototype is already taken.
        stable : bool
            Whether the stable crystal is asked for: examples far above the hull lose weight.
        """
        square = (self.vectors[:, None] - self.vectors[None]).square().sum(-1)
        distance = (square + 1e-6) ** torch.sigmoid(self.power)
        weight = self.scale.exp() * family.share**self.share * len(family.counts) ** self.slots
        assigned = elements[:, family.orders]
        vote = torch.zeros(())
        for slot in range(len(family.counts)):
            vote = vote - weight[slot] * distance[assigned[:, :, slot]][:, :, family.examples[:, slot]]
        if repeats:
            vote = vote + self.repeat * (assigned[:, :, None] == family.examples).all(-1)
        if stable:
            vote = vote - nn.functional.softplus(self.far) * energies(family).clamp(0, 0.3) / TYPICAL_HULL
        return vote


def energies(family: Family) -> Tensor:
    """Energy of the examples above the hull, eV/atom, a typical one where it is not known, shape (m,)."""
    return torch.nan_to_num(family.hull, nan=TYPICAL_HULL)


@dataclass(frozen=True)
class Candidates:
    """The best candidates of b queries by votes, at most :data:`TOP`."""

    index: Tensor
    """Candidate of the family, shape (b, t)."""
    features: Tensor
    """What the votes say, shape (b, t, 11); the first is the logarithm of the share of votes, the seventh the mean energy above the hull
    of what votes for the candidate, in tenths of an eV/atom."""
    real: Tensor
    """Whether any example votes for it, shape (b, t)."""
    votes: Tensor
    """Logarithm of all votes together, and of the largest one, shape (b, 2)."""


def collect(
    family: Family, vote: Tensor, left_out: Tensor | None = None, wanted: Tensor | None = None, stable: bool = False
) -> Candidates:
    """Sum votes per candidate and keep the best.

    Parameters
    ----------
    family : Family
    vote : Tensor, shape (b, p, m)
    left_out : Tensor of bool, shape (b, m), optional
        Examples that must not vote (the query itself).
    wanted : Tensor, shape (b,), optional
        Candidate to keep in any case (the right answer, in training).
    stable : bool
        Which question is asked.
    """
    if left_out is not None:
        vote = vote.masked_fill(left_out[:, None], _NEVER)
    total, largest = sum_votes(family, vote)
    log_total = torch.log(total + 1e-12)
    top = min(TOP, family.num_candidates)
    value, index = log_total.topk(top, dim=1)
    if wanted is not None:
        missing = ~(index == wanted[:, None]).any(1)
        index[missing, -1] = wanted[missing]
        value = log_total.gather(1, index)
    flat = family.candidate.reshape(1, -1).expand(len(vote), -1)
    nearest = torch.full_like(log_total, _NEVER).scatter_reduce(1, flat, vote.reshape(len(vote), -1), "amax").gather(1, index)
    energy = _mean_energy(family, vote, largest, total).gather(1, index)
    prototype, _ = family.split(index)
    count = torch.bincount(family.owner, minlength=len(family.members)).float()[prototype]
    if left_out is not None:
        gone = torch.zeros(len(vote), len(family.members)).index_add_(1, family.owner, left_out.float())
        count = count - gone.gather(1, prototype)
    real = (count > 0) & (value > math.log(1e-12) + 1e-3)
    value = torch.where(real, value, _FLOOR).clamp(min=_FLOOR)
    share = value - torch.logsumexp(value, 1, keepdim=True)
    high = largest[:, None]
    units = family.units[prototype].float()
    features = [share, count.clamp(min=0.5).log(), nearest.clamp(min=-40) / 5]
    features += [(nearest - high).clamp(min=-20) / 5, high.expand_as(share) / 5]
    features.append(torch.full_like(share, math.log(len(family.counts))))
    features += [energy, torch.full_like(share, float(stable)), energy * float(stable)]
    features += [units.log(), (units * sum(family.counts)).log() / 3]
    votes = torch.stack([torch.log(total.sum(1) + 1e-12) + largest, largest], 1)
    return Candidates(index, torch.stack(features, -1), real, votes)


def _mean_energy(family: Family, vote: Tensor, largest: Tensor, total: Tensor) -> Tensor:
    """Mean energy above the hull of what votes for each candidate, weighted by its votes, in tenths of an eV/atom, shape (b, c · p)."""
    weight = (vote - largest[:, None, None]).exp() * (energies(family).clamp(-0.05, 0.5) / TYPICAL_HULL)
    mean = torch.zeros_like(total).index_add(1, family.candidate.reshape(-1), weight.reshape(len(vote), -1))
    return mean / (total + 1e-12)


def sum_votes(family: Family, vote: Tensor) -> tuple[Tensor, Tensor]:
    """Votes of each candidate relative to the largest vote, shape (b, c · p), and the logarithm of that one, shape (b,)."""
    largest = vote.amax((1, 2))
    weight = (vote - largest[:, None, None]).exp().reshape(len(vote), -1)
    total = torch.zeros(len(vote), family.num_candidates).index_add(1, family.candidate.reshape(-1), weight)
    return total, largest


class SlotNetwork(nn.Module):
    """The graph network of the second stage: two rounds of messages between the slots of a candidate."""

    def __init__(self, width: int = 32, hidden: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        shells = len(SHELLS)
        vectors = 0.1 * torch.randn(119, width)
        numeric = torch.tensor(element_table())[:, 29:38]
        vectors[1:, : numeric.shape[1]] += 0.5 * numeric
        self.vectors = nn.Parameter(vectors)
        self.near = nn.Linear(width * shells, hidden, bias=False)
        self.own = nn.Linear(width + 1, hidden)
        self.far = nn.Linear(hidden * shells, hidden, bias=False)
        self.again = nn.Linear(hidden, hidden)
        self.drop = nn.Dropout(dropout)
        last = nn.Linear(hidden, 1)
        self.head = nn.Sequential(nn.Linear(2 * hidden + _FEATURES, hidden), nn.SiLU(), last)
        self.direct = nn.Linear(_FEATURES, 1, bias=False)
        with torch.no_grad():
            # starts as the kernel's own answer
            self.direct.weight.zero_()
            self.direct.weight[0, 0] = 1.0
            last.weight.mul_(0.1)

    def forward(self, family: Family, elements: Tensor, found: Candidates) -> Tensor:
        """Logits of the candidates, shape (b, t)."""
        prototype, order = family.split(found.index)
        assigned = elements[torch.arange(len(elements))[:, None, None], family.orders[order]]
        vectors = self.vectors[assigned]
        batch, top, slots, _ = vectors.shape
        mixing = family.environment[prototype].transpose(-1, -2).reshape(batch, top, slots * len(SHELLS), slots) * 0.15

        def gather(values: Tensor) -> Tensor:
            return torch.matmul(mixing, values).reshape(batch, top, slots, -1)

        share = family.share[None, None, :, None].expand(batch, top, slots, 1)
        first = self.drop(silu(self.near(gather(vectors)) + self.own(torch.cat([vectors, share], -1))))
        second = silu(self.far(gather(first)) + self.again(first)) + first
        pooled = torch.cat([(second * share).sum(2), second.amax(2), found.features], -1)
        logits = self.direct(found.features)[..., 0] + self.head(pooled)[..., 0]
        return logits.masked_fill(~found.real, _NEVER)


class Ranker(nn.Module):
    """Both stages; several networks vote together.

    Parameters
    ----------
    networks : int
        Members of the ensemble.
    width, hidden : int
        Sizes of the networks.
    dropout : float
    """

    def __init__(self, networks: int = 2, width: int = 32, hidden: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.metric = ElementMetric()
        self.networks = nn.ModuleList(SlotNetwork(width, hidden, dropout) for _ in range(networks))
        self.novelty = nn.Linear(3, 1)
        self.taken = nn.Parameter(torch.zeros(len(TAKEN_SCALES)))

    def load_format_1(self, weights: Mapping[str, Tensor]) -> None:
        """Weights of a file of format 1: what it has not learned has no influence."""
        own = self.state_dict()
        for name, value in weights.items():
            if name.startswith("networks.") and name.endswith(("head.0.weight", "direct.weight")):
                pad = own[name].shape[1] - value.shape[1]
                weights = {**weights, name: nn.functional.pad(value, (0, pad))}
        self.load_state_dict({"metric.far": torch.tensor(-20.0), **weights})

    def judge(self, family: Family, elements: Tensor, found: Candidates) -> Tensor:
        """Log-probabilities of candidates by the networks, shape (b, t)."""
        return torch.stack([network(family, elements, found).log_softmax(1) for network in self.networks]).mean(0).log_softmax(1)

    def forward(
        self, family: Family, elements: Tensor, repeats: bool = True, allowed: Tensor | None = None, stable: bool = False
    ) -> tuple[Candidates, Tensor, Tensor]:
        """Candidates, their log-probabilities given that the prototype is known (b, t), and log p(prototype not known) (b,).

        With `allowed`, shape (c,), only these prototypes of the family (at least one) stand for election.
        """
        vote = self.metric(family, elements, repeats, stable)
        if allowed is not None:
            vote = vote.masked_fill(~allowed[family.owner], _NEVER)
        found = collect(family, vote, stable=stable)
        log_p = self.judge(family, elements, found)
        if repeats:
            log_p = (log_p + likeness_to_known(family, elements, found) @ self.taken).log_softmax(1)
        new = nn.functional.logsigmoid(self.novelty(novelty_features(found))[:, 0])
        return found, log_p, new


def same_composition(family: Family, elements: Tensor) -> Tensor:
    """Which examples have the composition of a query, with its elements in which order, shape (b, p, m)."""
    return (elements[:, family.orders][:, :, None] == family.examples).all(-1)


def likeness_to_known(family: Family, elements: Tensor, found: Candidates, left_out: Tensor | None = None) -> Tensor:
    """How much each candidate is like an example of the query's own composition, at each scale, shape (b, t, scales)."""
    same = same_composition(family, elements)
    if left_out is not None:
        same = same & ~left_out[:, None]
    like = torch.zeros(*found.index.shape, len(TAKEN_SCALES))
    for query in torch.nonzero(same.any(2).any(1))[:, 0].tolist():
        known = family.candidate[same[query]].unique()
        least = distances(family, found.index[query], known).amin(1)
        like[query] = torch.stack([torch.exp(-least / scale) for scale in TAKEN_SCALES], -1)
    return like


def novelty_features(found: Candidates) -> Tensor:
    """What tells that no known prototype fits, shape (b, 3)."""
    return torch.cat([found.votes / 5, found.features[:, :1, 0]], 1)


__all__ = [
    "Candidates",
    "ElementMetric",
    "Ranker",
    "SlotNetwork",
    "collect",
    "energies",
    "likeness_to_known",
    "novelty_features",
    "same_composition",
    "sum_votes",
]
