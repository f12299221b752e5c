"""Moves that keep the atoms of symmetric crystals apart, inside their space groups.

A free site that slides onto a special position puts two or more atoms of its orbit on one point, and two sites may meet on one
position. A score model does not always lead them out again: at such a place its forces cancel by symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from ase.data import covalent_radii
from torch import Tensor

from .symmetry import Symmetry

#: Share of the sum of two covalent radii that atoms keep. The closest of 35,333 crystals of MP-20 has 0.62; 0.55 is refused.
BOUND = 0.6
#: Most pushes of one call: a push may bring the next two sites together.
ROUNDS = 8

_MEETING = 1e-4  # Å
_WAY_BACK = 1e-3  # share of the last step
_TIE = 1e-6


@dataclass(frozen=True, eq=False)
class Spacing:
    """The pairs of atoms of a batch of symmetric crystals, ready to be pushed apart.

    Every pair of orbits appears with the first atom of either: the rest follows from the symmetry. Images of one atom are left
    out, for the lattice alone decides on them.
    """

    symmetry: Symmetry

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """First atom of a site and another atom of its crystal, shapes (p,)."""
        symmetry = self.symmetry
        size = symmetry.num_atoms[symmetry.index[symmetry.first]]
        before = (symmetry.num_atoms.cumsum(0) - symmetry.num_atoms)[symmetry.index[symmetry.first]]
        first = torch.repeat_interleave(symmetry.first, size)
        rank = torch.arange(len(first), device=size.device) - torch.repeat_interleave(size.cumsum(0) - size, size)
        second = torch.repeat_interleave(before, size) + rank
        apart = first != second
        return first[apart], second[apart]

    def vectors(self, frac: Tensor, cell: Tensor) -> Tensor:
        """From the first atom of each pair to the nearest image of the second, shape (p, 3), Å.

        The shortest of 27 images: exact unless the cell is strongly skewed.
        """
        first, second = self.pairs
        lattice = cell[self.symmetry.index[first]]
        away = frac[second] - frac[first]
        steps = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=3)), dtype=frac.dtype, device=frac.device)
        # symmetry makes ties, which rounding must not decide: crystals would depend on the batch that they sit in
        images = ((away - torch.floor(away + 0.5 + _TIE))[:, None] + steps) @ lattice
        square = images.square().sum(-1)
        nearest = (square <= square.amin(1, keepdim=True) * (1 + _TIE) + _TIE).int().argmax(1)
        return images[torch.arange(len(nearest), device=frac.device), nearest]

    def ratios(self, frac: Tensor, cell: Tensor, species: Tensor) -> Tensor:
        """Distance of each pair over the sum of its covalent radii, shape (p,)."""
        return self.vectors(frac, cell).norm(dim=-1) / self._sums(species)

    def push(self, frac: Tensor, cell: Tensor, species: Tensor, before: Tensor | None = None) -> Tensor:
        """Coordinates in which atoms that were closer than :data:`BOUND` are pushed apart, as far as their sites allow.

        Each of two atoms that are too close goes half of what is missing, along the line between them; what a site cannot follow
        falls away. Repeated until all are apart, at most :data:`ROUNDS` times; the round counts that leaves the closest pair of a
        crystal farthest apart. No random numbers, and crystals of a batch do not feel each other: what is far enough apart
        comes back to the last bit.

        Parameters
        ----------
        frac : Tensor, shape (n, 3)
            Exactly on the symmetry; so is the result.
        cell : Tensor, shape (b, 3, 3), Å
        species : Tensor, shape (n,), int64
        before : Tensor, shape (n, 3), optional
            Where the atoms came from: the way back for those that are on exactly one point. Without it they stay there.

        Returns
        -------
        Tensor, shape (n, 3)
        """
        symmetry = self.symmetry
        if before is not None:
            frac = self._stepped_back(frac, cell, before)
        first, _ = self.pairs
        bound = BOUND * self._sums(species)
        inverse = torch.linalg.inv(cell)
        kept, widest = frac, torch.full((len(symmetry),), -1.0, dtype=frac.dtype, device=frac.device)
        for number in range(ROUNDS + 1):
            away = self.vectors(frac, cell)
            distance = away.norm(dim=-1)
            # where there is no room for all, pushes may go on for ever: the best place on the way is what counts
            share = torch.ones_like(widest).scatter_reduce(0, symmetry.index[first], distance / bound, "amin")
            wider = share > widest + _TIE
            kept = torch.where(wider[symmetry.index][:, None], frac, kept)
            widest = torch.where(wider, share, widest)
            if number == ROUNDS or bool((share >= 1).all()):
                break
            move = (-0.5 * (bound - distance).clamp(min=0) / distance.clamp(min=1e-9))[:, None] * away
            move = (move[:, None] @ inverse[symmetry.index[first]])[:, 0]
            total = torch.zeros(symmetry.num_sites, 3, dtype=frac.dtype, device=frac.device).index_add_(0, symmetry.site[first], move)
            allowed = (symmetry.stabilizer @ (self._seen @ total[..., None]))[symmetry.site]
            frac = frac + (symmetry.rotation @ allowed)[..., 0]
        return kept

    def _stepped_back(self, frac: Tensor, cell: Tensor, before: Tensor) -> Tensor:
        """Coordinates in which sites that meet on one point have gone a little back, so that they are somewhere."""
        symmetry = self.symmetry
        met = self.vectors(frac, cell).norm(dim=-1) < _MEETING
        back = torch.zeros(symmetry.num_sites, dtype=torch.bool, device=frac.device)
        back[symmetry.site[self.pairs[0][met]]] = True
        return torch.where(back[symmetry.site][:, None], frac + _WAY_BACK * (before - frac), frac)

    @cached_property
    def _seen(self) -> Tensor:
        """From moves of the first atom of each site to those of its representative, shape (s, 3, 3)."""
        return torch.linalg.inv(self.symmetry.rotation[self.symmetry.first])

    def _sums(self, species: Tensor) -> Tensor:
        first, second = self.pairs
        radii = torch.from_numpy(covalent_radii).to(dtype=self.symmetry.rotation.dtype, device=species.device)
        return radii[species[first]] + radii[species[second]]


__all__ = ["BOUND", "ROUNDS", "Spacing"]
