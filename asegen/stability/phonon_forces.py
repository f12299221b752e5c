"""Forces of displaced supercells: the part of a phonon calculation that takes the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units

from ..calculators.potentials import Evaluation, Potential, evaluate
from ..errors import StabilityError
from ..metrics.workers import Failure, Workers

_SECONDS = 600.0  # for the forces of one supercell in another process


@dataclass(frozen=True)
class Forces:
    """Forces of the displaced supercells, and the state of the crystal that they start from."""

    forces: np.ndarray
    """eV/Å, shape (displacements, atoms, 3); the forces that the crystal has without displacement are subtracted."""
    energy_per_atom: float
    """Of the crystal without displacement, eV."""
    residual_force: float
    """Largest force on an atom without displacement, eV/Å."""
    residual_stress: float
    """Largest component of the stress without displacement, GPa."""
    seconds: float
    """Time spent in the potential."""


def forces_of(
    unit: Atoms,
    displaced: Sequence[Atoms],
    origin: np.ndarray,
    model: Potential,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Forces:
    """Forces of displaced supercells.

    Parameters
    ----------
    unit : ase.Atoms
        The cell that the supercells repeat, without displacement.
    displaced : sequence of ase.Atoms
        The supercells.
    origin : array of int, shape (atoms,)
        For each atom of a supercell the atom of `unit` that it repeats.
    model : Potential
    processes : int, optional
        More than one: in so many new processes, each of which loads the potential (seconds). Default: in this one.
    progress : callable, optional
        Called with how many supercells are done and how many there are.

    Raises
    ------
    PotentialError
        The potential fails, or returns no finite numbers.
    StabilityError
        A process was lost.
    """
    crystals = [unit, *displaced]
    found: dict[int, Evaluation] = {}
    begin = time.perf_counter()
    for place, evaluation in _in_processes(crystals, model, processes) if (processes or 1) > 1 else _here(crystals, model):
        found[place] = evaluation
        if progress:
            progress(len(found), len(crystals))
    rest = found[0].forces
    return Forces(
        forces=np.array([found[i].forces - rest[origin] for i in range(1, len(crystals))]),
        energy_per_atom=found[0].energy / len(unit),
        residual_force=float(np.linalg.norm(rest, axis=1).max()),
        residual_stress=float(np.abs(found[0].stress).max() / units.GPa),
        seconds=time.perf_counter() - begin,
    )


def _here(crystals: Sequence[Atoms], model: Potential) -> Any:
    calculator = model.calculator()
    for place, atoms in enumerate(crystals):
        yield place, _one(atoms, calculator)


def _in_processes(crystals: Sequence[Atoms], model: Potential, processes: int | None) -> Any:
    with Workers(_item, processes, _SECONDS, fresh=True) as workers:
        for place, result in workers.map([(atoms, model) for atoms in crystals]):
            if isinstance(result, Failure):
                raise StabilityError(f"the forces of a displaced supercell were not found: {result.reason}")
            yield place, result


def _item(item: tuple[Atoms, Potential]) -> Evaluation:
    atoms, model = item
    return _one(atoms, model.calculator())


def _one(atoms: Atoms, calculator: Any) -> Evaluation:
    atoms = atoms.copy()
    atoms.calc = calculator
    return evaluate(atoms)
