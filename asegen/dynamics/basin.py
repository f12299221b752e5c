"""Basin hopping of crystals as an ASE dynamics: random moves, each followed by a local optimization and a Metropolis step."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import ase.optimize
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.io.jsonio import decode, encode
from ase.optimize import LBFGS
from ase.optimize.optimize import BaseDynamics, Optimizer

from ..errors import AsegenError, CrystalError, NoEnergyError
from .moves import KINDS, Mover, Moves, relabel


@dataclass
class Count:
    """What became of the hops of one kind."""

    tried: int = 0
    accepted: int = 0
    failed: int = 0
    """Hops that raised, gave an energy that is not finite, or inverted the cell."""

    @property
    def rejected(self) -> int:
        """Hops that were made and taken back."""
        return self.tried - self.accepted - self.failed


class CrystalBasinHopping(BaseDynamics):
    """Look for the lowest basin of an energy: move at random, go to the nearest minimum, keep it with Metropolis' probability.

    After Wales and Doye, J. Phys. Chem. A 101, 5111 (1997). Unlike ``ase.optimize.basin.BasinHopping`` it knows the moves of crystals
    (relocated and swapped atoms, strained cells), is seeded, survives hops that fail, and can be continued.

    Any calculator with an energy can be used. Constraints are honoured by moves and optimizations: ``FixAtoms`` holds its atoms (a
    strain of the cell carries them along), :class:`asegen.SpaceGroup` keeps its group.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator. After every hop it is the crystal that was last accepted.
    seed : int, optional
        Decides all moves; default ``atoms.info["seed"]``, else drawn.
    temperature : float
        Of the Metropolis step, in the unit of the energy; 0 only goes down.
    moves : Moves, optional
        Which moves are tried, how often, how large.
    optimizer : type, optional
        Class of the local optimization, as those of ASE; ``None``: no optimization, so that the moves alone are sampled.
    fmax : float
        The local optimization ends when no force is larger, unit of the energy per Å ...
    relax_steps : int
        ... or after so many steps: far from a minimum that is enough, and its energy counts all the same.
    cell : bool
        Let the cell move too: strained by moves, optimized through ``FrechetCellFilter``.
    converged : float, optional
        The run ends when the best energy is below.
    optimizer_options : mapping, optional
        More for the optimizer, such as ``{"maxstep": 0.1}``.
    trajectory, logfile, append_trajectory, loginterval
        As in ASE. Frames are the crystals accepted so far, one a hop, with their energy and ``info``.
    restart_file : path, optional
        Written after every hop (JSON); :meth:`restart` goes on from it.

    Attributes
    ----------
    nsteps : int
        Hops made. ``atoms.info`` has ``seed``, ``hop``, ``move`` and ``outcome`` ("accepted", "rejected", "failed") of the last one.
    energy, best_energy, trial_energy : float
        Of the crystal as it stands, of the best one, and of the minimum that the last hop came to (NaN if it failed).
    best : ase.Atoms
        The best crystal, with its energy.
    counts : dict
        Kind of move → :class:`Count`.
    last_error : str
        What went wrong in the last hop that failed.

    Raises
    ------
    NoEnergyError
        The calculator has no energy.
    AsegenError
        No calculator, no move that is possible, or (when it runs) a start whose energy is not finite.

    Notes
    -----
    The randomness of a hop is a function of the seed and its number. With a calculator whose results depend on the crystal alone, a
    run that is continued is the run that was never interrupted.

    Examples
    --------
    >>> atoms.calc = EADCalculator(crystal)
    >>> hopping = CrystalBasinHopping(atoms, seed=0, converged=1e-4, trajectory="basin.traj")
    >>> hopping.run(50)
    >>> hopping.best
    """

    def __init__(
        self,
        atoms: Atoms,
        seed: int | None = None,
        temperature: float = 0.1,
        moves: Moves | None = None,
        optimizer: type[Optimizer] | None = LBFGS,
        fmax: float = 0.05,
        relax_steps: int = 100,
        cell: bool = False,
        converged: float | None = None,
        optimizer_options: Mapping[str, Any] | None = None,
        trajectory: str | Path | Any | None = None,
        logfile: IO | str | Path | None = None,
        append_trajectory: bool = False,
        loginterval: int = 1,
        restart_file: str | Path | None = None,
    ) -> None:
        _check_calculator(atoms.calc)
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature = {temperature!r} must be a number of at least 0, in the unit of the energy")
        if not fmax > 0 or relax_steps < 0:
            raise ValueError(f"fmax = {fmax!r} must be positive and relax_steps = {relax_steps!r} at least 0")
        super().__init__(atoms, logfile, trajectory, append_trajectory, loginterval=loginterval)
        if seed is None:
            seed = atoms.info.get("seed")
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self.temperature, self.fmax, self.relax_steps = float(temperature), float(fmax), int(relax_steps)
        self.moves = moves or Moves()
        self.optimizer, self.optimizer_options = optimizer, dict(optimizer_options or {})
        self.cell = bool(cell)
        self.threshold = converged
        self.restart_file = None if restart_file is None else Path(restart_file)
        self.counts = {kind: Count() for kind in KINDS}
        self.move, self.outcome, self.last_error = "start", "accepted", ""
        self.energy = self.best_energy = self.trial_energy = math.nan
        self.best = atoms.copy()
        self._mover = Mover(atoms, self.moves, self.cell)
        self._begun = False

    @classmethod
    def restart(cls, path: str | Path, calc: Any, optimizer: type[Optimizer] | None = None, **kwargs: Any) -> CrystalBasinHopping:
        """Go on from a restart file, which keeps being written, to the same end as if the run had never stopped.

        Parameters
        ----------
        path : path
        calc : ase calculator
            The same as before.
        optimizer : type, optional
            The same as before; needed only if it is none of ``ase.optimize``.
        **kwargs
            ``trajectory`` (new frames are appended), ``logfile``, ``loginterval``, ``converged``.

        Raises
        ------
        AsegenError
            The file is of another kind, or damaged; or the optimizer is another one.
        """
        try:
            state = decode(Path(path).read_text())
            settings, counts = dict(state["settings"]), {kind: Count(**state["counts"][kind]) for kind in KINDS}
            atoms, best, moves = state["atoms"], state["best"], Moves(**settings.pop("moves"))
            name = settings.pop("optimizer")
        except (ValueError, LookupError, TypeError) as error:
            raise AsegenError(f"{path} is no restart file of {cls.__name__}, or it is damaged ({error})") from error
        if optimizer is None and name is not None:
            optimizer = getattr(ase.optimize, name, None)
        if name != (optimizer and optimizer.__name__):
            raise AsegenError(f"{path} was written with the optimizer {name}; give that one to go on (optimizer=...)")
        atoms.calc = calc
        options = {**settings, "append_trajectory": True, "restart_file": path, **kwargs}
        dynamics = cls(atoms, moves=moves, optimizer=optimizer, **options)
        dynamics.nsteps, dynamics.counts, dynamics._begun = int(state["nsteps"]), counts, True
        dynamics.energy, dynamics.best_energy, dynamics.trial_energy = (float(e) for e in state["energies"])
        dynamics.move, dynamics.outcome, dynamics.last_error = state["last"]
        dynamics.best = _with_energy(best, dynamics.best_energy)
        return dynamics

    @property
    def converged(self) -> bool:
        """Whether the best energy is below the one asked for."""
        return self.threshold is not None and self.best_energy < self.threshold

    @property
    def acceptance(self) -> float:
        """Share of the hops that were accepted; NaN before the first one."""
        return sum(c.accepted for c in self.counts.values()) / self.nsteps if self.nsteps else math.nan

    def todict(self) -> dict[str, Any]:
        return {"type": "optimization", "dynamics": type(self).__name__, **self._settings()}

    def irun(self, steps: int = 100) -> Iterator[bool]:
        """Run as a generator; yields after the start and after every hop whether the run has converged.

        Parameters
        ----------
        steps : int
            Largest number of hops from here.
        """
        self.max_steps = self.nsteps + steps
        if not self._begun:
            self._begin()
            self._report()
        yield self.converged
        while self.nsteps < self.max_steps and not self.converged:
            self.step()
            self._report()
            yield self.converged

    def run(self, steps: int = 100) -> bool:
        """Hop so many times, or until converged; returns whether it is."""
        for _ in self.irun(steps):
            pass
        return self.converged

    def step(self) -> None:
        """One hop: move, optimize, accept or go back."""
        self.nsteps += 1
        random = np.random.default_rng([self.seed, self.nsteps])
        chance, self.move = random.random(), self._mover.draw(random)
        count = self.counts[self.move]
        count.tried += 1
        before = _Snapshot(self.atoms)
        energy = self._minimum(before, lambda: self._mover.apply(self.move, self.atoms, random))
        if energy is None:
            count.failed += 1
            self.trial_energy, self.outcome = math.nan, "failed"
            return
        self.trial_energy = energy
        if energy <= self.energy or (self.temperature > 0 and chance < math.exp((self.energy - energy) / self.temperature)):
            count.accepted += 1
            self.energy, self.outcome = energy, "accepted"
            if energy < self.best_energy:
                self._keep_best()
        else:
            before.restore(self.atoms)
            self.outcome = "rejected"

    def log(self) -> None:
        """One line: hop, move, what became of it, energies of its minimum, of the crystal and of the best one."""
        if self.nsteps == 0:
            self.logfile.write(f"{'hop':>6s} {'move':9s} {'outcome':9s} {'minimum':>14s} {'energy':>14s} {'best':>14s}\n")
        energies = f"{self.trial_energy:14.6f} {self.energy:14.6f} {self.best_energy:14.6f}"
        reason = f"  {self.last_error}" if self.outcome == "failed" else ""
        self.logfile.write(f"{self.nsteps:6d} {self.move:9s} {self.outcome:9s} {energies}{reason}\n")

    def _begin(self) -> None:
        """The first minimum; where it is not reached the crystal as given is the start."""
        self._begun = True
        try:
            self.energy = float(self.atoms.get_potential_energy())
        except PropertyNotImplementedError as error:
            raise NoEnergyError(_no_energy(self.atoms.calc)) from error
        if not math.isfinite(self.energy):
            raise AsegenError(f"the energy of the start is {self.energy}; basin hopping needs a crystal with a finite one")
        energy = self._minimum(_Snapshot(self.atoms), lambda: None)
        self.outcome = "failed" if energy is None else "accepted"
        self.trial_energy = math.nan if energy is None else energy
        self.energy = self.energy if energy is None else energy
        self._keep_best()

    def _minimum(self, before: _Snapshot, change: Callable[[], None]) -> float | None:
        """Change the crystal and optimize it; its energy, or nothing if that failed and the crystal is back where it was."""
        atoms = self.atoms
        try:
            change()
            if self.optimizer is not None and self.relax_steps > 0:
                target: Any = FrechetCellFilter(atoms) if self.cell else atoms
                with self.optimizer(target, logfile=None, **self.optimizer_options) as optimizer:
                    optimizer.run(fmax=self.fmax, steps=self.relax_steps)
            energy = float(atoms.get_potential_energy())
            if not (math.isfinite(energy) and np.isfinite(atoms.positions).all()):
                raise CrystalError(f"the optimization ended with an energy of {energy}")
            if not np.linalg.det(atoms.cell.array) * np.linalg.det(before.cell) > 0 and atoms.cell.rank + before.rank > 0:
                raise CrystalError("the optimization turned the cell inside out")
        except Exception as error:  # a calculator may refuse an odd crystal with any error; the run must go on
            before.restore(atoms)
            self.last_error = f"{type(error).__name__}: {error}"
            return None
        except BaseException:
            before.restore(atoms)
            raise
        return energy

    def _keep_best(self) -> None:
        self.best_energy = self.energy
        self._mark()
        self.best = _with_energy(self.atoms.copy(), self.energy)

    def _report(self) -> None:
        """Tell everyone, then write the restart file: what is in it has been seen."""
        self._mark()
        self.call_observers()
        self.log()
        if self.restart_file is not None:
            state = {
                "settings": self._settings(),
                "nsteps": self.nsteps,
                "counts": {kind: asdict(count) for kind, count in self.counts.items()},
                "energies": [self.energy, self.best_energy, self.trial_energy],
                "last": [self.move, self.outcome, self.last_error],
                "atoms": self.atoms.copy(),
                "best": self.best.copy(),
            }
            draft = self.restart_file.with_name(self.restart_file.name + ".part")
            draft.write_text(encode(state))
            os.replace(draft, self.restart_file)  # never a half-written file

    def _mark(self) -> None:
        self.atoms.info.update(seed=self.seed, hop=self.nsteps, move=self.move, outcome=self.outcome)

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "temperature": self.temperature,
            "moves": self.moves.values(),
            "optimizer": None if self.optimizer is None else self.optimizer.__name__,
            "fmax": self.fmax,
            "relax_steps": self.relax_steps,
            "cell": self.cell,
            "converged": self.threshold,
            "optimizer_options": self.optimizer_options,
        }

    def _traj_write_image(self, description: dict) -> None:
        # (ASE's would lose the energy when the crystal went back: its calculator has seen another one since)
        with self._opentraj() as traj:
            traj.set_description(self.todict() | description)
            traj.write(_with_energy(self.atoms.copy(), self.energy))


class _Snapshot:
    """Everything that a hop may change."""

    def __init__(self, atoms: Atoms) -> None:
        self.arrays = {name: values.copy() for name, values in atoms.arrays.items()}
        self.cell = atoms.cell.array.copy()
        self.rank = atoms.cell.rank

    def restore(self, atoms: Atoms) -> None:
        """Put it back, past the constraints: it obeyed them when it was taken."""
        atoms.arrays = {name: values.copy() for name, values in self.arrays.items()}
        atoms.cell[:] = self.cell
        relabel(atoms)


def _with_energy(atoms: Atoms, energy: float) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def _check_calculator(calc: Any) -> None:
    if calc is None:
        raise AsegenError("the atoms have no calculator; set atoms.calc first")
    if "energy" not in getattr(calc, "implemented_properties", ["energy"]):
        raise NoEnergyError(_no_energy(calc))


def _no_energy(calc: Any) -> str:
    return (
        f"{type(calc).__name__} has no energy, so hops cannot be compared; basin hopping needs an interatomic potential, "
        "asegen.EADCalculator, or a score model that has an energy (asegen.EnergyScoreCalculator)"
    )
