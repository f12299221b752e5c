"""Global moves towards a target: atoms are drawn to the points of a grid, one at a time, at a falling temperature.

In one cell the density that an atom makes at another depends only on the difference of their positions. On a grid there are few
differences, so the sums over images are made once and looked up ever after: to try an atom at hundreds of points costs as much
as one ordinary evaluation. A move is a draw from the Boltzmann distribution of all tried points (a Gibbs sampler over
positions), which jumps over barriers and exchanges atoms that no local step would.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor

from ..descriptors.ead import EAD, exponents, multinomials
from ..descriptors.target import Target, compared_numbers, pooled

_DIVISIONS = (4, 6, 8, 12, 16, 18, 24, 30, 36, 48, 60)
"""Points along a lattice vector; they hold the halves, and most the thirds and quarters, where atoms of symmetric crystals sit."""


def grid_of(cell: np.ndarray, spacing: float) -> tuple[int, int, int]:
    """Points along the lattice vectors so that neighbours are at most `spacing` (Å) apart."""
    lengths = np.linalg.norm(cell, axis=1)
    return tuple(next((d for d in _DIVISIONS if length / d <= spacing), _DIVISIONS[-1]) for length in lengths)  # type: ignore[return-value]


class GridSearch:
    """Annealing of many trials of one structure on a grid.

    Parameters
    ----------
    target : Target
        What is wanted.
    cell : ndarray, shape (3, 3)
        Lattice vectors as rows, Å.
    grid : (int, int, int)
        Points along the lattice vectors.
    generator : torch.Generator
        Where all random numbers come from.
    """

    def __init__(self, target: Target, cell: np.ndarray, grid: tuple[int, int, int], generator: torch.Generator) -> None:
        ead = target.ead
        self.target, self.generator = target, generator
        self.grid = torch.tensor(grid)
        self._strides = torch.tensor([grid[1] * grid[2], grid[2], 1])
        self._table = density_table(ead, cell, grid)
        self._numbers = target.numbers.float()
        self._scale, self._values = target.scale.float(), target.values.float()
        self._weights = multinomials(ead.orders, torch.float32)
        # Seen from the other end a vector is reversed, and odd monomials change their sign.
        self._parity = torch.cat([torch.full((len(exponents(order)),), (-1.0) ** order) for order in ead.orders]).unsqueeze(1)

    def anneal(self, trials: int, sweeps: int, points: int, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draw positions at falling temperature.

        Parameters
        ----------
        trials : int
            Independent chains.
        sweeps : int
            How often every atom is drawn.
        points : int
            Grid points that an atom is tried at, beside its own.
        start : Tensor, shape (trials, n, 3), optional
            Grid points to begin at; default: random ones.

        Returns
        -------
        frac : Tensor, shape (trials, n, 3), float64
            Fractional positions of the best state of each chain.
        loss : Tensor, shape (trials,)
            Their mean squared residual.
        """
        n = len(self._numbers)
        places = self._random(trials, n) if start is None else start.clone()
        moments = self._moments(places)
        loss = self._loss(self._numbers_of(moments))
        best, best_loss = places.clone(), loss.clone()
        hot = float(loss.median())
        for sweep in range(sweeps):
            # From a hundredth of the random state's loss to nothing; the last sweeps only go down.
            temperature = max(0.01 * hot * (1 - sweep / max(1, sweeps - 2)) ** 2, 1e-9)
            order = torch.argsort(torch.rand(trials, n, generator=self.generator), dim=1)
            for atom in order.T:
                places, moments, loss = self._draw(places, moments, atom, points, temperature)
            better = loss < best_loss
            best = torch.where(better.view(-1, 1, 1), places, best)
            best_loss = torch.minimum(loss, best_loss)
        return best.double() / self.grid, best_loss

    def _draw(self, places: Tensor, moments: Tensor, atom: Tensor, points: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Move one atom of every chain, atom (trials,), to a point drawn by its loss."""
        trials, n, _ = places.shape
        chains = torch.arange(trials)
        tried = torch.cat([places[chains, atom].unsqueeze(1), self._random(trials, points)], dim=1)
        others = self._numbers.expand(trials, n).clone()
        others[chains, atom] = 0.0
        lookup = self._table[self._index(places.unsqueeze(1) - tried.unsqueeze(2))]  # (trials, tried, n, monomials, radial)
        own = torch.einsum("tn,tcnmg->tcmg", others, lookup) + self._numbers[atom].view(-1, 1, 1, 1) * self._table[0]
        change = (self._numbers[atom].view(-1, 1, 1, 1, 1) * self._parity) * (lookup - lookup[:, :1])
        new = moments.unsqueeze(1) + change
        new[chains, :, atom] = own
        loss = self._loss(self._numbers_of(new).flatten(0, 1)).view(trials, -1)
        chosen = torch.multinomial(
            torch.softmax(-(loss - loss.amin(dim=1, keepdim=True)) / temperature, dim=1), 1, generator=self.generator
        )
        chosen = chosen.squeeze(1)
        places = places.clone()
        places[chains, atom] = tried[chains, chosen]
        return places, new[chains, chosen], loss[chains, chosen]

    def _moments(self, places: Tensor) -> Tensor:
        lookup = self._table[self._index(places.unsqueeze(1) - places.unsqueeze(2))]
        return torch.einsum("j,tijmg->timg", self._numbers, lookup)

    def _numbers_of(self, moments: Tensor) -> Tensor:
        """Compared numbers of moments, (..., monomials, radial) → (..., size)."""
        invariants = torch.einsum("lm,...mg->...lg", self._weights, moments.square()).flatten(-2)
        return compared_numbers(invariants, self._scale)

    def _loss(self, found: Tensor) -> Tensor:
        """Mean squared residual of (b, n, size); atoms keep their place in the target, for every place is tried for every atom."""
        if self.target.pooling == "sites":
            return (found - self._values).square().mean(dim=(1, 2))
        return (pooled(found, self.target.pooling) - self._values).square().mean(dim=1)

    def _index(self, difference: Tensor) -> Tensor:
        return (difference % self.grid) @ self._strides

    def _random(self, trials: int, count: int) -> Tensor:
        return torch.stack([torch.randint(int(k), (trials, count), generator=self.generator) for k in self.grid], dim=2)


def density_table(ead: EAD, cell: np.ndarray, grid: tuple[int, int, int]) -> Tensor:
    """Moments made by one atom of density 1 and all its images at every difference of grid points.

    Returns
    -------
    Tensor, shape (points, monomials, radial), float32
    """
    volume = abs(np.linalg.det(cell))
    heights = volume / np.linalg.norm(np.cross(np.roll(cell, -1, axis=0), np.roll(cell, -2, axis=0)), axis=1)
    reach = np.ceil(ead.cutoff / heights).astype(int) + 1
    shifts = np.array(list(product(*(range(-k, k + 1) for k in reach))), dtype=float)
    points = np.stack(np.meshgrid(*(np.arange(k) / k for k in grid), indexing="ij"), axis=-1).reshape(-1, 3)
    vectors_of_points = torch.from_numpy(points @ cell).float()
    table = torch.zeros(len(points), sum(len(exponents(order)) for order in ead.orders), len(ead.radial))
    for shift in torch.from_numpy(shifts @ cell).float():
        vectors = vectors_of_points + shift
        distances = vectors.norm(dim=1)
        near = torch.nonzero((distances < ead.cutoff) & (distances > 1e-4)).squeeze(1)
        if len(near):
            monomials, radial = ead.parts(vectors[near])
            table[near] += monomials.unsqueeze(2) * radial.unsqueeze(1)
    return table
