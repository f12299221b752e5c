"""Steps that keep a space group: every move of positions and lattice is projected onto the symmetric ones.

The model's noise is isotropic in fractional coordinates and in the whitened lattice coordinates, so the projections are the
orthogonal ones there. Then noise of width σ per coordinate has, on a site of m atoms that follow its parameter p with
fractional directions R_i b, the variance ``σ² / Σ_i |R_i b|²`` in p: the restriction of the model's density to the
symmetric crystals is sampled with the right weight.

At the end of a step atoms that are on each other are pushed apart (:mod:`asegen.symmetry.apart`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..kernels import Schedule
from ..lattice import cell_from_log, strain_to_log, unpack
from ..prior import lattice_coordinates, lattice_tangent_of, log_cell_of
from ..symmetry.apart import Spacing
from ..symmetry.symmetry import Symmetry
from .rules import State, StepNoise


@dataclass(frozen=True)
class Projection:
    """The symmetry of a batch, prepared for steps."""

    symmetry: Symmetry
    fold: Tensor
    """Per site, from the sum of what its atoms want to what the representative does, shape (s, 3, 3)."""

    @classmethod
    def of(cls, symmetry: Symmetry) -> Projection:
        """Prepare a symmetry."""
        squares = symmetry.rotation.mT @ symmetry.rotation
        metric = torch.zeros(symmetry.num_sites, 3, 3, dtype=squares.dtype, device=squares.device).index_add_(0, symmetry.site, squares)
        free = symmetry.stabilizer
        return cls(symmetry, free @ torch.linalg.pinv(free.mT @ metric @ free, rtol=1e-9, hermitian=True) @ free.mT)

    @cached_property
    def spacing(self) -> Spacing:
        """What keeps atoms apart."""
        return Spacing(self.symmetry)

    def positions(self, move: Tensor) -> Tensor:
        """Nearest symmetric displacements, distances measured in fractional coordinates, shape (n, 3)."""
        symmetry = self.symmetry
        wanted = (symmetry.rotation.mT @ move[..., None])[..., 0]
        total = torch.zeros(symmetry.num_sites, 3, dtype=move.dtype, device=move.device).index_add_(0, symmetry.site, wanted)
        return (symmetry.rotation @ (self.fold @ total[..., None])[symmetry.site])[..., 0]

    def lattice(self, move: Tensor, cell: Tensor) -> Tensor:
        """Nearest symmetric changes of the whitened lattice coordinates of cells, shape (b, 6)."""
        basis = unpack(self.symmetry.strain_basis(cell))
        change = strain_to_log(basis, cell[:, None].expand_as(basis))
        tangent = lattice_tangent_of(change).mT  # columns: one free parameter each, the rest zero
        return (tangent @ (torch.linalg.pinv(tangent, rtol=1e-9) @ move[..., None]))[..., 0]


def hold(new: State, old: State, projection: Projection | None) -> State:
    """The step from a symmetric state, without the part that would break the symmetry, or put atoms on each other.

    Atoms that the step leaves closer than 0.6 of the sum of their covalent radii are pushed apart
    (:meth:`asegen.symmetry.apart.Spacing.push`), at every noise level. Free walks (no projection) are not changed.
    """
    if projection is None:
        return new
    symmetry = projection.symmetry
    frac = symmetry.positions(old.frac + projection.positions(new.frac - old.frac))
    cell = cell_from_log(log_cell_of(old.y, old.volume))
    y = old.y + projection.lattice(new.y - old.y, cell)
    # a step along the tangent leaves the curved set of symmetric cells a little
    cell = symmetry.cells(cell_from_log(log_cell_of(y, new.volume)))
    frac = projection.spacing.push(frac, cell, new.species, before=old.frac)
    return replace(new, frac=frac, y=lattice_coordinates(cell, new.volume))


def blur(state: State, noise: StepNoise, schedule: Schedule, time: float) -> State:
    """A clean crystal as it looks at a noise level: where walks begin that do not start from nothing."""
    t = torch.tensor([time], dtype=torch.float64, device=state.y.device)
    width = schedule.frac_width(schedule.sigma(t), state.num_atoms)[state.index][:, None]
    y = schedule.lattice_alpha(t) * state.y + schedule.lattice_width(t) * noise.lattice
    return replace(state, frac=state.frac + width * noise.position, y=y)


__all__ = ["Projection", "blur", "hold"]
