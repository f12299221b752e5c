"""Step rules: how positions, lattice and elements move at a noise level. Written once, on tensors of many crystals.

A walk goes down a list of times ``1 = t_0 > t_1 > … > t_K``. At every level the *predictor* moves each variable to the
next lower level with the score there; *corrector* steps are overdamped Langevin moves at one level. Both drivers, the
ASE dynamics for one ``Atoms`` and the batched one for thousands, call these functions and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from ..crystals import MASK, CrystalBatch
from ..kernels import Schedule, reveal_probability
from ..lattice import cell_from_log, log_metric
from ..prior import lattice_coordinates, log_cell_of, reference_volume

#: At time 1 exactly nothing of the lattice is left, and its clean value cannot be divided out of the noise.
TIME_MAX = 0.999


@dataclass(frozen=True)
class State:
    """Crystals on their way down the noise levels, float64."""

    species: Tensor
    """Atomic numbers, 0 where not decided, shape (n,)."""
    frac: Tensor
    """Fractional coordinates, shape (n, 3), not wrapped."""
    y: Tensor
    """Whitened lattice coordinates, shape (b, 6)."""
    volume: Tensor
    """Reference volumes, shape (b,), Å³."""
    num_atoms: Tensor
    """Atoms per crystal, shape (b,)."""
    turn: Tensor | None = None
    """Orthogonal matrices Q that orient the crystals, ``cell = exp(k) Q``, shape (b, 3, 3); None: no turn."""

    @classmethod
    def of(cls, batch: CrystalBatch, volume: Tensor | None = None) -> State:
        """State of crystals as they stand."""
        if volume is None:
            volume = reference_volume(batch.species, batch.index, len(batch))
        turn = cell_from_log(-log_metric(batch.cell)) @ batch.cell
        return cls(batch.species, batch.frac, lattice_coordinates(batch.cell, volume), volume, batch.num_atoms, turn)

    @property
    def index(self) -> Tensor:
        """Crystal of each atom, shape (n,)."""
        if len(self.num_atoms) == 1:
            return torch.zeros_like(self.species)
        crystals = torch.arange(len(self.num_atoms), device=self.num_atoms.device)
        return torch.repeat_interleave(crystals, self.num_atoms, output_size=len(self.species))

    def batch(self) -> CrystalBatch:
        """The crystals in their orientation."""
        cell = cell_from_log(log_cell_of(self.y, self.volume))
        if self.turn is not None:
            cell = cell @ self.turn
        return CrystalBatch(self.species, self.frac, cell, self.num_atoms)


@dataclass(frozen=True)
class StepScores:
    """Scores a step needs: ∂log p/∂f (n, 3), ∂log p/∂y (b, 6), element logits (n, 119) or None."""

    position: Tensor
    lattice: Tensor
    elements: Tensor | None = None


@dataclass(frozen=True)
class StepNoise:
    """Random numbers of one step: normals (n, 3) and (b, 6), uniforms (n, 2)."""

    position: Tensor
    lattice: Tensor
    uniform: Tensor


@dataclass(frozen=True)
class Walk:
    """The way down the noise levels.

    Parameters
    ----------
    steps : int
        Predictor steps, one network evaluation each.
    correctors : int
        Langevin steps at every level after a predictor step, one evaluation each.
    churn : float
        Share of the noise that a predictor step renews: 1 is the reverse SDE (ancestral sampling), 0 the
        deterministic probability-flow ODE.
    snr : float
        Size of a corrector step: root mean square of its drift over the blur.
    temperature : float
        Of the elements' distribution, ``p^(1/temperature)``: below 1 likely elements, and those already there, win more often.
    begin : float
        Level at which the walk begins, as a time: 1 is pure noise; lower, and the start is taken as a clean crystal that is
        blurred to that level first.
    """

    steps: int = 50
    correctors: int = 0
    churn: float = 1.0
    snr: float = 0.1
    temperature: float = 1.0
    begin: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.correctors < 0 or not 0 <= self.churn <= 1 or self.snr <= 0 or self.temperature <= 0:
            raise ValueError(f"{self} is no way down: steps >= 1, correctors >= 0, churn in [0, 1], snr > 0 and temperature > 0 are needed")
        if not 0 < self.begin <= 1:
            raise ValueError(f"{self} is no way down: it begins at time {self.begin}, which must lie in (0, 1]")

    @classmethod
    def of(cls, entries: dict[str, float]) -> Walk:
        """Walk from plain entries, as a checkpoint's header holds them."""
        known = {"steps": int, "correctors": int, "churn": float, "snr": float, "temperature": float, "begin": float}
        return cls(**{key: kind(entries[key]) for key, kind in known.items() if key in entries})  # type: ignore[arg-type]

    def times(self) -> list[float]:
        """Levels as times, from `begin` (at most almost 1) to 0, ``steps + 1`` values."""
        return [min(self.begin * (1.0 - k / self.steps), TIME_MAX) for k in range(self.steps + 1)]

    def values(self) -> list[float]:
        """All entries in order, as trajectories keep them; ``Walk.of_values`` undoes it."""
        return [float(x) for x in astuple(self)]

    @classmethod
    def of_values(cls, values: Sequence[float]) -> Walk:
        """Walk from :meth:`values`."""
        return cls.of(dict(zip((f.name for f in fields(cls)), values, strict=False)))

    @property
    def calls(self) -> int:
        """Network evaluations of the whole walk."""
        return self.steps + self.correctors * (self.steps - 1)

    @property
    def rows(self) -> int:
        """Rows of random numbers that a walk uses: one per step, the last one to blur the start."""
        return self.steps * (1 + self.correctors) + 1


def draw_noise(seed: int, num_atoms: int, count: int) -> np.ndarray:
    """Random numbers of `count` steps for one crystal, shape (count, 5 n + 6): 3n + 6 normals, then 2n uniforms.

    They depend on the seed and the number of atoms alone: never on the batch the crystal sits in, and the first rows do
    not depend on how many follow.
    """
    random = np.random.Generator(np.random.Philox(key=seed % 2**63))
    rows = np.empty((count, 5 * num_atoms + 6))
    for row in rows:
        row[: 3 * num_atoms + 6] = random.standard_normal(3 * num_atoms + 6)
        row[3 * num_atoms + 6 :] = random.random(2 * num_atoms)
    return rows


def noise_of_step(rows: Sequence[np.ndarray], device: torch.device | str = "cpu") -> StepNoise:
    """One row of :func:`draw_noise` per crystal, put together for a batch."""
    sizes = [(len(row) - 6) // 5 for row in rows]
    position = np.concatenate([row[: 3 * n].reshape(n, 3) for row, n in zip(rows, sizes, strict=True)])
    lattice = np.stack([row[3 * n : 3 * n + 6] for row, n in zip(rows, sizes, strict=True)])
    uniform = np.concatenate([row[3 * n + 6 :].reshape(n, 2) for row, n in zip(rows, sizes, strict=True)])
    return StepNoise(*(torch.from_numpy(x).to(device) for x in (position, lattice, uniform)))


def predict(state: State, scores: StepScores, noise: StepNoise, schedule: Schedule, now: float, then: float, walk: Walk) -> State:
    """Predictor: from level `now` to the lower level `then` with the scores at `now`.

    Positions and lattice take the step of Song, Meng and Ermon (DDIM, eq. 12): the clean value that the score implies,
    plus the part of the old noise that is kept, plus fresh noise. Hidden elements are revealed with the chance that
    Bayes' rule gives (:func:`asegen.kernels.reveal_probability`), drawn from the network's distribution.
    """
    index = state.index
    t = torch.tensor([now, then], dtype=torch.float64, device=state.y.device)
    sigma = schedule.sigma(t)
    if then <= 0:
        sigma = torch.stack([sigma[0], sigma[1] * 0])
    width = schedule.frac_width(sigma[:, None], state.num_atoms[None, :])[:, index][:, :, None]
    fresh = walk.churn * width[1] * (1 - (width[1] / width[0]) ** 2).clamp(min=0).sqrt()
    kept = (width[1] ** 2 - fresh**2).clamp(min=0).sqrt()
    frac = state.frac + (width[0] ** 2 - kept * width[0]) * scores.position + fresh * noise.position

    alpha, spread = schedule.lattice_alpha(t), schedule.lattice_width(t)
    eps = -spread[0] * scores.lattice
    # six spreads of the data: far outside what any crystal has
    clean = ((state.y - spread[0] * eps) / alpha[0]).clamp(-6.0, 6.0)
    ratio = ((1 - (alpha[0] * spread[1] / (alpha[1] * spread[0])) ** 2).clamp(min=0)).sqrt()
    fresh_y = walk.churn * spread[1] * ratio
    kept_y = (spread[1] ** 2 - fresh_y**2).clamp(min=0).sqrt()
    y = alpha[1] * clean + kept_y * eps + fresh_y * noise.lattice

    return replace(
        state, frac=frac, y=y, species=reveal(state.species, scores.elements, noise.uniform, schedule, now, then, walk.temperature)
    )


def reveal(
    species: Tensor,
    logits: Tensor | None,
    uniform: Tensor,
    schedule: Schedule,
    now: float,
    then: float,
    temperature: float = 1.0,
) -> Tensor:
    """Hidden elements decided on the way from level `now` to `then`, shape (n,)."""
    hidden = species == MASK
    if logits is None or not bool(hidden.any()):
        return species
    t = torch.tensor([now, then], dtype=torch.float64, device=uniform.device)
    hiding = schedule.hiding(t)
    chance = reveal_probability(hiding[0], hiding[1]) if then > 0 else torch.ones_like(hiding[0])
    probability = torch.softmax(logits.double() / temperature, -1)
    probability[:, MASK] = 0.0
    cumulative = probability.cumsum(-1)
    drawn = torch.searchsorted(cumulative, (uniform[:, 1:] * cumulative[:, -1:]).contiguous())[:, 0].clamp(1, 118)
    return torch.where(hidden & (uniform[:, 0] < chance), drawn, species)


def correct(state: State, scores: StepScores, noise: StepNoise, schedule: Schedule, now: float, snr: float) -> State:
    """Corrector: one overdamped Langevin step at level `now`, ``x += a s + √(2a) ξ`` with ``a = snr² × blur²``.

    For a normal blur the drift is `snr`² blurs and the noise √2 `snr` blurs, whatever the level.
    """
    index = state.index
    t = torch.tensor([now], dtype=torch.float64, device=state.y.device)
    width = schedule.frac_width(schedule.sigma(t), state.num_atoms)[index][:, None].clamp(max=0.25)
    step = (snr * width) ** 2
    frac = state.frac + step * scores.position + (2 * step).sqrt() * noise.position
    step_y = (snr * schedule.lattice_width(t)) ** 2
    y = state.y + step_y * scores.lattice + (2 * step_y).sqrt() * noise.lattice
    return replace(state, frac=frac, y=y)
