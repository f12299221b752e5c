"""Positions for many targets at once: basin hopping on the difference between descriptors (StructRepDiff, section 4.3).

The loss of a crystal is the mean absolute difference between its pooled descriptor and the target, √ρ in units of each feature's spread
in the training data (the paper takes ρ as it is: there a few heavy atoms decide). Trials and hops of all crystals run side by side in
one batch; cells and elements are fixed.

The search sees the neighbours within :attr:`Search.near`, which decide what lies where; at the end the best trial of each crystal is
refined with the whole descriptor, which also decides the loss that is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch
from ..descriptors.ead import EAD
from ..descriptors.structure_vector import Decoded, pooled
from ..errors import AsegenError
from ..graphs import Graph, neighbours

_LISTED_FOR = 10
"""Steps before the neighbours are found anew. They are few where they come and go: the cutoff function is nearly zero there."""
_MARGIN = 0.5
"""Neighbours are listed so much farther than the cutoff, Å."""


@dataclass(frozen=True)
class Search:
    """How long to search."""

    rounds: int = 8
    """Random positions among which each start is chosen by its loss."""
    starts: int = 24
    """Starts of a crystal, each descended for half a descent."""
    trials: int = 4
    """The best of them, which go on."""
    hops: int = 4
    """Hops of a trial after its first descent."""
    steps: int = 40
    """Adam steps of a descent."""
    refining: int = 60
    """Adam steps with the whole descriptor at the end."""
    exchanges: int = 4
    """Exchanges of two elements tried before every descent."""
    step_size: float = 0.2
    """Of Adam, Å; falls to a fiftieth along a descent."""
    hop: float = 1.0
    """Largest displacement of a coordinate in a hop, Å."""
    near: float = 4.5
    """Neighbours that the search sees, Å."""
    order: int = 2
    """Largest order that the search sees."""

    def __post_init__(self) -> None:
        if min(self.rounds, self.trials, self.steps) < 1 or self.starts < self.trials or min(self.hops, self.refining) < 0:
            raise AsegenError(f"a search needs at least one round, trial and step, as many starts as trials, no negative counts: {self}")


@dataclass(frozen=True)
class Found:
    """Positions of one crystal."""

    frac: np.ndarray
    """Fractional coordinates, shape (N, 3)."""
    loss: float
    """Mean absolute difference of the descriptors, in spreads of the training data."""
    hops: int
    """Descents that were made."""
    failed: int
    """Of these, those that ended in nothing: an inverted or collapsed crystal, a loss that is no number."""


@dataclass(frozen=True)
class Metric:
    """The loss between descriptors."""

    ead: EAD
    spread: Tensor
    """Of √ρ pooled and of the smallest distance, shape (2 size + 1,)."""
    soft: bool = False
    """log(1 + |difference|) instead of the absolute difference: atoms that are too close no longer outweigh all else, and can pass."""

    def nearby(self, near: float, order: int) -> tuple[Metric, Tensor]:
        """The part of the metric that neighbours within `near` decide (Gaussians that end there), in orders up to `order`.

        Returns
        -------
        Metric
        Tensor, shape (k,), int64
            Which features of the whole it has.
        """
        inside = [center + 1.2 / eta**0.5 <= near for eta, center in self.ead.radial]
        low = [this <= order for this in self.ead.orders]
        if near >= self.ead.cutoff or not any(inside) or not any(low):
            return self, torch.arange(len(self.spread))
        radial = tuple(pair for pair, kept in zip(self.ead.radial, inside, strict=True) if kept)
        orders = tuple(this for this, kept in zip(self.ead.orders, low, strict=True) if kept)
        one = (torch.tensor(low)[:, None] & torch.tensor(inside)).flatten()
        kept = torch.nonzero(torch.cat([one, one, torch.ones(1, dtype=torch.bool)]))[:, 0]
        return Metric(replace(self.ead, orders=orders, radial=radial), self.spread[kept], soft=True), kept

    def features(self, target: Tensor) -> Tensor:
        """√ρ and the smallest distance in units of their spread, shape (b, 2 size + 1)."""
        # the square root has no slope at zero, where symmetric crystals are
        return torch.cat([(target[:, :-1].clamp_min(0) + 1e-4).sqrt(), target[:, -1:]], dim=1) / self.spread

    def __call__(self, batch: CrystalBatch, wanted: Tensor, graph: Graph) -> Tensor:
        """Losses of crystals, shape (b,); `wanted` are :meth:`features` of their targets."""
        off = (self.features(pooled(self.ead, batch, graph)) - wanted).abs()
        return (off.log1p() if self.soft else off).mean(1)


def reconstruct(
    decoded: Sequence[Decoded], seeds: Sequence[int], metric: Metric, search: Search | None = None, device: torch.device | None = None
) -> list[Found | None]:
    """Positions for targets, cells and elements.

    Parameters
    ----------
    decoded : sequence of Decoded
    seeds : sequence of int
        One per crystal: starts and hops come from it alone.
    metric : Metric
    search : Search, optional
    device : torch.device, optional

    Returns
    -------
    list of Found or None
        None where every trial failed.
    """
    search = search or Search()
    if not decoded:
        return []
    device = device or torch.device("cpu")
    generators = [np.random.default_rng([seed, 1]) for seed in seeds]
    count = len(decoded)
    target = torch.stack([d.target for d in decoded]).float()
    short, kept = metric.nearby(search.near, search.order)
    reach = search.near if short is not metric else metric.ead.cutoff
    wanted = short.features(target[:, kept]).to(device)
    many = wanted.repeat_interleave(search.starts, 0)
    trials = _Trials.of(decoded, generators, search.starts, device)
    for number in range(search.rounds):
        if number:
            trials.restart(decoded, generators)
        trials.descend(short, many, reach, 0, 0.0)
    trials.descend(short, many, reach, search.steps // 2, search.step_size)
    trials = trials.best(count, search.trials)
    for hop in range(search.hops + 1):
        for _ in range(search.exchanges):
            trials.exchange(generators)
            trials.descend(short, wanted.repeat_interleave(search.trials, 0), reach, 0, 0.0)
        if hop % 2:  # every other descent goes on with what the exchanges found
            trials.hop(search.hop, generators)
        trials.descend(short, wanted.repeat_interleave(search.trials, 0), reach, search.steps, search.step_size)
    trials = trials.best(count, 1)
    trials.loss = torch.full_like(trials.loss, torch.inf)  # of another metric
    trials.descend(metric, metric.features(target).to(device), metric.ead.cutoff, search.refining, search.step_size / 4)
    hops = search.starts + search.trials * (search.hops + 1)
    found: list[Found | None] = []
    for number, frac in enumerate(trials.frac.cpu().double().split(trials.batch.num_atoms.tolist())):
        loss = float(trials.loss[number])
        found.append(Found(frac.numpy() % 1.0, loss, hops, int(trials.failed[number])) if np.isfinite(loss) else None)
    return found


class _Trials:
    """Many trials side by side, those of a crystal next to each other: where each is, its best positions and their loss."""

    def __init__(self, batch: CrystalBatch, failed: Tensor) -> None:
        self.batch = batch
        self.frac = batch.frac
        self.loss = torch.full((len(batch),), torch.inf, device=batch.cell.device)
        self.failed = failed
        """Failed descents of each crystal."""

    @classmethod
    def of(cls, decoded: Sequence[Decoded], generators: list[np.random.Generator], repeat: int, device: torch.device) -> _Trials:
        """So many random starts of each crystal."""
        batch = CrystalBatch(
            torch.from_numpy(np.concatenate([np.tile(d.numbers, repeat) for d in decoded])),
            _starts(decoded, generators, repeat),
            torch.from_numpy(np.repeat(np.stack([d.cell for d in decoded]), repeat, axis=0)).float(),
            torch.tensor([len(d.numbers) for d in decoded]).repeat_interleave(repeat),
        )
        return cls(batch.to(device), torch.zeros(len(decoded), dtype=torch.int64))

    def restart(self, decoded: Sequence[Decoded], generators: list[np.random.Generator]) -> None:
        """Everything to new random positions; the best so far are remembered."""
        repeat = len(self.batch) // len(decoded)
        self.batch = replace(self.batch, frac=_starts(decoded, generators, repeat).to(self.frac))

    def best(self, crystals: int, kept: int) -> _Trials:
        """The best trials of every crystal."""
        order = self.loss.cpu().view(crystals, -1).sort(dim=1, stable=True).indices[:, :kept]
        chosen = (torch.arange(crystals)[:, None] * (len(self.batch) // crystals) + order).flatten().to(self.loss.device)
        found = _Trials(replace(self.batch, frac=self.frac).select(chosen), self.failed)
        found.loss = self.loss[chosen]
        return found

    def descend(self, metric: Metric, wanted: Tensor, reach: float, steps: int, step_size: float) -> None:
        """Adam from where the trials are; what is better than their best is kept."""
        frac = self.batch.frac
        inverse = torch.linalg.inv(self.batch.cell)[self.batch.index]
        moment, square = torch.zeros_like(frac), torch.zeros_like(frac)
        reached = torch.full_like(self.loss, torch.inf)
        graph: Graph | None = None
        for step in range(steps + 1):
            frac = frac.detach().requires_grad_(step < steps)
            batch = replace(self.batch, frac=frac)
            if graph is None or step % _LISTED_FOR == 0 or step == steps:
                graph = neighbours(batch, reach + _MARGIN)
            loss = metric(batch, wanted, graph)
            better = loss.detach() < self.loss  # never true for what is not a number
            self.loss = torch.where(better, loss.detach(), self.loss)
            self.frac = torch.where(better[batch.index][:, None], frac.detach(), self.frac)
            reached = torch.fmin(reached, loss.detach())
            if step == steps:
                break
            (slope,) = torch.autograd.grad(loss.sum(), frac)
            # slope with respect to positions, so that steps are Å in every cell
            slope = torch.einsum("nij,nj->ni", inverse, slope).nan_to_num(0.0, 0.0, 0.0)
            moment, square = 0.9 * moment + 0.1 * slope, 0.99 * square + 0.01 * slope**2
            ahead = moment / (1 - 0.9 ** (step + 1)) / ((square / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8)
            size = step_size * 0.02 ** (step / max(1, steps))
            frac = frac.detach() - size * torch.einsum("ni,nij->nj", ahead, inverse)
        if steps:  # a look at a start is no hop
            self.failed = self.failed + (~torch.isfinite(reached)).cpu().view(len(self.failed), -1).sum(1)
        self.batch = replace(self.batch, frac=self.frac)

    def hop(self, hop: float, generators: list[np.random.Generator]) -> None:
        """Away from the best positions: all coordinates moved by up to `hop`, or one atom put anywhere."""

        def move(random: np.random.Generator, frac: np.ndarray, species: np.ndarray, cell: np.ndarray) -> None:
            if random.random() < 0.5:
                frac[random.integers(len(frac))] = random.random(3)
            else:
                frac += random.uniform(-hop, hop, frac.shape) @ np.linalg.inv(cell)

        self._move(move, generators)

    def exchange(self, generators: list[np.random.Generator]) -> None:
        """From the best positions: two atoms of different elements change places."""

        def move(random: np.random.Generator, frac: np.ndarray, species: np.ndarray, cell: np.ndarray) -> None:
            pairs = np.argwhere(species[:, None] < species[None, :])
            if len(pairs):
                i, j = pairs[random.integers(len(pairs))]
                frac[[i, j]] = frac[[j, i]]

        self._move(move, generators)

    def _move(self, move: Callable[..., None], generators: list[np.random.Generator]) -> None:
        species = self.batch.species.cpu().numpy()
        frac = self.frac.cpu().double().numpy().copy()
        cells = self.batch.cell.cpu().double().numpy()
        each = len(cells) // len(generators)
        for number, (lo, hi) in enumerate(pairwise(self.batch.offsets.tolist())):
            move(generators[number // each], frac[lo:hi], species[lo:hi], cells[number])
        self.batch = replace(self.batch, frac=torch.from_numpy(frac).to(self.frac))


def _starts(decoded: Sequence[Decoded], generators: list[np.random.Generator], repeat: int) -> Tensor:
    """Random fractional coordinates, `repeat` times for each crystal, shape (n, 3)."""
    starts = [random_start(random, d.cell, repeat, len(d.numbers)) for d, random in zip(decoded, generators, strict=True)]
    return torch.from_numpy(np.concatenate([start.reshape(-1, 3) for start in starts])).float()


def random_start(random: np.random.Generator, cell: np.ndarray, repeat: int, count: int, among: int = 8) -> np.ndarray:
    """Random positions, each time the set among several whose shortest distance is largest.

    Half of the sets lie on a grid of halves, thirds, … of the cell, blurred by a tenth of an Å: the atoms of crystals often do.

    Returns
    -------
    ndarray, shape (repeat, count, 3)
        Fractional.
    """
    frac = random.random((repeat, among, count, 3))
    parts = random.integers(2, 7, (repeat, 1, 1, 3))
    blurred = np.floor(frac * parts) / parts + random.normal(0, 0.1, frac.shape) @ np.linalg.inv(cell)
    frac = np.where(random.random((repeat, 1, 1, 1)) < 0.5, blurred, frac)
    if count == 1:
        return frac[:, 0]
    i, j = np.triu_indices(count, 1)
    delta = frac[..., i, :] - frac[..., j, :]
    # the nearest image of a reduced cell is the rounded one nearly always
    shortest = np.linalg.norm((delta - delta.round()) @ cell, axis=-1).min(-1)
    return frac[np.arange(repeat), shortest.argmax(1)]


Reconstruct = Callable[[Sequence[Decoded], Sequence[int]], list[Found | None]]
"""What generation asks for: positions for targets, with a seed each."""

__all__ = ["Found", "Metric", "Reconstruct", "Search", "reconstruct"]
