"""Checks that any score calculator can be put through, and a calculator whose score is known in closed form.

>>> from asegen.testing import check_score_calculator
>>> check_score_calculator(MyCalculator(), atoms)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from .crystals import CrystalBatch
from .errors import NoEnergyError
from .kernels import Schedule, normal_score, wrapped_normal_score
from .lattice import strain_gradient
from .prior import lattice_coordinates, log_gradient_of, reference_volume


class OneCrystalCalculator(Calculator):
    """Exact score of the blur of one known crystal: what a perfect model trained on that crystal alone would give.

    Parameters
    ----------
    crystal : ase.Atoms
        The clean crystal.
    sigma : float, Å
    kT : float, eV
    schedule : Schedule, optional
    """

    implemented_properties = ["forces", "stress"]
    discard_results_on_any_change = True

    def __init__(self, crystal: Atoms, sigma: float = 0.1, kT: float = 1.0, schedule: Schedule | None = None) -> None:
        super().__init__(sigma=float(sigma), kT=float(kT))
        self.schedule = schedule or Schedule()
        self.clean = CrystalBatch.from_atoms(crystal)
        self.volume = reference_volume(self.clean.species, self.clean.index, 1)
        self.y = lattice_coordinates(self.clean.cell, self.volume)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """As in ASE; there is no energy."""
        if name in ("energy", "free_energy"):
            raise NoEnergyError("the score of a blurred crystal has no energy here")
        return super().get_property(name, atoms, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("forces",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Scores of the kernels of :mod:`asegen.kernels`."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        noisy = CrystalBatch.from_atoms(self.atoms)
        kT = self.parameters["kT"]
        sigma = torch.tensor([self.parameters["sigma"]], dtype=torch.float64)
        time = self.schedule.time(sigma)
        width = self.schedule.frac_width(sigma, noisy.num_atoms)
        score = wrapped_normal_score(noisy.frac - self.clean.frac, width[:, None])
        forces = kT * score @ torch.linalg.inv(noisy.cell[0]).T
        y = lattice_coordinates(noisy.cell, self.volume)
        alpha, spread = self.schedule.lattice_alpha(time)[:, None], self.schedule.lattice_width(time)[:, None]
        lattice = normal_score(y, self.y, alpha, spread.clamp(min=1e-3))
        strain = strain_gradient(log_gradient_of(lattice), noisy.cell)[0]
        self.results["forces"] = forces.numpy()
        self.results["stress"] = full_3x3_to_voigt_6_stress((-kT / noisy.volume[0] * strain).numpy())


def check_score_calculator(
    calc: Any, atoms: Atoms, *, sigmas: Sequence[float] = (0.1, 1.0), tolerance: float = 1e-3, cell_choice: bool = False, seed: int = 0
) -> None:
    """Raise AssertionError, naming what is wrong, unless `calc` keeps the contract of a score calculator.

    Checked at every noise level: shapes and finite numbers; no energy, said with a
    ``PropertyNotImplementedError``; forces that change with ``sigma`` and are proportional to ``kT``; forces that sum to
    zero; and that a translation, a shift of atoms by lattice vectors, a permutation of atoms of equal kind, and a rotation
    of the crystal change forces and stress as they must.

    Parameters
    ----------
    calc : ase calculator with parameters ``sigma`` and ``kT``
    atoms : ase.Atoms
        Any crystal the calculator accepts, without symmetry.
    sigmas : sequence of float, Å
    tolerance : float
        Largest error relative to the largest force or stress component.
    cell_choice : bool
        Also require the same forces for another choice of lattice vectors.
    seed : int
        Of the random rotation, translation and permutation.
    """
    random = np.random.default_rng(seed)
    crystal = atoms.copy()
    crystal.calc = None

    def evaluate(structure: Atoms) -> tuple[np.ndarray, np.ndarray]:
        copy = structure.copy()
        copy.calc = calc
        return copy.get_forces(), copy.get_stress(voigt=False)

    def same(name: str, found: np.ndarray, expected: np.ndarray, scale: float) -> None:
        error = float(np.abs(found - expected).max()) / max(scale, 1e-30)
        assert error < tolerance, f"{name}: relative error {error:.2e} at sigma = {sigma} Å (allowed {tolerance:.0e})"

    seen = []
    for sigma in sigmas:
        calc.set(sigma=sigma)
        forces, stress = evaluate(crystal)
        assert forces.shape == (len(crystal), 3) and stress.shape == (3, 3), "forces must be (N, 3) and stress (3, 3)"
        assert np.isfinite(forces).all() and np.isfinite(stress).all(), f"forces or stress are not finite at sigma = {sigma} Å"
        size, press = float(np.abs(forces).max()), float(np.abs(stress).max())
        seen.append(forces)

        kT = float(calc.parameters["kT"])
        calc.set(kT=2 * kT)
        same("forces are not proportional to kT", evaluate(crystal)[0], 2 * forces, size)
        calc.set(kT=kT)

        copy = crystal.copy()
        copy.calc = calc
        try:
            copy.get_potential_energy()
        except PropertyNotImplementedError:
            pass
        else:
            raise AssertionError("an energy was returned; a score is not the gradient of one (raise NoEnergyError)")

        moved = crystal.copy()
        moved.translate(random.normal(size=3))
        same("forces change under a translation", evaluate(moved)[0], forces, size)
        moved = crystal.copy()
        moved.positions += random.integers(-2, 3, size=(len(moved), 3)) @ moved.cell.array
        same("forces depend on which image of an atom is given", evaluate(moved)[0], forces, size)
        order = random.permutation(len(crystal))
        same("forces do not follow a permutation of the atoms", evaluate(crystal[order])[0], forces[order], size)

        turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        moved = crystal.copy()
        moved.set_cell(crystal.cell.array @ turn, scale_atoms=True)
        turned, turned_stress = evaluate(moved)
        same("forces do not turn with the crystal", turned, forces @ turn, size)
        same("stress does not turn with the crystal", turned_stress, turn.T @ stress @ turn, press)
        if cell_choice:
            moved = crystal.copy()
            moved.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]]) @ crystal.cell.array, scale_atoms=False)
            # (not the stress: the lattice's noise is measured in the frame of the lattice vectors)
            same("forces depend on the choice of cell", evaluate(moved)[0], forces, size)
        if len(crystal) > 1:
            same("forces do not sum to zero", forces.sum(0), np.zeros(3), size)
    for first, second in itertools.pairwise(seen):
        assert not np.allclose(first, second), "forces do not depend on sigma; do results survive calc.set(sigma=…)?"
