"""One atom for all that a space group makes of it: how an equivariant network computes a symmetric crystal.

An operation of the crystal takes an atom to another one of its orbit. What an equivariant network says of the two differs by
the operation's rotation alone: scalars are equal, features of order l are turned by D_l(R). So the first atom of each orbit
receives messages, its features are turned out to the others, and those are senders only. The cost is that of the edges, and
these fall with the number of atoms per orbit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from .base import NetworkInput


@dataclass(frozen=True)
class Orbits:
    """Orbits of a batch's atoms; n atoms, s orbits. Without symmetry every atom is one."""

    first: Tensor
    """First atom of each orbit, which stands for it, shape (s,), int64."""
    site: Tensor
    """Orbit of each atom, shape (n,), int64."""
    turn: Tensor | None = None
    """Cartesian rotation or rotation-inversion from the first atom's surroundings to each atom's, ``r' = turn r``,
    shape (n, 3, 3), float64; None without symmetry."""
    wigner: tuple[Tensor, ...] = ()
    """The same for features of order 0, 1, …, shapes (n, 2l + 1, 2l + 1)."""

    @classmethod
    def of(cls, inputs: NetworkInput, lmax: int, dtype: torch.dtype) -> Orbits:
        """Orbits of noisy crystals.

        Parameters
        ----------
        inputs : NetworkInput
        lmax : int
            Highest order of the features that will be turned.
        dtype : torch.dtype
            Of those features.
        """
        symmetry, count = inputs.symmetry, len(inputs.species)
        if symmetry is None or symmetry.num_sites == count:
            each = torch.arange(count, device=inputs.species.device)
            return cls(each, each)
        first, site = symmetry.first, symmetry.site
        # f_i = R_i x + t_i, and the first atom need not be x itself
        operation = symmetry.rotation @ torch.linalg.inv(symmetry.rotation[first])[site]
        # float64 whatever the network computes in: flat cells would cost the rotations digits
        cell = inputs.cell.to(operation).mT
        turn = cell[symmetry.index] @ operation @ torch.linalg.inv(cell)[symmetry.index]
        return cls(first, site, turn, tuple(matrix.to(dtype) for matrix in wigner(turn, lmax)))

    def scalars(self, values: Tensor) -> Tensor:
        """Scalars of all atoms from those of the orbits, shapes (s, d) and (n, d)."""
        return values if self.turn is None else values[self.site]

    def features(self, values: Tensor, irreps: Iterable[tuple[int, tuple[int, int]]]) -> Tensor:
        """Features of all atoms from those of the orbits.

        Parameters
        ----------
        values : Tensor, shape (s, d)
        irreps : e3nn.o3.Irreps
            What the d columns are: (copies, (order, parity)), the parity being that of spherical harmonics, (−1)^order.

        Returns
        -------
        Tensor, shape (n, d)
        """
        if self.turn is None:
            return values
        parts, column = [], 0
        for copies, (order, _) in irreps:
            width = copies * (2 * order + 1)
            part = values[:, column : column + width][self.site]
            if order:
                part = (part.reshape(-1, copies, 2 * order + 1) @ self.wigner[order].mT).reshape(-1, width)
            parts.append(part)
            column += width
        return torch.cat(parts, -1)

    def sum_tensors(self, values: Tensor, orbit: Tensor, index: Tensor, crystals: int) -> Tensor:
        """Sum over each crystal of Cartesian tensors that belong to the surroundings of its atoms.

        Parameters
        ----------
        values : Tensor, shape (e, 3, 3)
            Those of the first atoms of the orbits.
        orbit : Tensor, shape (e,)
            The orbit of each.
        index : Tensor, shape (n,)
            Crystal of each atom.
        crystals : int

        Returns
        -------
        Tensor, shape (crystals, 3, 3)
        """
        total = values.new_zeros(crystals, 3, 3)
        if self.turn is None:
            return total.index_add_(0, index[orbit], values)
        turn = self.turn.to(values)
        around = values.new_zeros(len(self.first), 3, 3).index_add_(0, orbit, values)
        return total.index_add_(0, index, turn @ around[self.site] @ turn.mT)


class SendFromAll(nn.Module):
    """Step of a NequIP layer between what an atom does for itself and the messages: the senders are all atoms.

    It stands where NequIP, with a crystal divided among processors, fetches the features of atoms that others compute.
    """

    def __init__(self, irreps: Iterable[tuple[int, tuple[int, int]]]) -> None:
        super().__init__()
        self.irreps = irreps

    def forward(self, data: dict, ghost_included: bool) -> dict:
        data["node_features"] = data["orbits"].features(data["node_features"], self.irreps)
        return data


def wigner(turn: Tensor, lmax: int) -> list[Tensor]:
    """Matrices that turn features of order 0 to `lmax`, with the parity of spherical harmonics, as e3nn orders them.

    They are read off the harmonics of turned points, which is exact to rounding for every rotation; Euler angles are not.

    Parameters
    ----------
    turn : Tensor, shape (n, 3, 3), float64
        Rotations and rotation-inversions.

    Returns
    -------
    list of Tensor, shapes (n, 2l + 1, 2l + 1)
    """
    from e3nn.o3 import spherical_harmonics

    points, inverses = _reference(lmax)
    turned = spherical_harmonics(list(range(lmax + 1)), points.to(turn) @ turn.mT, normalize=True)
    parts = turned.split([2 * order + 1 for order in range(lmax + 1)], -1)
    return [(inverse.to(turn) @ part).mT for inverse, part in zip(inverses, parts, strict=True)]


@cache
def _reference(lmax: int) -> tuple[Tensor, list[Tensor]]:
    """Points in all directions, shape (p, 3), and what makes matrices of the harmonics seen there, shapes (2l + 1, p)."""
    from e3nn.o3 import spherical_harmonics

    points = torch.randn(4 * (lmax + 1), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return points, [torch.linalg.pinv(spherical_harmonics(order, points, normalize=True)) for order in range(lmax + 1)]
