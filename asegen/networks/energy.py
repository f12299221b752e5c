"""An energy-parameterised score: one scalar per crystal whose derivatives are the scores.

``U(f, y, t) = y²/2 + g(t) Σ_i u_i`` with u_i read off the dense network's atom vectors; the position score is ``−∂U/∂f``,
the lattice score ``−∂U/∂y``. The field has no curl, so line searches and Metropolis steps make sense. It costs a backward
pass per evaluation and two in training.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..prior import log_cell_of
from .base import NetworkInput, NetworkOutput
from .dense import DenseNetwork


class EnergyNetwork(nn.Module):
    """Dense network read out as one scalar.

    Parameters
    ----------
    **options
        As for :class:`asegen.networks.dense.DenseNetwork`.
    """

    def __init__(self, **options: int) -> None:
        super().__init__()
        self.inner = DenseNetwork(**options)
        width = self.inner.enter.out_features
        for name in ("position", "lattice"):
            delattr(self.inner, name)
        self.per_atom = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, inputs: NetworkInput) -> NetworkOutput:
        """Raw outputs as the other networks give them, by differentiating the energy."""
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            frac = inputs.frac.detach().requires_grad_(True)
            y = inputs.lattice.detach().requires_grad_(True)
            energy, atoms = self._energy(inputs, frac, y)
            slope, slant = torch.autograd.grad(energy.sum(), (frac, y), create_graph=training)
            elements = self.inner.species(atoms).float()
        index = torch.repeat_interleave(inputs.num_atoms, output_size=len(frac))
        norm, alpha = inputs.position_norm, inputs.lattice_alpha
        spread = (1 - alpha**2).sqrt()
        # the system expects score / rms for positions and v = (ε − s y) / α with ε = s ∂U/∂y for the lattice
        position = -slope / norm[index][:, None]
        velocity = spread[:, None] * (slant - y) / alpha[:, None]
        if not training:
            position, velocity, elements = position.detach(), velocity.detach(), elements.detach()
        return NetworkOutput(position, velocity, elements)

    def energy(self, inputs: NetworkInput) -> Tensor:
        """−log p up to a constant, shape (b,)."""
        return self._energy(inputs, inputs.frac, inputs.lattice)[0]

    def _energy(self, inputs: NetworkInput, frac: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # the cell is rebuilt from y, so that the energy depends on y through all its paths
        # (by the exponential series: derivatives of eigenvectors do not exist for cells with equal axes)
        cell = torch.linalg.matrix_exp(log_cell_of(y, inputs.volume))
        moved = replace(inputs, frac=frac, lattice=y, cell=cell)
        with torch.autocast(frac.device.type, enabled=False):  # differences of energies need their digits
            atoms, _ = self.inner.encode(moved)
            per_atom = self.per_atom(atoms)[:, 0]
        index = torch.repeat_interleave(inputs.num_atoms, output_size=len(frac))
        learned = torch.zeros(len(y), dtype=per_atom.dtype, device=y.device).index_add_(0, index, per_atom)
        # one scalar serves both: scaled so that its slope in f is about the score's size at this level
        return 0.5 * (y**2).sum(-1) + inputs.position_norm * inputs.lattice_alpha * learned, atoms
