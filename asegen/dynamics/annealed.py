"""Generation as ASE dynamics: annealed Langevin and the reverse ODE on one ``Atoms``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from ase.optimize.optimize import BaseDynamics
from scipy.linalg import expm, logm

from ..calculators.score import ScoreCalculator, strain_score, volume_of
from ..crystals import CrystalBatch, check_atoms
from ..errors import AsegenError, CrystalError
from ..kernels import Schedule
from ..lattice import log_gradient
from ..prior import lattice_score_of
from ..symmetry.constraint import SpaceGroup
from .rules import State, StepNoise, StepScores, Walk, correct, draw_noise, noise_of_step, predict
from .symmetric import Projection, blur, hold

# FixSymmetry refuses deformations above 0.25 at once.
_LARGEST_STRAIN = 0.1


class AnnealedLangevin(BaseDynamics):
    """Generate a crystal: walk the atoms, their cell and their undecided elements down the noise levels.

    Every step sets the calculator's ``sigma``, asks it for forces (position score), stress (lattice score) and element
    logits, and moves to the next level (predictor), with Langevin steps there if asked for (corrector). Any
    calculator that keeps the contract of :class:`asegen.ScoreCalculator` can be used.

    ASE constraints are honoured. ``FixAtoms`` holds its atoms and (unless ``cell=True``) the cell, so the free
    atoms are painted in around them. :class:`asegen.SpaceGroup` keeps a space group: noise and scores are projected as
    in the batched driver (:mod:`asegen.dynamics.symmetric`).

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator. Usually from :func:`asegen.random_crystal`.
    seed : int, optional
        Decides all noise; default ``atoms.info["seed"]``, else drawn.
    steps : int, optional
        Predictor steps; default: what was measured best for the checkpoint.
    trajectory, logfile, append_trajectory, loginterval
        As in ASE.
    cell : bool, optional
        Whether the cell moves; default: yes, unless atoms are fixed.
    walk : Walk, optional
        The way down in detail; `steps` overrides its number of steps.

    Attributes
    ----------
    nsteps : int
        Steps taken. ``atoms.info`` has ``seed``, ``step``, ``steps``, ``sigma``, ``checkpoint`` and ``checkpoint_hash`` at
        every step, and so does every frame of a trajectory.

    Notes
    -----
    With the same seed, ``random_crystal`` and this dynamics give the crystal that :func:`asegen.generate` gives.

    Examples
    --------
    >>> atoms = random_crystal("SrTiO3", seed=0)
    >>> atoms.calc = ScoreCalculator("default")
    >>> AnnealedLangevin(atoms, seed=0, trajectory="gen.traj").run()
    """

    def __init__(
        self,
        atoms: Atoms,
        seed: int | None = None,
        steps: int | None = None,
        trajectory: str | Path | Any | None = None,
        logfile: IO | str | Path | None = None,
        append_trajectory: bool = False,
        loginterval: int = 1,
        cell: bool | None = None,
        walk: Walk | None = None,
    ) -> None:
        check_atoms(atoms)
        if atoms.calc is None:
            raise AsegenError("the atoms have no calculator; set atoms.calc = ScoreCalculator(...) first")
        if not hasattr(atoms.calc, "set") or "sigma" not in getattr(atoms.calc, "parameters", {}):
            raise AsegenError(f"{type(atoms.calc).__name__} has no noise level sigma, so nothing can be annealed; use a ScoreCalculator")
        super().__init__(atoms, logfile, trajectory, append_trajectory, loginterval=loginterval)
        if seed is None:
            seed = atoms.info.get("seed")
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self.walk = make_walk(atoms.calc, walk, steps)
        self.schedule: Schedule = getattr(atoms.calc, "schedule", Schedule())
        self.move_cell = not any(isinstance(c, FixAtoms) for c in atoms.constraints) if cell is None else bool(cell)
        if (atoms.numbers == 0).any():  # else it would change with every element that is revealed
            atoms.info.setdefault("reference_volume", float(volume_of(atoms, CrystalBatch.from_atoms(atoms))))
        self._noise = draw_noise(self.seed, len(atoms), self.walk.rows)
        self._projection = _projection_of(atoms)
        self._begun = self.walk.begin >= 1
        self._times = self.walk.times()
        self._mark()

    @classmethod
    def restart(cls, trajectory: str | Path, calc: ScoreCalculator, **kwargs: Any) -> AnnealedLangevin:
        """Go on from the last frame of a trajectory, to the same end as if it had never stopped.

        Parameters
        ----------
        trajectory : path
            Written by this dynamics; new frames are appended.
        calc : ScoreCalculator
            With the same checkpoint.

        Raises
        ------
        AsegenError
            The trajectory is of another dynamics, or of another checkpoint.
        """
        import ase.io

        atoms: Any = ase.io.read(str(trajectory), index=-1)
        info = dict(atoms.info)
        if "step" not in info or "walk" not in info:
            raise AsegenError(f"{trajectory} was not written by {cls.__name__}: its frames have no step number")
        wanted, found = info.get("checkpoint_hash"), calc.parameters.get("checkpoint_hash")
        if wanted != found:
            raise AsegenError(f"{trajectory} was made with checkpoint {wanted}, not with {found}; load that one to go on")
        atoms.calc = calc
        walk = Walk.of_values(info["walk"])
        cell = bool(info.get("cell_moves", True))
        dynamics = cls(atoms, seed=info["seed"], walk=walk, trajectory=str(trajectory), append_trajectory=True, cell=cell, **kwargs)
        dynamics.nsteps = int(info["step"])
        dynamics._begun = True
        dynamics._mark()
        return dynamics

    @property
    def sigma(self) -> float:
        """Noise level of the crystal as it stands, Å; 0 at the end."""
        time = self._times[self.nsteps]
        return float(self.schedule.sigma(torch.tensor(time, dtype=torch.float64))) if time > 0 else 0.0

    def todict(self) -> dict[str, Any]:
        return {
            "type": "generation",
            "dynamics": type(self).__name__,
            "seed": self.seed,
            "walk": self.walk.values(),
        }

    def irun(self, steps: int | None = None) -> Iterator[bool]:
        """Run as a generator; yields after every step whether the walk has ended.

        Parameters
        ----------
        steps : int, optional
            Number of steps; default: all that are left.
        """
        last = self.walk.steps if steps is None else min(self.walk.steps, self.nsteps + steps)
        self.max_steps = last
        if not self._begun:
            self._begun = True
            self._apply(lambda state, noise: blur(state, noise, self.schedule, self._times[0]), -1)
            self._mark()
        if self.nsteps == 0:
            self._tell()
        yield self.nsteps >= self.walk.steps
        while self.nsteps < last:
            self.step()
            self.nsteps += 1
            self._mark()
            self._tell()
            yield self.nsteps >= self.walk.steps

    def run(self, steps: int | None = None) -> bool:
        """Run to the end, or for a number of steps; returns whether the walk has ended."""
        for _ in self.irun(steps):
            pass
        return self.nsteps >= self.walk.steps

    def step(self) -> None:
        """One predictor step, with its corrector steps at the lower level."""
        now, then = self._times[self.nsteps], self._times[self.nsteps + 1]
        row = self.nsteps * (1 + self.walk.correctors)
        scores = self._scores(now)
        self._apply(lambda state, noise: predict(state, scores, noise, self.schedule, now, then, self.walk), row)
        for number in range(1, self.walk.correctors + 1 if then > 0 else 1):
            scores = self._scores(then)
            self._apply(lambda state, noise: correct(state, scores, noise, self.schedule, then, self.walk.snr), row + number)  # noqa: B023

    def log(self) -> None:
        """One line: step, noise level, largest force times it (``-`` at the end, where there is none), volume per atom."""
        if self.nsteps == 0:
            self.logfile.write(f"{'step':>6s} {'sigma/Å':>10s} {'fmax·σ':>10s} {'Å³/atom':>10s}  formula\n")
        forces = self.atoms.calc.results.get("forces") if self.sigma > 0 else None
        largest = "-" if forces is None else f"{np.linalg.norm(forces, axis=1).max() * self.sigma:.4f}"
        volume = self.atoms.get_volume() / len(self.atoms)
        formula = self.atoms.get_chemical_formula()
        self.logfile.write(f"{self.nsteps:6d} {self.sigma:10.4f} {largest:>10s} {volume:10.3f}  {formula}\n")

    def _tell(self) -> None:
        """Call observers and write the log, with the scores of the crystal as it stands: the next step uses the same ones."""
        if self.sigma > 0:
            self._set_level(self._times[self.nsteps])
            self.atoms.get_forces(apply_constraint=False)
        self.call_observers()
        self.log()

    def _set_level(self, time: float) -> None:
        self.atoms.calc.set(sigma=float(self.schedule.sigma(torch.tensor(time, dtype=torch.float64))))

    def _scores(self, time: float) -> StepScores:
        atoms, calc = self.atoms, self.atoms.calc
        self._set_level(time)
        kT = float(calc.parameters.get("kT", 1.0))
        cell = torch.from_numpy(atoms.cell.array.copy())
        position = torch.from_numpy(atoms.get_forces(apply_constraint=False) / kT) @ cell.T
        lattice = torch.zeros(1, 6, dtype=torch.float64)
        if self.move_cell:
            strain = torch.from_numpy(strain_score(atoms, kT))
            lattice = lattice_score_of(log_gradient(strain, cell)[None])
        logits = calc.results.get("element_logits")
        return StepScores(position, lattice, None if logits is None else torch.from_numpy(logits))

    def _apply(self, rule: Any, row: int) -> None:
        atoms = self.atoms
        batch = CrystalBatch.from_atoms(atoms)
        state = State.of(batch, volume_of(atoms, batch))
        noise: StepNoise = noise_of_step([self._noise[row]])
        moved: State = hold(rule(state, noise), state, self._projection)
        atoms.numbers[:] = moved.species.numpy()
        target = moved.batch()
        if not (torch.isfinite(target.frac).all() and torch.isfinite(target.cell).all()):
            raise CrystalError(f"the calculator gave a score that is not finite at sigma = {atoms.calc.parameters['sigma']:.4g} Å")
        if self.move_cell:
            self._set_cell(target.cell[0].numpy())
        if atoms.constraints and self._projection is None:
            atoms.set_positions(target.frac.numpy() @ atoms.cell.array)
        else:
            atoms.set_scaled_positions(target.frac.numpy())

    def _set_cell(self, cell: np.ndarray) -> None:
        atoms = self.atoms
        if not atoms.constraints or self._projection is not None:
            atoms.set_cell(cell, scale_atoms=True, apply_constraint=False)
            return
        # constraints see the deformation in pieces that they accept, each from where the last one left the cell
        path = np.real(logm(np.linalg.solve(atoms.cell.array, cell)))
        pieces = max(1, int(np.ceil(np.abs(path).max() / _LARGEST_STRAIN)))
        for _ in range(pieces):
            atoms.set_cell(atoms.cell.array @ expm(path / pieces), scale_atoms=True, apply_constraint=True)

    def _mark(self) -> None:
        parameters = self.atoms.calc.parameters
        self.atoms.info.update(
            seed=self.seed,
            step=self.nsteps,
            steps=self.walk.steps,
            sigma=self.sigma,
            walk=self.walk.values(),
            cell_moves=self.move_cell,
        )
        for key in ("checkpoint", "checkpoint_hash"):
            if key in parameters:
                self.atoms.info[key] = parameters[key]


class ReverseODE(AnnealedLangevin):
    """The deterministic way down: the probability-flow ODE of the same model, no noise after the start.

    Parameters as :class:`AnnealedLangevin`; the seed decides hidden elements only.
    """

    def __init__(self, atoms: Atoms, seed: int | None = None, steps: int | None = None, *, walk: Walk | None = None, **kwargs: Any) -> None:
        base = make_walk(atoms.calc, walk, steps)
        super().__init__(atoms, seed, walk=replace(base, correctors=0, churn=0.0), **kwargs)


def _projection_of(atoms: Atoms) -> Projection | None:
    """How steps keep a space group that is the only constraint; others go through ASE's own interface."""
    if len(atoms.constraints) == 1 and isinstance(atoms.constraints[0], SpaceGroup):
        return Projection.of(atoms.constraints[0].symmetry)
    return None


def make_walk(calc: Any, walk: Walk | None = None, steps: int | None = None) -> Walk:
    """The walk asked for, filled up with the checkpoint's defaults.

    Raises
    ------
    ValueError
        Fewer than one step.
    """
    if walk is None:
        checkpoint = getattr(calc, "checkpoint", None)
        walk = Walk.of(getattr(checkpoint, "walk_defaults", {}))
    if steps is not None:
        if isinstance(steps, bool) or int(steps) != steps or steps < 1:
            raise ValueError(f"steps = {steps!r} must be a whole number of at least 1")
        walk = replace(walk, steps=int(steps))
    return walk
