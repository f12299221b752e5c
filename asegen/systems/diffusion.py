"""System `diffusion`: one joint score model of positions, lattice and elements.

Trained by denoising score matching: a crystal is blurred by the kernels of :mod:`asegen.kernels` at a random level and
the network predicts, per variable, the score of the blur. With the elements given it predicts structures for a
formula; with some or all hidden it generates from nothing. Both come from the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import kernels
from ..crystals import MASK, CrystalBatch
from ..kernels import Schedule
from ..lattice import cell_from_log
from ..networks.base import NUM_SPECIES, NetworkInput
from ..prior import lattice_coordinates, log_cell_of, reference_volume
from ..symmetry.symmetry import Symmetry


class Scores(NamedTuple):
    """Scores of a batch of noisy crystals at their levels."""

    position: Tensor
    """∂ log p / ∂f, shape (n, 3); sums to zero over each crystal."""
    lattice: Tensor
    """∂ log p / ∂y of the whitened lattice coordinates, shape (b, 6)."""
    elements: Tensor
    """Logits of the clean elements over atomic numbers, shape (n, 119); -inf where not in the training data."""


class Losses(NamedTuple):
    """Mean losses of a batch; a network that knows nothing has 1 for positions and lattice."""

    total: Tensor
    position: Tensor
    lattice: Tensor
    elements: Tensor


@dataclass(frozen=True)
class LossWeights:
    """How much each variable counts in the training loss."""

    position: float = 1.0
    lattice: float = 1.0
    elements: float = 0.3


class DiffusionSystem(nn.Module):
    """Kernels, network and loss.

    Parameters
    ----------
    network : nn.Module
        A :class:`asegen.networks.Network`.
    schedule : Schedule
    free_share : float
        Share of training crystals whose elements are hidden at random (de novo); the others are given (formula).
    known : sequence of int, optional
        Atomic numbers that may be generated; default: all.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule | None = None, free_share: float = 0.2, known: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        barred = torch.zeros(NUM_SPECIES, dtype=torch.bool)
        if known is not None:
            barred[:] = True
            barred[list(known)] = False
        barred[MASK] = True
        self.register_buffer("barred", barred, persistent=False)
        self.network: nn.Module = network
        self.schedule = schedule or Schedule()
        self.free_share = free_share

    def scores(
        self,
        batch: CrystalBatch,
        time: Tensor,
        volume: Tensor | None = None,
        condition: Tensor | None = None,
        symmetry: Symmetry | None = None,
    ) -> Scores:
        """Scores of noisy crystals.

        Parameters
        ----------
        batch : CrystalBatch
            Elements not decided are 0.
        time : Tensor, shape (b,)
            Noise level, see :class:`asegen.kernels.Schedule`.
        volume : Tensor, shape (b,), optional, Å³
            Reference volume; default: the sum of atomic volumes.
        condition : Tensor, shape (b, c), optional
        symmetry : Symmetry, optional
            What the crystals have exactly, elements included. An equivariant network then computes one atom per orbit; the
            scores are the same.
        """
        if volume is None:
            volume = reference_volume(batch.species, batch.index, len(batch))
        y = lattice_coordinates(batch.cell, volume)
        return self.scores_at(batch, y, time, volume, condition, symmetry)

    def scores_at(
        self,
        batch: CrystalBatch,
        y: Tensor,
        time: Tensor,
        volume: Tensor,
        condition: Tensor | None = None,
        symmetry: Symmetry | None = None,
    ) -> Scores:
        """As :meth:`scores` for lattice coordinates already at hand."""
        inputs = replace(self._inputs(batch, y, time, volume, condition), symmetry=symmetry)
        raw = self.network(_to_float(inputs))
        norm, alpha = inputs.position_norm, inputs.lattice_alpha
        spread = (1 - alpha**2).sqrt()
        noise = spread[:, None] * y + alpha[:, None] * raw.lattice.to(y.dtype)
        return Scores(
            raw.position.to(batch.frac.dtype) * norm[batch.index][:, None].to(batch.frac.dtype),
            -noise / spread[:, None],
            raw.elements.masked_fill(self.barred, -torch.inf),
        )

    def energy(self, batch: CrystalBatch, time: Tensor, volume: Tensor | None = None) -> Tensor:
        """−log p up to a constant of an energy-parameterised network, shape (b,).

        :meth:`scores` are minus its derivatives with respect to fractional and lattice coordinates.
        """
        if volume is None:
            volume = reference_volume(batch.species, batch.index, len(batch))
        y = lattice_coordinates(batch.cell, volume)
        return self.network.energy(_to_float(self._inputs(batch, y, time, volume)))  # type: ignore[operator]

    def _inputs(self, batch: CrystalBatch, y: Tensor, time: Tensor, volume: Tensor, condition: Tensor | None = None) -> NetworkInput:
        time = time.clamp(1e-3, 1 - 1e-3)  # the network was never shown the very ends
        width = self.schedule.frac_width(self.schedule.sigma(time), batch.num_atoms)
        norm = kernels.wrapped_normal_score_norm(width)
        alpha = self.schedule.lattice_alpha(time)
        return NetworkInput(batch.species, batch.frac, batch.cell, y, batch.num_atoms, time, volume, norm, alpha, condition)

    def loss(self, batch: CrystalBatch, generator: torch.Generator, weights: LossWeights | None = None) -> Losses:
        """Denoising score matching at random levels.

        Parameters
        ----------
        batch : CrystalBatch
            Clean crystals, float32.
        generator : torch.Generator
            On the CPU; decides levels and noise, so that a resumed run sees the same ones.
        weights : LossWeights, optional
        """
        weights = weights or LossWeights()
        index = batch.index
        with torch.autocast(batch.cell.device.type, enabled=False):
            noisy, target, velocity = self._blur(batch, generator)
        raw = self.network(noisy)
        # one crystal one vote, whatever its size
        per_atom = (raw.position - target).square().mean(-1) / batch.num_atoms[index]
        freedom = (1 - 1 / batch.num_atoms).sum().clamp(min=1)  # the mean is projected out
        position = per_atom.sum() / freedom
        lattice = (raw.lattice - velocity).square().mean()
        hidden = noisy.species == MASK
        if bool(hidden.any()):
            elements = functional.cross_entropy(raw.elements[hidden], batch.species[hidden])
        else:
            elements = raw.elements.sum() * 0
        share = hidden.float().mean()
        total_loss = weights.position * position + weights.lattice * lattice + weights.elements * share * elements
        return Losses(total_loss, position, lattice, elements)

    @torch.no_grad()
    def _blur(self, batch: CrystalBatch, generator: torch.Generator) -> tuple[NetworkInput, Tensor, Tensor]:
        """Noisy crystals with the targets of positions, shape (n, 3), and lattice, shape (b, 6)."""
        device, count, total = batch.cell.device, len(batch), len(batch.species)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(device)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(device)

        # levels spread evenly over the batch: less noise in the gradient than independent ones
        order = torch.randperm(count, generator=generator).to(device)
        time = ((order + uniform(count)) / count).clamp(1e-3, 1 - 1e-3)
        index = batch.index
        width = self.schedule.frac_width(self.schedule.sigma(time), batch.num_atoms)
        shift = normal(total, 3) * width[index][:, None]
        target = kernels.wrapped_normal_score(shift, width[index][:, None])
        norm = kernels.wrapped_normal_score_norm(width)
        target = target / norm[index][:, None]
        target = remove_mean(target, batch.num_atoms, index)

        volume = reference_volume(batch.species, index, count)
        clean = lattice_coordinates(batch.cell.double(), volume).float()
        noise = normal(count, 6)
        alpha, spread = self.schedule.lattice_alpha(time)[:, None], self.schedule.lattice_width(time)[:, None]
        y = alpha * clean + spread * noise
        velocity = alpha * noise - spread * clean
        cell = cell_from_log(log_cell_of(y, volume))

        free = uniform(count) < self.free_share
        hiding = torch.where(free, self.schedule.hiding(time), torch.zeros_like(time))
        species = kernels.hide(batch.species, hiding[index], uniform(total), MASK)

        noisy = NetworkInput(species, batch.frac + shift, cell, y, batch.num_atoms, time, volume.float(), norm, alpha[:, 0])
        return noisy, target, velocity


def remove_mean(values: Tensor, num_atoms: Tensor, index: Tensor) -> Tensor:
    """Values per atom, shape (n, 3), with the mean over each crystal taken out."""
    mean = torch.zeros(len(num_atoms), values.shape[-1], dtype=values.dtype, device=values.device)
    mean = mean.index_add_(0, index, values) / num_atoms[:, None]
    return values - mean[index]


def _to_float(inputs: NetworkInput) -> NetworkInput:
    return replace(
        inputs,
        frac=inputs.frac.float(),
        cell=inputs.cell.float(),
        lattice=inputs.lattice.float(),
        time=inputs.time.float(),
        volume=inputs.volume.float(),
        position_norm=inputs.position_norm.float(),
        lattice_alpha=inputs.lattice_alpha.float(),
        condition=None if inputs.condition is None else inputs.condition.float(),
    )
