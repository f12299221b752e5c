"""System `structrepdiff`: denoising diffusion of plain vectors (Ho et al. 2020), with the cosine schedule of Nichol and Dhariwal.

A vector x of T = 2,000 steps of noise has the closed form x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε. The network predicts either the noise ε, as
the paper's does, or v = √ᾱ_t ε − √(1 − ᾱ_t) x_0 (Salimans and Ho, 2022), which is the same loss with the weight 1 + SNR on x_0 and
stays meaningful where there is nothing but noise; the packaged models predict v.

Features have mean 0 and, block by block or one by one, variance 1 inside the diffusion (:class:`Scaling`); what comes out is clipped
to the range of the training data in every step, as DDPM clips pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import RecipeError

PREDICTIONS = ("v", "noise")
FIRST = 0.98
"""Where the fast sampler starts, in units of T. At the very last steps of a cosine schedule ᾱ falls to nothing (β is clipped at
0.999): a large step from there would be decided by one prediction made from noise alone."""


@dataclass(frozen=True)
class CosineSchedule:
    """ᾱ_t = f(t)/f(0), f(t) = cos²((t/T + s)/(1 + s) · π/2), s = 0.008, with every β_t at most 0.999."""

    steps: int = 2000
    """T."""

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise RecipeError(f"a diffusion needs at least 2 steps, not {self.steps}")

    def alpha_bar(self) -> Tensor:
        """ᾱ_0 = 1, ᾱ_1, …, ᾱ_T, shape (T + 1,), float64."""
        at = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        level = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - level[1:] / level[:-1]).clamp(max=0.999)
        return torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])


@dataclass(frozen=True)
class Sampler:
    """How to go from noise to data.

    With `evaluations` = T, `churn` = 1 and `order` = 1 it is the ancestral sampler of DDPM; with fewer, steps are evenly spaced and
    begin at :data:`FIRST`: DDIM (Song et al. 2021) in order 1, DPM-Solver++ 2M (Lu et al. 2022) in order 2, which takes the step
    towards a clean vector extrapolated from the last two predictions.
    """

    evaluations: int = 50
    churn: float = 0.0
    """η of DDIM: 0 is deterministic, 1 adds the noise of the ancestral sampler."""
    order: int = 2

    def __post_init__(self) -> None:
        if self.evaluations < 1 or not 0 <= self.churn <= 1 or self.order not in (1, 2):
            raise RecipeError(f"a sampler needs at least one evaluation, a churn in [0, 1] and order 1 or 2: {self}")

    def times(self, steps: int) -> list[int]:
        """Steps t at which the network is asked, descending, and a last 0."""
        if self.evaluations >= steps:
            return list(range(steps, -1, -1))
        first = max(1, round(FIRST * steps))
        spaced = torch.linspace(first, 0, self.evaluations + 1, dtype=torch.float64)
        return [round(float(t)) for t in spaced]


@dataclass(frozen=True)
class Scaling:
    """Affine map between vectors and what is diffused, and the range of the data."""

    mean: Tensor
    """Shape (d,)."""
    scale: Tensor
    """Shape (d,), positive."""
    low: Tensor
    """Smallest scaled value in the training data, shape (d,)."""
    high: Tensor
    """Largest, shape (d,)."""

    @classmethod
    def of(cls, vectors: Tensor, together: Sequence[slice] = ()) -> Scaling:
        """Means and standard deviations of training vectors.

        Parameters
        ----------
        vectors : Tensor, shape (b, d)
        together : sequence of slice
            Features that share one scale (root mean variance). The fractions of rare elements would otherwise be spikes of hundreds
            of standard deviations.
        """
        vectors = vectors.double()
        mean = vectors.mean(0)
        variance = vectors.var(0, unbiased=False)
        for block in together:
            varying = variance[block][variance[block] > 1e-12]
            variance[block] = varying.mean() if len(varying) else 0.0
        # a feature that never changes stays what it is: its scaled range is a point
        scale = torch.where(variance > 1e-12, variance, torch.ones_like(variance)).sqrt()
        scaled = (vectors - mean) / scale
        constant = (vectors.amax(0) - vectors.amin(0)) < 1e-6
        low, high = (torch.where(constant, torch.zeros_like(mean), bound) for bound in (scaled.amin(0), scaled.amax(0)))
        return cls(*(part.float() for part in (mean, scale, low, high)))

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors to scaled ones, shape (b, d)."""
        return (vectors - self.mean) / self.scale

    def inverse(self, scaled: Tensor) -> Tensor:
        """Scaled vectors to vectors, shape (b, d)."""
        return scaled * self.scale + self.mean

    def to(self, device: torch.device | str | None) -> Scaling:
        """The same on another device."""
        return Scaling(self.mean.to(device), self.scale.to(device), self.low.to(device), self.high.to(device))


class VectorDiffusion(nn.Module):
    """Schedule, network and scaling of a diffusion of vectors.

    Parameters
    ----------
    network : nn.Module
        (b, d) noisy scaled vectors and (b,) times t/T to (b, d).
    scaling : Scaling
    schedule : CosineSchedule
    prediction : str
        ``"v"`` or ``"noise"``.
    """

    mean: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    alpha_bar: Tensor

    def __init__(self, network: nn.Module, scaling: Scaling, schedule: CosineSchedule | None = None, prediction: str = "v") -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise RecipeError(f"prediction = {prediction!r}: a network predicts {' or '.join(PREDICTIONS)}")
        self.network: nn.Module = network
        self.schedule = schedule or CosineSchedule()
        self.prediction = prediction
        for name in ("mean", "scale", "low", "high"):
            self.register_buffer(name, getattr(scaling, name))
        self.register_buffer("alpha_bar", self.schedule.alpha_bar().float(), persistent=False)

    @property
    def size(self) -> int:
        """Entries of a vector."""
        return len(self.mean)

    @property
    def scaling(self) -> Scaling:
        """The map between vectors and what is diffused, on the model's device."""
        return Scaling(self.mean, self.scale, self.low, self.high)

    def loss(self, scaled: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the prediction at random steps; 1 for a network that says nothing.

        Parameters
        ----------
        scaled : Tensor, shape (b, d)
            Clean scaled vectors.
        generator : torch.Generator
            On the CPU; decides steps and noise, so that a resumed run sees the same ones.
        """
        # stratified over the batch: the same expectation, less noise
        places = (torch.arange(len(scaled)) + torch.rand(len(scaled), generator=generator)) / len(scaled)
        steps = 1 + (places * self.schedule.steps).long().clamp(max=self.schedule.steps - 1)
        noise = torch.randn(scaled.shape, generator=generator).to(scaled)
        root, spread = self._levels(steps.to(scaled.device))
        noisy = root * scaled + spread * noise
        wanted = noise if self.prediction == "noise" else root * noise - spread * scaled
        predicted = self.network(noisy, steps.to(scaled) / self.schedule.steps)
        return (predicted.float() - wanted).square().mean()

    def denoise(self, noisy: Tensor, step: int) -> Tensor:
        """Predicted clean scaled vectors at a step, inside the range of the data, shape (b, d)."""
        time = torch.full((len(noisy),), step / self.schedule.steps, device=noisy.device)
        predicted = self.network(noisy, time).float()
        root, spread = (float(x) for x in self._levels(torch.tensor([step], device=noisy.device)))
        clean = (noisy - spread * predicted) / max(root, 1e-6) if self.prediction == "noise" else root * noisy - spread * predicted
        return clean.clamp(self.low, self.high)

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], sampler: Sampler | None = None, on_step: Callable[[], None] | None = None) -> Tensor:
        """Vectors out of noise.

        Parameters
        ----------
        seeds : sequence of int
            One per vector. All noise of a vector comes from its own generator, so that it is the same in every batch (to rounding).
        sampler : Sampler, optional
        on_step : callable, optional
            Called after every evaluation of the network.

        Returns
        -------
        Tensor, shape (b, size)
            In the units of the training vectors.
        """
        sampler = sampler or Sampler()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def noise() -> Tensor:
            drawn = [torch.randn(self.size, generator=generator) for generator in generators]
            return torch.stack(drawn).to(self.mean.device) if drawn else self.mean.new_zeros(0, self.size)

        times = sampler.times(self.schedule.steps)
        x = noise()
        before: tuple[int, Tensor] | None = None
        for now, after in pairwise(times):
            clean = self.denoise(x, now)
            towards = clean
            if sampler.order == 2 and before is not None and after > 0:
                towards = self._extrapolated(clean, now, after, *before)
            x = self._step(x, towards, now, after, sampler.churn, noise)
            before = now, clean
            if on_step is not None:
                on_step()
        return self.scaling.inverse(x)

    def _step(self, x: Tensor, clean: Tensor, now: int, after: int, churn: float, noise: Callable[[], Tensor]) -> Tensor:
        """DDIM's step (eq. 12 and 16 of Song et al.); for neighbouring steps and churn 1 it is DDPM's posterior."""
        if after == 0:
            return clean
        here, there = float(self.alpha_bar[now]), float(self.alpha_bar[after])
        if now == after:
            return x
        epsilon = (x - math.sqrt(here) * clean) / math.sqrt(1 - here)
        fresh = churn * math.sqrt((1 - there) / (1 - here) * (1 - here / there))
        kept = math.sqrt(max(1 - there - fresh**2, 0.0))
        x = math.sqrt(there) * clean + kept * epsilon
        return x + fresh * noise() if fresh else x

    def _extrapolated(self, clean: Tensor, now: int, after: int, before: int, earlier: Tensor) -> Tensor:
        """The clean vector halfway to the next step, on the line through the last two in log √SNR, within the range of the data."""
        there, here, ago = (0.5 * math.log(float(self.alpha_bar[t]) / (1 - float(self.alpha_bar[t]))) for t in (after, now, before))
        share = 0.5 * (there - here) / (here - ago)
        return (clean + share * (clean - earlier)).clamp(self.low, self.high)

    def _levels(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 − ᾱ) at steps, shape (b, 1) each."""
        level = self.alpha_bar[steps][:, None]
        return level.sqrt(), (1 - level).sqrt()


__all__ = ["CosineSchedule", "Sampler", "Scaling", "VectorDiffusion"]
