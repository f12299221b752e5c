"""Noise kernels: how each variable of a crystal is blurred, and the exact score of each blur.

A noise level is named by its position blur σ in Å. :class:`Schedule` turns σ into the widths of all three
variables; the kernels below are plain functions of those widths.

positions
    Wrapped normal on the torus of fractional coordinates, independent components of width
    ``σ_f = σ / (v₀ N)^(1/3)``: N atoms in a cell of N average atomic volumes v₀. In a cube of that volume the
    blur is exactly σ Å in every direction.
lattice
    Variance-preserving normal on the six-vector of the log metric (:mod:`asegen.lattice`), measured from a
    reference cube of the same number of atoms and in units of its spread over the data.
elements
    Each atom's element is hidden with probability m(σ) (absorbing categorical noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

_IMAGES = torch.arange(-3, 4, dtype=torch.float64)
_WAVES = torch.arange(1, 8, dtype=torch.float64)
# Below this width seven images represent the wrapped normal to 1e-12, above it seven Fourier waves do.
_SWITCH = 0.3


# --- positions: wrapped normal -------------------------------------------------------------------------------


def wrapped_normal_log_prob(delta: Tensor, width: Tensor) -> Tensor:
    """Log density of the normal of standard deviation `width` wrapped on the unit circle.

    Parameters
    ----------
    delta : Tensor
        Displacement in fractional units, any shape; only its value modulo 1 matters.
    width : Tensor
        σ_f, broadcast against `delta`.
    """
    delta, width = torch.broadcast_tensors(delta, width)
    x = (delta - delta.round()).double()
    s = width.double()
    near = s.clamp(max=_SWITCH)[..., None]
    log_images = -0.5 * ((x[..., None] + _IMAGES.to(x.device)) / near) ** 2
    direct = torch.logsumexp(log_images, -1) - torch.log(near[..., 0]) - 0.5 * math.log(2 * math.pi)
    n = _WAVES.to(x.device)
    far = s.clamp(min=_SWITCH)[..., None]
    waves = torch.exp(-2 * (math.pi * n * far) ** 2) * torch.cos(2 * math.pi * n * x[..., None])
    fourier = torch.log1p(2 * waves.sum(-1))
    return torch.where(s < _SWITCH, direct, fourier).to(delta.dtype)


def wrapped_normal_score(delta: Tensor, width: Tensor) -> Tensor:
    """Derivative of :func:`wrapped_normal_log_prob` with respect to `delta`, in 1/fractional units."""
    delta, width = torch.broadcast_tensors(delta, width)
    x = (delta - delta.round()).double()
    s = width.double()
    near = s.clamp(max=_SWITCH)[..., None]
    shifted = x[..., None] + _IMAGES.to(x.device)
    weight = torch.softmax(-0.5 * (shifted / near) ** 2, -1)
    direct = -(weight * shifted).sum(-1) / near[..., 0] ** 2
    n = _WAVES.to(x.device)
    far = s.clamp(min=_SWITCH)[..., None]
    amplitude = torch.exp(-2 * (math.pi * n * far) ** 2)
    phase = 2 * math.pi * n * x[..., None]
    above = -(4 * math.pi * n * amplitude * torch.sin(phase)).sum(-1)
    below = 1 + 2 * (amplitude * torch.cos(phase)).sum(-1)
    return torch.where(s < _SWITCH, direct, above / below).to(delta.dtype)


def wrapped_normal_score_norm(width: Tensor) -> Tensor:
    """Root mean square of the score of a wrapped normal of that width, in 1/fractional units.

    ``1/σ_f`` for narrow blurs, ``√8 π exp(−2π²σ_f²)`` once the blur fills the circle; in between interpolated (to 1e-6) in a
    table made once by quadrature.
    """
    s = width.double()
    low, high = _TABLE_RANGE
    place = (s.clamp(low, high).log() - math.log(low)) / math.log(high / low) * (_TABLE_SIZE - 1)
    left = place.floor().clamp(max=_TABLE_SIZE - 2)
    table = _log_norm_table().to(s.device)
    below = table[left.long()]
    middle = torch.exp(below + (place - left) * (table[left.long() + 1] - below))
    broad = math.sqrt(8) * math.pi * torch.exp(-2 * (math.pi * s) ** 2)
    return torch.where(s < low, 1 / s, torch.where(s > high, broad, middle)).to(width.dtype)


_TABLE_RANGE, _TABLE_SIZE = (0.05, 0.9), 2048


@cache
def _log_norm_table() -> Tensor:
    low, high = _TABLE_RANGE
    width = torch.logspace(math.log10(low), math.log10(high), _TABLE_SIZE, dtype=torch.float64)[:, None]
    x = ((torch.arange(512, dtype=torch.float64) + 0.5) / 512 - 0.5)[None, :]
    density = wrapped_normal_log_prob(x, width).exp()
    return (density * wrapped_normal_score(x, width) ** 2).mean(-1).sqrt().log()


# --- lattice: variance-preserving normal ---------------------------------------------------------------------


def normal_log_prob(noisy: Tensor, clean: Tensor, alpha: Tensor, width: Tensor) -> Tensor:
    """Log density of ``noisy = alpha clean + width ξ``, summed over the last axis."""
    z = (noisy - alpha * clean) / width
    dimension = noisy.shape[-1]
    return -0.5 * (z**2).sum(-1) - dimension * 0.5 * math.log(2 * math.pi) - torch.log(width).expand(noisy.shape).sum(-1)


def normal_score(noisy: Tensor, clean: Tensor, alpha: Tensor, width: Tensor) -> Tensor:
    """Derivative of :func:`normal_log_prob` with respect to `noisy`."""
    return -(noisy - alpha * clean) / width**2


# --- elements: absorbing categorical noise -------------------------------------------------------------------


def hide(species: Tensor, probability: Tensor, uniform: Tensor, mask: int = 0) -> Tensor:
    """Elements replaced by `mask` where ``uniform < probability``, shape (n,)."""
    return torch.where(uniform < probability, torch.full_like(species, mask), species)


def hidden_log_prob(noisy: Tensor, clean: Tensor, probability: Tensor, mask: int = 0) -> Tensor:
    """Log probability of the noisy element given the clean one; -inf where it is impossible."""
    hidden = torch.log(probability)
    kept = torch.where(noisy == clean, torch.log1p(-probability), torch.full_like(probability, -math.inf))
    return torch.where(noisy == mask, hidden, kept)


def reveal_probability(now: Tensor, later: Tensor) -> Tensor:
    """Chance that an element hidden at level `now` is revealed on the way to the lower level `later`.

    Bayes' rule for absorbing noise: with hiding probabilities m(now) ≥ m(later) it is
    ``(m(now) − m(later)) / m(now)``, whatever the element. This is the discrete analogue of a score: with the
    network's distribution over clean elements it gives the exact reverse transition.
    """
    return torch.where(now > 0, (now - later) / now.clamp(min=1e-12), torch.ones_like(now)).clamp(0, 1)


# --- schedule ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """How the three blurs follow the noise level; written into every checkpoint.

    The level is a time t in [0, 1] or, equivalently, the position blur
    ``σ(t) = sigma_min (sigma_max / sigma_min)^t`` in Å.
    """

    sigma_min: float = 0.02
    """Smallest position blur, Å."""
    sigma_max: float = 3.2
    """Largest position blur, Å: uniform for cells of up to about 20 atoms."""
    atomic_volume: float = 18.0
    """v₀, the average volume of an atom that turns Å into fractional widths, Å³."""
    element_start: float = 0.2
    """Elements are all known below this t ..."""
    element_end: float = 0.9
    """... and all hidden above this one; the hiding probability is linear in between."""

    def sigma(self, t: Tensor) -> Tensor:
        """Position blur at time t, Å."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, sigma: Tensor) -> Tensor:
        """Inverse of :meth:`sigma`; clamped to [0, 1]."""
        return (torch.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)).clamp(0, 1)

    def frac_width(self, sigma: Tensor, num_atoms: Tensor) -> Tensor:
        """Width σ_f of the wrapped normal of fractional coordinates."""
        return sigma / (self.atomic_volume * num_atoms.to(sigma.dtype)) ** (1 / 3)

    def lattice_alpha(self, t: Tensor) -> Tensor:
        """How much of the clean lattice is left, cos(πt/2)."""
        return torch.cos(0.5 * math.pi * t)

    def lattice_width(self, t: Tensor) -> Tensor:
        """Standard deviation of the lattice's noise, sin(πt/2)."""
        return torch.sin(0.5 * math.pi * t)

    def hiding(self, t: Tensor) -> Tensor:
        """Probability that an element is hidden."""
        return ((t - self.element_start) / (self.element_end - self.element_start)).clamp(0, 1)
