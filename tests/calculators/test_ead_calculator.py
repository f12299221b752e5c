import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.optimize import BFGS, FIRE, LBFGS, BFGSLineSearch
from ase.optimize.basin import BasinHopping

from asegen import EADCalculator
from asegen.descriptors import EAD, OURS, PAPER
from asegen.descriptors.target import Target
from asegen.errors import CrystalError, DescriptorError

all_poolings = pytest.mark.parametrize("pooling", ["sites", "moments", "extrema"])


def shaken(crystal: Atoms, size: float = 0.15, seed: int = 0, strain: float = 0.0) -> Atoms:
    copy = crystal.copy()
    copy.rattle(size, seed=seed)
    change = np.random.default_rng(seed).normal(scale=strain or 1.0, size=(3, 3))
    if strain:
        copy.set_cell(copy.cell.array @ (np.eye(3) + change), scale_atoms=True)
    return copy


@all_poolings
def test_forces_and_stress_are_the_derivatives(pooling, crystal):
    """ASE's own finite differences: sign, units, Voigt order; and energy is the target's loss."""
    other = shaken(crystal, 0.3, seed=1, strain=0.03)[[3, 0, 4, 1, 2]]
    other.calc = EADCalculator(crystal, EAD((0, 1, 2), ((1.0, 1.0), (2.0, 2.5)), 5.0, True), pooling)
    np.testing.assert_allclose(other.get_forces(), calculate_numerical_forces(other, eps=1e-5), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(other.get_stress(), calculate_numerical_stress(other, eps=1e-5), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(other.get_forces().sum(0), 0.0, atol=1e-9)
    assert other.get_potential_energy() > 0
    for absent in ("get_magnetic_moments", "get_stresses", "get_charges"):
        with pytest.raises(PropertyNotImplementedError):
            getattr(other, absent)()


@pytest.mark.parametrize("kind", [OURS, PAPER], ids=["ours", "paper"])
def test_the_target_is_the_floor(kind, crystal):
    crystal.calc = EADCalculator(crystal, kind)
    assert crystal.get_potential_energy() == pytest.approx(0.0, abs=1e-20)
    assert np.abs(crystal.get_forces()).max() < 1e-9 and np.abs(crystal.get_stress()).max() < 1e-9


def test_atoms_in_any_order(crystal):
    calc = EADCalculator(Target.of(crystal, pooling="sites"))
    other = shaken(crystal)
    other.calc = calc
    energy, forces, stress = other.get_potential_energy(), other.get_forces(), other.get_stress()
    order = [4, 2, 0, 3, 1]
    mixed = other[order]
    mixed.calc = calc
    assert mixed.get_potential_energy() == pytest.approx(energy, rel=1e-9)
    np.testing.assert_allclose(mixed.get_forces(), forces[order], atol=1e-10)
    np.testing.assert_allclose(mixed.get_stress(), stress, atol=1e-12)


def test_one_evaluation_fills_everything(crystal, monkeypatch):
    calls = []
    original = EAD.__call__
    calc = EADCalculator(crystal)
    monkeypatch.setattr(EAD, "__call__", lambda *args: calls.append(1) or original(*args))
    other = shaken(crystal)
    other.calc = calc
    with torch.no_grad():  # what the caller has switched off does not matter
        other.get_forces(), other.get_potential_energy(), other.get_stress()
    assert len(calls) == 1
    other.positions[0, 0] += 1e-6
    other.get_potential_energy()
    assert len(calls) == 2


@pytest.mark.parametrize("optimizer", [FIRE, BFGS, LBFGS, BFGSLineSearch])
def test_optimizers_go_back_to_the_target(optimizer, crystal):
    other = shaken(crystal, 0.03)
    other.calc = EADCalculator(crystal)
    start = other.get_potential_energy()
    assert optimizer(other, logfile=None).run(fmax=1e-3, steps=200)
    assert other.get_potential_energy() < 1e-4 < start


def test_the_cell_too(crystal):
    other = shaken(crystal, 0.03, strain=0.02)
    other.calc = EADCalculator(crystal)
    start = other.get_potential_energy()
    assert LBFGS(FrechetCellFilter(other), logfile=None).run(fmax=1e-4, steps=400)
    assert other.get_potential_energy() < 1e-5 < start
    np.testing.assert_allclose(other.cell.cellpar(), crystal.cell.cellpar(), rtol=2e-2)


def test_basin_hopping_of_ase(rocksalt, tmp_path):
    """ASE's, unmodified; the target, half a lattice vector away, is found."""
    np.random.seed(0)
    other = rocksalt.copy()
    other.positions[1] += [0.9, 0.5, -0.6]
    other.calc = EADCalculator(rocksalt)
    files = {"trajectory": str(tmp_path / "lowest.traj"), "local_minima_trajectory": str(tmp_path / "minima.traj")}
    hopping = BasinHopping(other, temperature=0.1, dr=0.5, optimizer=LBFGS, fmax=1e-3, logfile=None, optimizer_logfile=None, **files)
    hopping.run(4)
    energy, best = hopping.get_minimum()
    assert energy < 1e-4
    assert best.get_distance(0, 1, mic=True) == pytest.approx(2.82, abs=0.02)


def test_one_atom_and_files(tmp_path):
    copper = Atoms("Cu", cell=2.55 * (np.ones((3, 3)) - np.eye(3)) / 2**0.5, pbc=True)
    wide = copper.copy()
    wide.set_cell(copper.cell.array * 1.05, scale_atoms=True)
    wide.calc = EADCalculator(copper)
    assert np.abs(wide.get_forces()).max() < 1e-10 and wide.get_stress()[:3].min() > 0  # it wants to contract
    write(tmp_path / "wide.traj", wide)
    assert read(tmp_path / "wide.traj").get_potential_energy() == wide.get_potential_energy()


def test_errors_in_words(crystal, rocksalt):
    rocksalt.calc = EADCalculator(crystal)
    with pytest.raises(DescriptorError, match="made for O3TiSr, the crystal is NaCl"):
        rocksalt.get_potential_energy()
    with pytest.raises(DescriptorError, match="brings its own descriptor"):
        EADCalculator(Target.of(crystal), ead=OURS)
    with pytest.raises(DescriptorError, match="unknown pooling"):
        EADCalculator(crystal, pooling="mean")
    with pytest.raises(CrystalError):
        EADCalculator(Atoms("He"))
    rocksalt.calc = EADCalculator(rocksalt.copy())
    rocksalt.set_cell(rocksalt.cell.array * 0.03, scale_atoms=True)
    with pytest.raises(CrystalError, match="too small"):
        rocksalt.get_potential_energy()
