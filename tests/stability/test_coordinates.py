"""Coordinates of a crystal as one vector: derivatives against finite differences, symmetry, ASE's own filter."""

from itertools import pairwise

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE
from hypothesis import given, settings
from hypothesis import strategies as st

from asegen.errors import StabilityError
from asegen.stability.coordinates import CrystalCoordinates
from asegen.stability.quasi_newton import TrustBFGS
from asegen.stability.symmetrize import exact_group
from asegen.symmetry import SpaceGroup


def alloy(rattle=0.05, seed=0, strain=0.03):
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Au"
    rng = np.random.default_rng(seed)
    atoms.rattle(rattle, seed=seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, strain, (3, 3))), scale_atoms=True)
    atoms.calc = EMT()
    return atoms


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), size=st.floats(0.0, 0.3))
def test_the_gradient_is_the_derivative_of_the_energy(seed, size):
    crystal = CrystalCoordinates(alloy(seed=seed))
    rng = np.random.default_rng(seed)
    x = rng.normal(0, size, crystal.ndofs())
    crystal.set_x(x)
    gradient = crystal.get_gradient()
    for direction in rng.normal(size=(2, len(x))):
        direction /= np.linalg.norm(direction)
        values = []
        for h in (-1e-4, 1e-4):
            crystal.set_x(x + h * direction)
            values.append(crystal.get_value())
        assert (values[1] - values[0]) / 2e-4 == pytest.approx(gradient @ direction, abs=2e-5)


def test_number_of_coordinates():
    atoms = alloy()
    assert CrystalCoordinates(atoms).ndofs() == 3 * 4 - 3 + 6
    assert CrystalCoordinates(atoms, cell=False).ndofs() == 3 * 4 - 3
    atoms.set_constraint(FixAtoms([0, 1]))
    assert CrystalCoordinates(atoms).ndofs() == 6 + 6
    cubic = bulk("Cu", cubic=True)
    cubic.symbols[0] = "Au"
    cubic.calc = EMT()
    group = exact_group(cubic)
    assert group is not None and group.group.number == 221
    assert CrystalCoordinates(cubic).ndofs() == 1  # the lattice constant


@pytest.mark.parametrize("number, sites", [(62, "Cu:4c Au:4a"), (160, "Cu:9b Au:3a,3a"), (14, "Cu:4e Au:2a")])
def test_steps_keep_the_group_and_count_its_freedom(number, sites):
    from asegen import random_crystal

    atoms = random_crystal(spacegroup=number, sites=sites, seed=3)
    atoms.calc = EMT()
    group = atoms.constraints[0]
    crystal = CrystalCoordinates(atoms)
    inside, cell = group.degrees_of_freedom
    polar = {62: 0, 160: 1, 14: 0}[number]  # in a polar group the origin is free along the axis; that is no coordinate here
    assert crystal.ndofs() == inside - polar + cell
    rng = np.random.default_rng(0)
    crystal.set_x(rng.normal(0, 0.05, crystal.ndofs()))
    moved = atoms.copy()
    group.snap(moved)
    assert np.abs(moved.positions - atoms.positions).max() < 1e-8 and np.abs(moved.cell.array - atoms.cell.array).max() < 1e-8
    force, stress = crystal.residuals()
    free = np.linalg.norm(atoms.get_forces(), axis=1).max()  # ASE's view through the same constraint, with the common translation
    assert force <= free + 1e-9
    assert stress == pytest.approx(np.abs(atoms.get_stress()).max(), abs=1e-9)


def test_fixed_atoms_keep_their_fractional_coordinates():
    atoms = alloy()
    atoms.set_constraint(FixAtoms([2]))
    before = atoms.get_scaled_positions()[2]
    TrustBFGS(CrystalCoordinates(atoms)).run(fmax=1e-3, steps=50)
    assert np.allclose(atoms.get_scaled_positions()[2], before, atol=1e-12)


def test_other_constraints_are_refused():
    atoms = alloy()
    atoms.set_constraint(FixBondLength(0, 1))
    with pytest.raises(StabilityError, match="FixBondLengths is not known here"):
        CrystalCoordinates(atoms)


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_optimizers_of_ase_run_on_it_and_find_the_minimum_that_ase_finds(optimizer):
    ours, theirs = alloy(seed=4), alloy(seed=4)
    optimizer(CrystalCoordinates(ours), logfile=None).run(fmax=1e-3, steps=400)
    BFGS(FrechetCellFilter(theirs), logfile=None).run(fmax=1e-3, steps=400)
    assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-4)
    assert np.allclose(ours.cell.cellpar(), theirs.cell.cellpar(), atol=0.02)


def test_trust_bfgs_needs_fewer_calls_than_ase_and_never_ends_higher():
    counts = []
    for seed in range(5):
        ours, theirs = alloy(seed=seed), alloy(seed=seed)
        start = ours.get_potential_energy()
        crystal = CrystalCoordinates(ours)
        TrustBFGS(crystal).run(fmax=1e-3, steps=200)
        filtered = FrechetCellFilter(theirs)
        steps = BFGS(filtered, logfile=None)
        steps.run(fmax=1e-3, steps=200)
        counts.append((crystal.calls, steps.nsteps))
        assert ours.get_potential_energy() < start
    assert sum(a for a, _ in counts) < sum(b for _, b in counts)


def test_a_step_uphill_is_taken_back():
    atoms = alloy(rattle=0.3, seed=1)
    crystal = CrystalCoordinates(atoms)
    optimizer = TrustBFGS(crystal)
    kept = []
    for _ in range(40):
        optimizer.step()
        kept.append(optimizer._best[1])
    assert all(b <= a + 1e-4 for a, b in pairwise(kept))


def test_the_group_of_a_constraint_is_not_looked_for_again():
    atoms = bulk("Cu", cubic=True)
    group = SpaceGroup("P4/mmm", atoms)
    atoms.set_constraint(group)
    assert exact_group(atoms) is atoms.constraints[0]
