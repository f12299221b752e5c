import copy
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.optimize import BFGS, FIRE, LBFGS
from ase.spacegroup import crystal as spacegroup_crystal

from asegen import EnergyScoreCalculator, ScoreCalculator, ScoreFilter
from asegen.errors import AsegenError, CheckpointError, FormulaError, NoEnergyError
from asegen.kernels import Schedule
from asegen.lattice import log_metric
from asegen.prior import log_cell_of
from asegen.testing import OneCrystalCalculator, check_score_calculator


def test_the_calculator_keeps_its_contract(small, crystal):
    check_score_calculator(ScoreCalculator(small), crystal, tolerance=0.05)  # bfloat16 products


def test_the_equivariant_one_does_not_see_the_choice_of_cell(small_equivariant, crystal):
    check_score_calculator(ScoreCalculator(small_equivariant), crystal, tolerance=2e-3, cell_choice=True)


def test_the_checks_catch_a_calculator_that_is_wrong(small, crystal):
    class Tilted(ScoreCalculator):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = self.results["forces"] + np.array([0.0, 0.0, np.abs(self.results["forces"]).max()])

    with pytest.raises(AssertionError, match=r"proportional|turn|sum to zero"):
        check_score_calculator(Tilted(small), crystal, tolerance=0.05)


def test_forces_and_stress_are_derivatives_of_a_known_log_density(rocksalt):
    """OneCrystalCalculator against finite differences of the kernels' log densities: signs, units, Voigt order."""
    from asegen import CrystalBatch
    from asegen.kernels import Schedule, normal_log_prob, wrapped_normal_log_prob
    from asegen.prior import lattice_coordinates

    rocksalt.rattle(0.05, seed=1)
    calc = OneCrystalCalculator(rocksalt, sigma=0.4, kT=0.7)
    noisy = rocksalt.copy()
    noisy.set_cell(noisy.cell.array @ (np.eye(3) + 0.05 * np.array([[1, 0.3, 0], [0.3, -0.5, 0.2], [0, 0.2, 0.4]])), scale_atoms=True)
    noisy.rattle(0.1, seed=2)
    noisy.calc = calc
    schedule = Schedule()

    def log_density(atoms) -> float:
        batch = CrystalBatch.from_atoms(atoms)
        sigma = torch.tensor([0.4], dtype=torch.float64)
        width = schedule.frac_width(sigma, batch.num_atoms)
        time = schedule.time(sigma)
        position = wrapped_normal_log_prob(batch.frac - calc.clean.frac, width[:, None]).sum()
        y = lattice_coordinates(batch.cell, calc.volume)
        return float(
            position + normal_log_prob(y, calc.y, schedule.lattice_alpha(time)[:, None], schedule.lattice_width(time)[:, None]).sum()
        )

    h = 1e-5
    forces, stress = noisy.get_forces(), noisy.get_stress(voigt=False)
    for atom, axis in ((0, 0), (1, 2)):
        values = []
        for sign in (1, -1):
            moved = noisy.copy()
            moved.positions[atom, axis] += sign * h
            values.append(log_density(moved))
        assert forces[atom, axis] == pytest.approx(0.7 * (values[0] - values[1]) / (2 * h), rel=1e-5, abs=1e-5)
    for i, j in ((0, 0), (1, 2), (0, 1)):
        strain = np.zeros((3, 3))
        strain[i, j] += h / 2
        strain[j, i] += h / 2
        values = []
        for sign in (1, -1):
            moved = noisy.copy()
            moved.set_cell(moved.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
            values.append(log_density(moved))
        expected = -0.7 / noisy.get_volume() * (values[0] - values[1]) / (2 * h)
        assert stress[i, j] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_stock_langevin_samples_the_blur(rocksalt):
    """ase.md.Langevin at kT = 1 eV on the exact score of a blur of σ: variance σ² per Cartesian component.

    (Appendix A of CDVAE: kT s is a spring of stiffness kT/σ².)
    """
    sigma = 0.15
    calc = OneCrystalCalculator(rocksalt, sigma=sigma, kT=1.0)
    atoms = rocksalt.copy()
    atoms.calc = calc
    atoms.set_masses([1.0, 1.0])
    rng = np.random.RandomState(0)
    # spring 1/σ² eV/Å² and mass 1: period 2πσ; a step of a twentieth of it, damped within a period
    dynamics = Langevin(atoms, timestep=0.3 * sigma, temperature_K=1 / units.kB, friction=1.0 / sigma, fixcm=False, rng=rng)
    dynamics.run(300)
    squares = []
    for _ in range(9000):
        dynamics.run(1)
        squares.append((atoms.positions - rocksalt.positions) @ np.linalg.inv(atoms.cell.array))
    frac = np.array(squares)
    # the blur is isotropic in fractional coordinates with width σ/(N v0)^(1/3)
    width = sigma / (2 * calc.schedule.atomic_volume) ** (1 / 3)
    assert frac.var(axis=0).mean() == pytest.approx(width**2, rel=0.08)


def test_results_do_not_survive_a_change_of_sigma(small, crystal):
    crystal.calc = ScoreCalculator(small, sigma=0.1)
    first = crystal.get_forces()
    crystal.calc.set(sigma=1.0)
    assert not np.allclose(first, crystal.get_forces())
    with pytest.raises(ValueError, match="sigma = -1"):
        crystal.calc.set(sigma=-1)


def test_one_network_call_fills_every_property(small, crystal, monkeypatch):
    calls = []
    original = type(small.system).scores
    monkeypatch.setattr(type(small.system), "scores", lambda *a, **k: calls.append(1) or original(*a, **k))
    crystal.calc = ScoreCalculator(small)
    crystal.get_forces()
    crystal.get_stress()
    assert crystal.calc.results["element_logits"].shape == (5, 119)
    assert len(calls) == 1


def test_there_is_no_energy_and_the_error_names_the_way_out(small, crystal):
    crystal.calc = ScoreCalculator(small)
    with pytest.raises(NoEnergyError, match="ScoreFilter"):
        crystal.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError):
        crystal.get_potential_energy()
    with pytest.raises(NoEnergyError, match=r"optimizers asegen\.ScoreFilter\(atoms\) instead of the atoms or FrechetCellFilter"):
        FIRE(FrechetCellFilter(crystal), logfile=None).run(steps=1)
    with pytest.raises(NoEnergyError, match=r"dynamics with logfile=None or as asegen\.AnnealedLangevin"):
        Langevin(crystal, 0.1, temperature_K=300, friction=0.1, logfile=io.StringIO()).run(1)


def test_the_ways_out_that_the_error_names_are_open(small, crystal, tmp_path):
    crystal.calc = ScoreCalculator(small)
    before = crystal.positions.copy()
    Langevin(crystal, 0.1, temperature_K=300, friction=0.1, logfile=None, trajectory=tmp_path / "md.traj").run(2)
    FIRE(ScoreFilter(crystal), logfile=None, trajectory=tmp_path / "fire.traj").run(steps=2)
    assert np.abs(crystal.positions - before).max() > 1e-6


def test_the_noise_level_unless_asked_is_one_at_which_optimizers_work(small):
    assert ScoreCalculator(small).parameters["sigma"] == 0.1
    narrow = copy.copy(small.system)
    narrow.schedule = Schedule(sigma_min=0.2)
    assert ScoreCalculator(replace(small, system=narrow)).parameters["sigma"] == 0.2


def test_crystals_outside_the_training_data_are_refused(small, crystal):
    crystal.calc = ScoreCalculator(small)
    big = crystal.repeat((2, 2, 2))
    big.calc = crystal.calc
    with pytest.raises(FormulaError, match=r"40 atoms.*up to 20"):
        big.get_forces()
    crystal.numbers[0] = 110
    with pytest.raises(FormulaError, match=r"Ds.*never seen"):
        crystal.get_forces()


@pytest.mark.parametrize("optimizer", [FIRE, BFGS, LBFGS])
def test_optimizers_follow_a_score_through_the_filter(optimizer, rocksalt):
    calc = OneCrystalCalculator(rocksalt, sigma=0.3)
    atoms = rocksalt.copy()
    atoms.rattle(0.15, seed=0)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.diag([0.02, -0.01, 0.0])), scale_atoms=True)
    atoms.calc = calc
    assert math.isnan(ScoreFilter(atoms).get_potential_energy())
    assert optimizer(ScoreFilter(atoms, cell=True), logfile=None).run(fmax=1e-3, steps=300)
    assert np.allclose(atoms.get_scaled_positions(wrap=False), rocksalt.get_scaled_positions(wrap=False), atol=1e-3)
    # the lattice score vanishes where y = α y_clean
    time = calc.schedule.time(torch.tensor([0.3], dtype=torch.float64))
    expected = log_cell_of(calc.schedule.lattice_alpha(time)[:, None] * calc.y, calc.volume)
    assert torch.allclose(log_metric(torch.from_numpy(atoms.cell.array.copy())[None]), expected, atol=1e-3)


def test_a_filter_leaves_the_cell_alone_unless_asked(rocksalt):
    atoms = rocksalt.copy()
    atoms.rattle(0.1, seed=0)
    atoms.set_cell(atoms.cell.array * 1.05, scale_atoms=True)
    stretched = atoms.cell.array.copy()
    atoms.calc = OneCrystalCalculator(rocksalt, sigma=0.3)
    assert FIRE(ScoreFilter(atoms), logfile=None).run(fmax=1e-2, steps=200)
    assert (atoms.cell.array == stretched).all()
    assert np.allclose(atoms.get_scaled_positions(wrap=False), rocksalt.get_scaled_positions(wrap=False), atol=1e-3)


def test_a_cell_is_refused_where_its_score_is_no_guide(rocksalt):
    calc = OneCrystalCalculator(rocksalt, sigma=0.02)
    atoms = rocksalt.copy()
    atoms.calc = calc
    moving = ScoreFilter(atoms, cell=True)
    with pytest.raises(AsegenError, match=r"sigma = 0\.02 Å.*set sigma to 0\.05 Å or more, or let the positions alone"):
        moving.get_forces()
    assert np.isfinite(ScoreFilter(atoms).get_forces()).all()
    calc.set(sigma=0.05)
    assert np.isfinite(moving.get_forces()).all()


def textbook(name: str):
    if name == "rutile":
        return spacegroup_crystal(("Ti", "O"), [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.96, 90, 90, 90])
    structure, a = {"NaCl": ("rocksalt", 5.64), "CaF2": ("fluorite", 5.46), "GaAs": ("zincblende", 5.65)}[name]
    return bulk(name, structure, a)


@pytest.mark.parametrize("optimizer", [FIRE, BFGS, LBFGS])
@pytest.mark.parametrize("name", ["NaCl", "CaF2", "GaAs", "rutile"])
def test_rattled_crystals_come_back_with_a_packaged_checkpoint(name, optimizer):
    known = textbook(name)
    atoms = known.copy()
    atoms.rattle(0.1, seed=1)

    def off() -> float:
        delta = (atoms.get_scaled_positions(wrap=False) - known.get_scaled_positions(wrap=False)) @ known.cell.array
        return float(np.sqrt(((delta - delta.mean(0)) ** 2).sum(1).mean()))

    assert off() > 0.06
    atoms.calc = ScoreCalculator("mp20")
    assert optimizer(ScoreFilter(atoms), logfile=None).run(fmax=0.05, steps=100)
    assert off() < 0.03


@pytest.mark.parametrize("shape", ["skewed", "fcc", "cubic"])  # equal axes: eigenvectors of the metric are not unique
def test_the_energy_calculator_has_energy_forces_and_stress_that_agree(small_energy, crystal, shape):
    if shape == "fcc":
        crystal.set_cell(4.0 * (1 - np.eye(3)), scale_atoms=True)
    elif shape == "cubic":
        crystal.set_cell([4.0, 4.0, 4.0], scale_atoms=True)
    crystal.calc = EnergyScoreCalculator(small_energy, sigma=0.8)
    energy, forces, stress = crystal.get_potential_energy(), crystal.get_forces(), crystal.get_stress(voigt=False)
    assert math.isfinite(energy)
    random = np.random.default_rng(0)
    step = random.normal(size=(5, 3))
    h = 2e-3  # float32 inside
    values = []
    for sign in (1, -1):
        moved = crystal.copy()
        moved.positions += sign * h * step
        moved.calc = crystal.calc
        values.append(moved.get_potential_energy())
    slope = -(values[0] - values[1]) / (2 * h)
    assert slope == pytest.approx(float((forces * step).sum()), rel=0.03, abs=0.03 * np.linalg.norm(forces))
    strain = np.diag([1.0, -0.5, 0.3])
    values = []
    for sign in (1, -1):
        moved = crystal.copy()
        moved.set_cell(moved.cell.array @ (np.eye(3) + sign * h * strain), scale_atoms=True)
        moved.calc = crystal.calc
        values.append(moved.get_potential_energy())
    slope = (values[0] - values[1]) / (2 * h) / crystal.get_volume()
    assert slope == pytest.approx(float((stress * strain).sum()), rel=0.03, abs=0.03 * np.linalg.norm(stress))


def test_a_score_model_is_refused_as_an_energy_model(small):
    with pytest.raises(CheckpointError, match="no energy"):
        EnergyScoreCalculator(small)
