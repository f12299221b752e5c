"""The symmetry of a batch of crystals as tensors, and the projections of positions, scores and cells onto it.

A *site* is the set of atoms of a crystal that its operations carry into each other. Column convention inside: atom i of a site
sits at ``f_i = R_i x + t_i``, where ``x`` is the site's representative and belongs to the fixed points of its
site-symmetry group (a point, line, plane or all of space). So the symmetric crystals are those with some ``x`` for every site,
and everything here is an average over the atoms of a site, followed by one 3 × 3 matrix for the site: O(number of atoms).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..lattice import pack, turn_cell, unpack
from ..prior import ISO_BASIS


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Symmetry of a batch of crystals; n atoms, s sites, b crystals. Real tensors are float64.

    Fractional coordinates and operations refer to each crystal's own cell, primitive or not.
    """

    num_atoms: Tensor
    """Atoms per crystal, shape (b,), int64."""
    site: Tensor
    """Site of each atom, counted through the batch, shape (n,), int64."""
    rotation: Tensor
    """R_i of ``f_i = R_i x + t_i``, shape (n, 3, 3)."""
    shift: Tensor
    """t_i, shape (n, 3)."""
    stabilizer: Tensor
    """Average of the rotations of the site-symmetry group (idempotent, its trace the free parameters), shape (s, 3, 3)."""
    origin: Tensor
    """A fixed point of the site-symmetry group, shape (s, 3)."""
    lift: Tensor
    """With `fold`: which copy of the fixed points is near (:func:`asegen.symmetry.wyckoff.quotient`), shape (s, 3, 3)."""
    fold: Tensor
    """See `lift`, shape (s, 3, 3)."""
    point: Tensor
    """Rotations of the point group in the lattice basis, padded with zeros, shape (b, g, 3, 3)."""
    point_count: Tensor
    """Operations of each point group, shape (b,), int64."""

    def __len__(self) -> int:
        return len(self.num_atoms)

    @classmethod
    def none(cls, num_atoms: int | Sequence[int] | Tensor) -> Symmetry:
        """No symmetry (P1): every atom its own site, every cell allowed.

        Parameters
        ----------
        num_atoms : int or sequence of int
            Atoms of the crystal, or of each crystal.
        """
        counts = torch.as_tensor(num_atoms, dtype=torch.int64).reshape(-1)
        total = int(counts.sum())
        eye = torch.eye(3, dtype=torch.float64)
        each, zero = eye.repeat(total, 1, 1), torch.zeros(total, 3, dtype=torch.float64)
        return cls(
            num_atoms=counts,
            site=torch.arange(total),
            rotation=each,
            shift=zero,
            stabilizer=each,
            origin=zero,
            lift=torch.zeros_like(each),
            fold=torch.zeros_like(each),
            point=eye.repeat(len(counts), 1, 1, 1),
            point_count=torch.ones_like(counts),
        )

    @classmethod
    def cat(cls, parts: Sequence[Symmetry]) -> Symmetry:
        """The symmetry of the crystals of all parts, in their order.

        Raises
        ------
        ValueError
            No parts.
        """
        if not parts:
            raise ValueError("Symmetry.cat needs at least one part")
        widest = max(part.point.shape[1] for part in parts)
        joined = {field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls) if field.name != "point"}
        before = np.cumsum([0, *(part.num_sites for part in parts)])
        joined["site"] = torch.cat([part.site + int(start) for part, start in zip(parts, before, strict=False)])
        joined["point"] = torch.cat([torch.nn.functional.pad(part.point, (0, 0, 0, 0, 0, widest - part.point.shape[1])) for part in parts])
        return cls(**joined)

    def to(self, device: torch.device | str) -> Symmetry:
        """The same on another device."""
        return Symmetry(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @property
    def num_sites(self) -> int:
        """Sites of the whole batch."""
        return len(self.origin)

    @cached_property
    def index(self) -> Tensor:
        """Crystal of each atom, shape (n,)."""
        crystals = torch.arange(len(self), device=self.num_atoms.device)
        return torch.repeat_interleave(crystals, self.num_atoms, output_size=len(self.site))

    @cached_property
    def multiplicity(self) -> Tensor:
        """Atoms of each site, shape (s,), int64."""
        ones = torch.ones_like(self.site)
        return torch.zeros(self.num_sites, dtype=torch.int64, device=self.site.device).index_add_(0, self.site, ones)

    @cached_property
    def first(self) -> Tensor:
        """First atom of each site, shape (s,)."""
        atoms = torch.arange(len(self.site), device=self.site.device)
        last = torch.full((self.num_sites,), len(self.site), device=self.site.device)
        return last.scatter_reduce(0, self.site, atoms, "amin")

    @cached_property
    def dof(self) -> Tensor:
        """Free parameters of the positions of each crystal, shape (b,), int64."""
        return self._per_crystal(self.stabilizer.diagonal(dim1=-2, dim2=-1).sum(-1)).round().long()

    @cached_property
    def cell_dof(self) -> Tensor:
        """Free lattice parameters of each crystal (1, 2, 3, 4 or 6), shape (b,), int64."""
        # symmetric matrices kept by the group: the average character of the symmetric square, (χ(R)² + χ(R²)) / 2
        trace = self.point.diagonal(dim1=-2, dim2=-1).sum(-1)
        square = (self.point @ self.point).diagonal(dim1=-2, dim2=-1).sum(-1)
        return (0.5 * (trace**2 + square).sum(1) / self.point_count).round().long()

    def displacements(self, displacement: Tensor) -> Tensor:
        """Symmetric part of displacements: their average over the group.

        The orthogonal projection, for Cartesian lengths in any cell that has the symmetry.

        Parameters
        ----------
        displacement : Tensor, shape (n, 3)
            Of fractional coordinates.

        Returns
        -------
        Tensor, shape (n, 3)
        """
        like = displacement
        rotation, inverse, stabilizer = self.rotation.to(like), self._inverse.to(like), self.stabilizer.to(like)
        mean = self._site_mean(_apply(inverse, like))
        return _apply(rotation, _apply(stabilizer, mean)[self.site])

    def scores(self, gradient: Tensor) -> Tensor:
        """Symmetric part of gradients with respect to fractional coordinates, the transpose of :meth:`displacements`.

        ``sum(scores(g) * d) == sum(g * displacements(d))``; the contraction with a symmetric displacement is unchanged.

        Parameters
        ----------
        gradient : Tensor, shape (n, 3)

        Returns
        -------
        Tensor, shape (n, 3)
        """
        like = gradient
        rotation, inverse, stabilizer = self.rotation.to(like), self._inverse.to(like), self.stabilizer.to(like)
        mean = self._site_mean(_apply(rotation.mT, like))
        return _apply(inverse.mT, _apply(stabilizer.mT, mean)[self.site])

    def positions(self, frac: Tensor) -> Tensor:
        """The symmetric coordinates nearest to some that are close to symmetric; every atom stays in its image.

        Parameters
        ----------
        frac : Tensor, shape (n, 3)
            Fractional coordinates, wrapped or not, off their sites by less than about a quarter of a lattice vector.

        Returns
        -------
        Tensor, shape (n, 3)
            Exact on the sites, to rounding; applying it again changes nothing more.
        """
        like = frac
        rotation, shift = self.rotation.to(like), self.shift.to(like)
        seen = _apply(self._inverse.to(like), frac - shift)
        # all atoms of a site say where the representative is, up to lattice vectors; the first one decides which
        image = (seen - seen[self.first[self.site]]).round()
        mean = self._site_mean(seen - image)
        away = mean - self.origin.to(like)
        copy = _apply(self.lift.to(like), _apply(self.fold.to(like), away).round())
        place = self.origin.to(like) + copy + _apply(self.stabilizer.to(like), away - copy)
        return _apply(rotation, place[self.site] + image) + shift

    def cells(self, cell: Tensor) -> Tensor:
        """Cells whose metric has exactly the symmetry, in the orientation of the given ones.

        The metric is averaged over the point group (the arithmetic mean: meant for cells that are nearly right).

        Parameters
        ----------
        cell : Tensor, shape (b, 3, 3), Å

        Returns
        -------
        Tensor, shape (b, 3, 3), Å
        """
        metric = self._average(cell @ cell.mT)
        values, vectors = torch.linalg.eigh(metric)
        log = 0.5 * (vectors * values.log()[..., None, :]) @ vectors.mT
        return turn_cell(log, cell)

    def strains(self, strain: Tensor, cell: Tensor) -> Tensor:
        """Symmetric part of strains, or of any symmetric Cartesian tensors such as stresses: their average over the point group.

        Parameters
        ----------
        strain : Tensor, shape (b, 3, 3)
            Symmetric.
        cell : Tensor, shape (b, 3, 3), Å
            With the symmetry of the crystals.

        Returns
        -------
        Tensor, shape (b, 3, 3)
        """
        inverse = torch.linalg.inv(cell)
        return inverse @ self._average(cell @ strain @ cell.mT) @ inverse.mT

    def strain_basis(self, cell: Tensor) -> Tensor:
        """Orthonormal bases of the symmetric strains.

        Parameters
        ----------
        cell : Tensor, shape (b, 3, 3), Å
            With the symmetry of the crystals.

        Returns
        -------
        Tensor, shape (b, 6, 6)
            Rows are packed strains (:func:`asegen.lattice.pack`), orthonormal; the first is the pure change of volume. The first
            ``cell_dof`` rows of each crystal count, the others are zero.
        """
        start = torch.tensor(ISO_BASIS, dtype=cell.dtype, device=cell.device)
        each = unpack(start).expand(len(cell), 6, 3, 3)
        inverse = torch.linalg.inv(cell)[:, None]
        inner = cell[:, None] @ each @ cell.mT[:, None]
        rest = pack(inverse @ self._average(inner) @ inverse.mT)  # (b, 6, 6): projections of the six strains
        # Gram and Schmidt; the one with most left is next, so that no small remainder is blown up
        chosen = []
        for number in range(6):
            size = rest.norm(dim=-1)
            if number == 0:
                size[:, 0] = torch.inf
            pick = rest[torch.arange(len(cell), device=cell.device), size.argmax(1)]
            unit = pick / pick.norm(dim=-1, keepdim=True).clamp_min(1e-30)
            unit = unit * (number < self.cell_dof.to(cell.device))[:, None]
            chosen.append(unit)
            rest = rest - (rest @ unit[..., None]) * unit[:, None, :]
        return torch.stack(chosen, 1)

    def values(self) -> dict[str, Any]:
        """All entries as lists, as JSON keeps them; :meth:`of_values` undoes it exactly."""
        whole = {"rotation", "lift", "fold", "point"}
        return {f.name: (getattr(self, f.name).long() if f.name in whole else getattr(self, f.name)).tolist() for f in fields(self)}

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Symmetry:
        """Symmetry from :meth:`values`."""
        counts = {"num_atoms", "site", "point_count"}
        return cls(
            **{f.name: torch.as_tensor(np.asarray(values[f.name], dtype=np.int64 if f.name in counts else float)) for f in fields(cls)}
        )

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.inv(self.rotation).round() if len(self.rotation) else self.rotation

    def _site_mean(self, values: Tensor) -> Tensor:
        total = torch.zeros(self.num_sites, 3, dtype=values.dtype, device=values.device).index_add_(0, self.site, values)
        return total / self.multiplicity.to(values)[:, None]

    def _per_crystal(self, site_values: Tensor) -> Tensor:
        total = torch.zeros(len(self), dtype=site_values.dtype, device=site_values.device)
        return total.index_add_(0, self.index[self.first], site_values)

    @cached_property
    def _mean_form(self) -> Tensor:
        """The average of quadratic forms over the point group, ``mean_R Rᵀ form R``, as a matrix, shape (b, 9, 9)."""
        total = torch.einsum("bgki,bglj->bijkl", self.point, self.point).reshape(-1, 9, 9)
        return total / self.point_count[:, None, None]

    def _average(self, form: Tensor) -> Tensor:
        """Average of quadratic forms over the point group, shape (b, ..., 3, 3)."""
        flat = form.reshape(len(self), -1, 9)
        return (flat @ self._mean_form.to(form).mT).reshape(form.shape)


def _apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[..., None])[..., 0]
