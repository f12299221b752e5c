"""Relaxation of crystals with an interatomic potential: positions and cell, symmetry kept, many at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa

from ..calculators.potentials import Evaluation, Potential, evaluate, potential
from ..errors import AsegenError, PotentialError, StabilityError
from ..metrics.workers import Failure, Workers, cores
from ..report import space_group
from .coordinates import CrystalCoordinates
from .quasi_newton import TrustBFGS
from .relaxed import Relaxed, Settings
from .sanity import Watch, why_not_relax
from .symmetrize import exact_group, put_on_group

Progress = Callable[[int, int], None]
_WATCH = 5  # steps between two looks at distances
_COSTLESS = 1e-4  # eV/atom that exact symmetry may cost


@overload
def relax(crystals: Atoms, potential: str | BaseCalculator | Potential = ..., **settings: Any) -> Relaxed: ...


@overload
def relax(crystals: Sequence[Atoms], potential: str | BaseCalculator | Potential = ..., **settings: Any) -> list[Relaxed]: ...


def relax(
    crystals: Atoms | Sequence[Atoms],
    potential: str | BaseCalculator | Potential = "7net-0",
    *,
    processes: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Relaxed | list[Relaxed]:
    """Relax crystals.

    Parameters
    ----------
    crystals : ase.Atoms or sequence of them
        Are not changed. `FixAtoms` and `SpaceGroup` constraints are obeyed.
    potential : str, ASE calculator or Potential
        See :func:`asegen.calculators.potentials.potential`.
    processes : int, optional
        Processes with one thread each. Default: one per core for several crystals; one crystal, and crystals
        with a calculator that cannot be sent to another process (`Potential.portable`), are relaxed in this one.
    progress : callable, optional
        Gets (crystals finished, all).
    **settings
        ``symmetry``, ``cell``, ``symmetrize``, ``fmax``, ``smax``, ``steps``, ``seconds``, ``rattle``, ``seed``, ``path``: see
        :class:`Settings`.

    Returns
    -------
    Relaxed or list of Relaxed
        One for one crystal, a list for a sequence. A crystal that cannot be relaxed has a `reason` and stops no other.

    Raises
    ------
    PotentialError, NoEnergyError, MissingPackageError
        The potential itself.
    StabilityError
        An impossible setting.

    Examples
    --------
    >>> from asegen.stability import relax
    >>> result = relax(atoms)
    >>> result.energy_per_atom, result.spacegroup, result.atoms
    """
    if isinstance(crystals, Atoms):
        return next(_relaxations([crystals], potential, processes or 1, settings))[1]
    results: list[Relaxed | None] = [None] * len(crystals)
    for count, (index, result) in enumerate(_relaxations(crystals, potential, processes, settings), start=1):
        results[index] = result
        if progress is not None:
            progress(count, len(crystals))
    return [result for result in results if result is not None]


def relax_each(
    crystals: Sequence[Atoms],
    potential: str | BaseCalculator | Potential = "7net-0",
    *,
    processes: int | None = None,
    **settings: Any,
) -> Iterator[tuple[int, Relaxed]]:
    """Relax crystals and get each as soon as it is finished, as (index, result): :func:`relax` for programs that keep results on disk."""
    return _relaxations(crystals, potential, processes, settings)


def _relaxations(
    crystals: Sequence[Atoms], which: str | BaseCalculator | Potential, processes: int | None, options: dict[str, Any]
) -> Iterator[tuple[int, Relaxed]]:
    known = set(Settings.__dataclass_fields__)
    if unknown := set(options) - known:
        raise StabilityError(f"no setting {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    settings = Settings(**options)
    if isinstance(crystals, (str, bytes, Path)) or not all(isinstance(atoms, Atoms) for atoms in crystals):
        raise StabilityError("relax takes ase.Atoms or a list of them; for files there is asegen.stability.files.relax_file")
    if processes is not None and processes < 1:
        raise StabilityError(f"processes = {processes} must be at least 1")
    model = potential(which)
    # a GPU is one device, however many cores there are
    processes = min(len(crystals), processes or (cores() if model.device == "cpu" else 1))
    if processes <= 1 or not model.portable:
        for index, atoms in enumerate(crystals):
            yield index, relax_one(atoms, model, settings)
        return
    bare = [_bare(atoms) for atoms in crystals]
    # the clock inside ends a relaxation; the one outside is for a potential that hangs
    limit = 1.5 * settings.seconds + 60
    with Workers(partial(_work, model, settings), processes, limit, partial(_prepare, model), fresh=True) as workers:
        for index, result in workers.map(bare):
            if isinstance(result, Failure):
                result = _failed(crystals[index], model, result.reason)
            yield index, result


def relax_one(atoms: Atoms, model: Potential, settings: Settings) -> Relaxed:
    """Relax one crystal in this process; what goes wrong is in the result."""
    begin = time.monotonic()
    reason = model.refusal(atoms) or why_not_relax(atoms, model.reach, settings.cell == "free")
    if reason is not None:
        return _failed(atoms, model, reason)
    work = _bare(atoms)
    try:
        work.calc = model.calculator()
        run = _Run(work, settings, begin)
        run.to_minimum(settings.symmetry)
        if run.converged and settings.symmetrize and not _fixes(work):
            run.on_higher_group()
    except AsegenError as error:
        return _failed(atoms, model, str(error))
    return run.result(atoms, model)


class _Run:
    """The relaxation of one crystal while it goes on."""

    def __init__(self, atoms: Atoms, settings: Settings, begin: float) -> None:
        self.atoms, self.settings, self.begin = atoms, settings, begin
        self.calls, self.converged = 0, False
        self.reason: str | None = None
        self.path: list[Atoms] = []
        self.first: float | None = None
        self.residuals = (np.inf, np.inf)

    def to_minimum(self, symmetry: str) -> None:
        settings, atoms = self.settings, self.atoms
        if symmetry == "keep":
            exact_group(atoms, keep_cell=settings.cell == "fixed")
        elif settings.rattle:
            _without_group(atoms)
            atoms.positions += np.random.default_rng(settings.seed).normal(0, settings.rattle, atoms.positions.shape)
        else:
            _without_group(atoms)
        self._descend(settings.steps)

    def on_higher_group(self) -> None:
        """Go on in a higher group that the crystal nearly has; back if that costs energy."""
        before = self.atoms.copy()
        before.calc = self.atoms.calc
        state = (self.residuals, self.reason, len(self.path))
        energy = self._evaluate().energy
        if not put_on_group(self.atoms, keep_cell=self.settings.cell == "fixed"):
            return
        self._descend(max(20, self.settings.steps - self.calls))
        higher = self._evaluate().energy if self.converged else np.inf
        if higher > energy + _COSTLESS * len(before):
            self.atoms = before
            self.residuals, self.reason, length = state
            self.path = self.path[:length]
            self.converged = True

    def _evaluate(self) -> Evaluation:
        return evaluate(self.atoms, stress=self.settings.cell == "free")

    def _with_results(self, found: Evaluation) -> Atoms:
        kept = self.atoms.copy()
        _without_group(kept)
        results: dict[str, Any] = {"energy": found.energy, "free_energy": found.energy, "forces": found.forces}
        if self.settings.cell == "free":
            results["stress"] = found.stress
        kept.calc = SinglePointCalculator(kept, **results)
        return kept

    def _descend(self, steps: int) -> None:
        settings, atoms = self.settings, self.atoms
        crystal = CrystalCoordinates(atoms, settings.cell == "free")
        watch = Watch(atoms)
        optimizer = TrustBFGS(crystal)
        limits = (settings.fmax, settings.smax * GPa)
        self.converged, self.reason = False, None
        sane = (atoms.positions.copy(), atoms.cell.array.copy())
        try:
            for number in range(steps):
                found = crystal.evaluation()
                self.first = found.energy if self.first is None else self.first
                self.residuals = crystal.residuals()
                if settings.path:
                    self.path.append(self._with_results(found))
                done = self.residuals[0] < limits[0] and self.residuals[1] < limits[1]
                if number % _WATCH == 0 or done:
                    if (complaint := watch.complaint(atoms, done)) is not None:
                        raise PotentialError(f"{complaint} after {number} steps")
                    sane = (atoms.positions.copy(), atoms.cell.array.copy())
                if done:
                    self.converged = True
                    break
                if time.monotonic() - self.begin > settings.seconds:
                    self.reason = f"not converged within {settings.seconds:g} s"
                    break
                optimizer.step()
            else:
                self.reason = f"not converged within {steps} calls of the potential"
            if not self.converged:
                optimizer.back_to_best()
                self.residuals = crystal.residuals()
        except PotentialError as error:
            self.reason = f"stopped: {error}"
            atoms.set_cell(sane[1], apply_constraint=False)
            atoms.set_positions(sane[0], apply_constraint=False)
        finally:
            self.calls += crystal.calls

    def result(self, start: Atoms, model: Potential) -> Relaxed:
        atoms = self.atoms
        stopped = self.reason is not None and self.reason.startswith("stopped")
        found = None
        if not stopped:
            found = self._evaluate()
            atoms = self._with_results(found)
        else:
            atoms = _bare(atoms)
            _without_group(atoms)
        atoms.info = {key: value for key, value in start.info.items() if key not in all_properties}
        energy = found.energy if found is not None else None
        count = len(atoms)
        return Relaxed(
            start=start,
            atoms=atoms,
            converged=self.converged,
            reason=self.reason,
            energy=energy,
            energy_per_atom=energy / count if energy is not None else None,
            energy_gain=(self.first - energy) / count if energy is not None and self.first is not None else None,
            fmax=None if stopped else self.residuals[0],
            smax=None if stopped else self.residuals[1] / GPa,
            calls=self.calls,
            displacement=displacement(start, atoms),
            volume_change=float(atoms.get_volume() / start.get_volume() - 1),
            spacegroup_before=space_group(start),
            spacegroup=space_group(atoms),
            potential=model.name,
            scale=model.scale,
            seconds=time.monotonic() - self.begin,
            path=tuple(self.path),
        )


def displacement(before: Atoms, after: Atoms) -> float:
    """Root mean square displacement between two states of a crystal in their mean cell, Å.

    Each atom by its nearest image; the common shift is taken out.
    """
    delta = after.get_scaled_positions(wrap=False) - before.get_scaled_positions(wrap=False)
    delta -= np.round(delta)
    delta -= delta.mean(0)
    moved = delta @ (0.5 * (before.cell.array + after.cell.array))
    return float(np.sqrt((moved**2).sum(1).mean()))


def _failed(atoms: Atoms, model: Potential, reason: str) -> Relaxed:
    bare = _bare(atoms)
    _without_group(bare)
    bare.info = {key: value for key, value in atoms.info.items() if key not in all_properties}
    group = 0
    if len(atoms) and why_not_relax(atoms, None, False) is None:
        group = space_group(atoms)
    nothing: dict[str, Any] = dict.fromkeys(
        ("energy", "energy_per_atom", "energy_gain", "fmax", "smax", "displacement", "volume_change"), None
    )
    return Relaxed(
        start=atoms,
        atoms=bare,
        converged=False,
        reason=reason,
        calls=0,
        spacegroup_before=group,
        spacegroup=group,
        potential=model.name,
        scale=model.scale,
        seconds=0.0,
        **nothing,
    )


def _bare(atoms: Atoms) -> Atoms:
    """A copy without calculator."""
    bare = atoms.copy()
    bare.calc = None
    return bare


def _without_group(atoms: Atoms) -> None:
    from ..symmetry.constraint import SpaceGroup

    atoms.set_constraint([c for c in atoms.constraints if not isinstance(c, SpaceGroup)])


def _fixes(atoms: Atoms) -> bool:
    from ase.constraints import FixAtoms

    return any(isinstance(c, FixAtoms) for c in atoms.constraints)


def _prepare(model: Potential) -> None:
    import torch

    torch.set_num_threads(1)
    model.calculator()


def _work(model: Potential, settings: Settings, atoms: Atoms) -> Relaxed:
    return relax_one(atoms, model, settings)
