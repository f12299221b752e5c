"""Random starts of a structure search: soft spheres, volumes, groups, seeds."""

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from asegen.calculators.potentials import evaluate, potential
from asegen.errors import FormulaError, NoEnergyError, StabilityError
from asegen.formulas import numbers_of
from asegen.metrics.workers import Workers
from asegen.stability.coordinates import CrystalCoordinates
from asegen.stability.search.random_starts import OPERATIONS, VOLUMES, estimated_volume, is_flat, random_start
from asegen.stability.search.soft_spheres import CLOSEST, SoftSphere, overlaps, push_apart, touching_distances
from asegen.symmetry.constraint import SpaceGroup
from asegen.symmetry.crystal import symmetric_crystal

FORMULAS = ["Cu", "Na2Cl2", "SrTiO3", "H8C4"]


def crowded(formula="SrTiO3", volume=20.0, seed=0):
    random = np.random.default_rng(seed)
    cell = volume ** (1 / 3) * (np.eye(3) + 0.2 * random.standard_normal((3, 3)))
    return Atoms(numbers=numbers_of(formula), scaled_positions=random.random((len(numbers_of(formula)), 3)), cell=cell, pbc=True)


@pytest.mark.parametrize("formula, volume", [("SrTiO3", 30.0), ("Cu", 6.0), ("H8C4", 12.0)])
def test_forces_and_stress_of_soft_spheres_are_derivatives(formula, volume):
    atoms = crowded(formula, volume)
    atoms.calc = SoftSphere(atoms.numbers)
    found, h = evaluate(atoms), 1e-5
    assert found.energy > 0
    forces = np.zeros((len(atoms), 3))
    for i in range(len(atoms)):
        for axis in range(3):
            either = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.calc = SoftSphere(atoms.numbers)
                moved.positions[i, axis] += sign * h
                either.append(moved.get_potential_energy())
            forces[i, axis] = -(either[0] - either[1]) / (2 * h)
    assert found.forces == pytest.approx(forces, abs=1e-4)
    stress = []
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        either = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * h / 2
            strain[j, i] += sign * h / 2
            moved = atoms.copy()
            moved.calc = SoftSphere(atoms.numbers)
            moved.set_cell(atoms.cell @ strain, scale_atoms=True)
            either.append(moved.get_potential_energy())
        stress.append((either[0] - either[1]) / (2 * h) / atoms.get_volume())
    assert found.stress == pytest.approx(stress, abs=1e-4)


def test_spheres_that_do_not_touch_feel_nothing_and_are_no_potential():
    atoms = bulk("Cu")
    atoms.calc = SoftSphere(atoms.numbers)
    found = evaluate(atoms)
    assert found.energy == 0 and not found.forces.any() and not found.stress.any()
    with pytest.raises(NoEnergyError, match="not in eV"):
        potential(atoms.calc)


def test_touching_distances_are_sums_of_radii():
    assert touching_distances([11, 17], 1.0) == pytest.approx(np.array([[3.32, 2.68], [2.68, 2.04]]))  # Na 1.66, Cl 1.02 Å


@given(st.sampled_from(FORMULAS), st.integers(0, 10**6), st.booleans())
def test_random_starts_are_sane(formula, seed, symmetric):
    atoms = random_start(formula, seed=seed, symmetric=symmetric)
    assert atoms.calc is None and atoms.numbers.tolist() == numbers_of(formula).tolist()
    assert not overlaps(atoms) and not is_flat(atoms.cell.array) and np.linalg.det(atoms.cell) > 0
    share = atoms.info["drawn_volume"] / estimated_volume(atoms.numbers)
    assert VOLUMES[0] <= share <= VOLUMES[1]
    assert atoms.get_volume() > 0.95 * atoms.info["drawn_volume"]
    assert atoms.info["seed"] == seed and atoms.info["start"] == ("symmetric" if symmetric else "free")
    constraints = [c for c in atoms.constraints if isinstance(c, SpaceGroup)]
    assert len(constraints) == symmetric
    if symmetric:
        kept = atoms.copy()
        constraints[0].snap(kept)
        assert kept.positions == pytest.approx(atoms.positions, abs=1e-8) and kept.cell.array == pytest.approx(atoms.cell.array, abs=1e-8)
        crystal = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
        operations = len(spglib.get_symmetry(crystal, symprec=1e-4)["rotations"])
        assert operations >= constraints[0].symmetry.point_count[0] >= OPERATIONS[0]
        assert constraints[0].symmetry.point_count[0] <= OPERATIONS[1]


def test_volumes_cover_the_range_and_stay_where_there_is_room():
    starts = [random_start("SrTiO3", seed=seed, volumes=(2.0, 3.0)) for seed in range(30)]
    share = np.array([atoms.info["drawn_volume"] for atoms in starts]) / estimated_volume(starts[0].numbers)
    assert share.min() < 2.15 and share.max() > 2.85
    assert [atoms.get_volume() for atoms in starts] == pytest.approx([atoms.info["drawn_volume"] for atoms in starts])


def test_the_estimate_is_about_the_volume_of_crystals():
    assert estimated_volume(numbers_of("SrTiO3")) == pytest.approx(59.6, rel=0.35)
    assert estimated_volume(numbers_of("SrTiO3", 2)) == pytest.approx(2 * estimated_volume(numbers_of("SrTiO3")))


def _positions(seed):
    return random_start("SrTiO3", seed=seed, symmetric=seed % 2 == 1).positions


def test_the_same_seed_gives_the_same_start_in_any_process():
    with Workers(_positions, 2, 60.0) as workers:
        elsewhere = dict(workers.map([0, 1, 2, 3]))
    for seed in range(4):
        assert np.array_equal(_positions(seed), elsewhere[seed])
    assert not np.allclose(_positions(0), _positions(2))


def test_a_group_that_leaves_no_freedom_grows_its_cell():
    atoms = symmetric_crystal("SrTiO3", 221, "Sr:1a Ti:1b O:3c", volume=10.0)
    assert overlaps(atoms) and push_apart(atoms)
    assert not overlaps(atoms) and atoms.cell.angles() == pytest.approx([90] * 3) and np.ptp(atoms.cell.lengths()) < 1e-8
    assert not overlaps(atoms, CLOSEST) and overlaps(atoms, 1.1 * CLOSEST)  # no larger than needed


def test_atoms_with_room_are_pushed_apart_in_their_cell():
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0.3, 0, 0]], cell=[5, 5, 5], pbc=True)
    assert push_apart(atoms) and atoms.cell.array == pytest.approx(5 * np.eye(3)) and not overlaps(atoms)
    assert CrystalCoordinates(atoms).ndofs() == 9


def test_starts_that_are_impossible():
    with pytest.raises(FormulaError, match="no element 'Xx'"):
        random_start("Xx2")
    with pytest.raises(FormulaError, match="Es has no covalent radius"):
        random_start("EsO2")
    with pytest.raises(StabilityError, match="must be two numbers above 0"):
        random_start("NaCl", volumes=(1.0, 0.5))
    with pytest.raises(StabilityError, match="seed = -1"):
        random_start("NaCl", seed=-1)
    with pytest.raises(StabilityError, match="smaller distance or a larger volume"):
        random_start("Cu", closest=3.0)


def test_a_formula_that_only_larger_groups_hold_has_them():
    # groups of 9 to 11 operations do not exist: any group that holds it is taken
    assert random_start("NaCl", seed=1, symmetric=True, operations=(9, 11)).info["spacegroup"] > 1
