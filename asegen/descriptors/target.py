"""What a structure is to be rebuilt from: descriptors of its atoms, and how far other atoms are from them.

Atoms have no order, so their descriptors are compared as a set. Three ways to do that (`pooling`):

``sites``
    every atom of the crystal is paired with an atom of the target of the same element, at the least total cost. Nothing is lost.
``moments``
    mean, standard deviation, largest and smallest value over the atoms: a vector of fixed length.
``extrema``
    largest and smallest value over the atoms: the paper's.

Invariants span orders of magnitude, so they are compared as f = (ρ/s + ε)^½, with a scale s for every radial function taken
from the target. The square root keeps the order of numbers, so it may be taken before or after the extrema.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..crystals import CrystalBatch
from ..errors import DescriptorError
from .ead import EAD, OURS

Pooling = Literal["sites", "moments", "extrema"]
EPSILON = 0.01
"""ε of the compared numbers: what differs by less than this share of the scale is equal."""
HIGHER_ORDERS = 0.1
"""Scale of orders above 0 beside that of order 0: directions cancel, so these are smaller."""


@dataclass(frozen=True)
class Target:
    """Descriptors of a structure, and the parameters they were made with."""

    ead: EAD
    """Parameters of the descriptor."""
    pooling: Pooling
    """How atoms are compared: "sites", "moments" or "extrema"."""
    numbers: Tensor = field(repr=False)
    """Atomic numbers, ascending, shape (n,), int64."""
    values: Tensor = field(repr=False)
    """Compared numbers f: of every atom, shape (n, size), in the order of `numbers`; or pooled, shape (size * 4) or (size * 2)."""
    scale: Tensor = field(repr=False)
    """s of every number of an atom, shape (size,)."""

    @classmethod
    def of(cls, atoms: Atoms, ead: EAD = OURS, pooling: Pooling = "sites") -> Target:
        """Target of a structure.

        Raises
        ------
        CrystalError
            Not a crystal.
        DescriptorError
            Unknown pooling.
        """
        numbers = np.sort(atoms.numbers, kind="stable")
        ordered = atoms[np.argsort(atoms.numbers, kind="stable")]
        invariants = ead(CrystalBatch.from_atoms(ordered))
        return cls.from_invariants(ead, pooling, torch.from_numpy(numbers.astype(np.int64)), invariants)

    @classmethod
    def from_invariants(cls, ead: EAD, pooling: Pooling, numbers: Tensor, invariants: Tensor) -> Target:
        """Target of the invariants of all atoms, shape (n, size)."""
        scale = scale_of(ead, invariants.mean(dim=0))
        compared = compared_numbers(invariants, scale)
        return cls(ead, pooling, numbers, compared if pooling == "sites" else pooled(compared, pooling), scale)

    @classmethod
    def from_pooled(cls, ead: EAD, pooling: Pooling, numbers: Sequence[int] | np.ndarray, invariants: Tensor) -> Target:
        """Target of pooled invariants ρ, as a generative model gives them: "extrema" only, shape (2 * size).

        Raises
        ------
        DescriptorError
            Another length, another pooling, or numbers that are not finite.
        """
        if pooling != "extrema":
            raise DescriptorError(f"a target can be made from pooled invariants for 'extrema' only, not for {pooling!r}")
        if invariants.shape != (2 * ead.size,) or not torch.isfinite(invariants).all():
            raise DescriptorError(
                f"the target holds {tuple(invariants.shape)} numbers; the descriptor has {2 * ead.size} finite ones:"
                " it was made for other parameters"
            )
        largest, smallest = invariants.clamp_min(0.0).view(2, -1)
        scale = scale_of(ead, (largest + smallest) / 2)
        values = torch.cat([compared_numbers(largest, scale), compared_numbers(torch.minimum(smallest, largest), scale)])
        return cls(ead, pooling, torch.as_tensor(np.sort(np.asarray(numbers, dtype=np.int64))), values, scale)

    def check(self, numbers: np.ndarray) -> None:
        """Raise `DescriptorError` unless a crystal has the elements of the target."""
        if not np.array_equal(np.sort(numbers), self.numbers.numpy()):
            raise DescriptorError(f"the target is made for {_formula(self.numbers.numpy())}, the crystal is {_formula(numbers)}")

    def compare(self, invariants: Tensor) -> Tensor:
        """Residuals of crystals whose atoms are ordered as `numbers`, shape (b, n, size) → (b, d); 0 where they agree."""
        found = compared_numbers(invariants, self.scale.to(invariants))
        values = self.values.to(found)
        if self.pooling != "sites":
            return pooled(found, self.pooling) - values
        pairs = self.pairs(found.detach())
        return (found - values[pairs]).flatten(1)

    def loss(self, invariants: Tensor) -> Tensor:
        """Mean squared residual, shape (b,)."""
        return self.compare(invariants).square().mean(dim=1)

    def pairs(self, found: Tensor) -> Tensor:
        """Atom of the target that each atom is compared with, shape (b, n)."""
        values = self.values.to(found)
        best = torch.arange(len(self.numbers)).repeat(len(found), 1)
        costs = torch.cdist(found, values.expand_as(found)).square().cpu().numpy()
        for element in self.numbers.unique().tolist():
            members = np.nonzero(self.numbers.numpy() == element)[0]
            if len(members) > 1:
                for b, cost in enumerate(costs):
                    _, columns = linear_sum_assignment(cost[np.ix_(members, members)])
                    best[b, members] = torch.from_numpy(members[columns])
        return best


def scale_of(ead: EAD, mean: Tensor) -> Tensor:
    """Scale of every number of an atom from typical invariants, both of shape (size,): radial function by radial function, of order 0."""
    first = mean.view(len(ead.orders), -1)[0]
    first = first.clamp_min(0.02 * first.mean()).clamp_min(1e-12)
    return torch.cat([first * (1.0 if order == 0 else HIGHER_ORDERS) for order in ead.orders])


def compared_numbers(invariants: Tensor, scale: Tensor) -> Tensor:
    """f = (ρ/s + ε)^½."""
    return (invariants / scale + EPSILON).sqrt()


def pooled(values: Tensor, pooling: Pooling) -> Tensor:
    """Numbers of atoms (..., n, size) as a vector of fixed length.

    Raises
    ------
    DescriptorError
        Unknown pooling.
    """
    largest, smallest = values.amax(dim=-2), values.amin(dim=-2)
    if pooling == "extrema":
        return torch.cat([largest, smallest], dim=-1)
    if pooling == "moments":
        mean = values.mean(dim=-2)
        # The root of a variance has no derivative where all atoms are alike.
        spread = ((values - mean.unsqueeze(-2)).square().mean(dim=-2) + 1e-8).sqrt()
        return torch.cat([mean, spread, largest, smallest], dim=-1)
    raise DescriptorError(f"unknown pooling {pooling!r}; known: sites, moments, extrema")


def _formula(numbers: np.ndarray) -> str:
    elements, counts = np.unique(numbers, return_counts=True)
    return "".join(f"{chemical_symbols[z]}{c if c > 1 else ''}" for z, c in zip(elements, counts, strict=True))
