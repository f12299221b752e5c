import json

import ase.io
import numpy as np
import pytest
import spglib
import torch
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixConstraint, dict2constraint
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from hypothesis import given
from hypothesis import strategies as st

from asegen.dynamics import AnnealedLangevin
from asegen.errors import CrystalError
from asegen.symmetry import GroupError, SpaceGroup, SymmetryError, crystal_from_sites, space_group, symmetric_crystal
from asegen.symmetry.constraint import LARGEST_STEP
from asegen.symmetry.lattices import conventional_cell
from asegen.symmetry.settings import halls_of, setting
from asegen.testing import OneCrystalCalculator


def perovskite(a=3.9):
    return Atoms(
        "SrTiO3", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], cell=[a] * 3, pbc=True
    )


def alloy():
    """CuAu on two mirror positions of Pnma."""
    cell = conventional_cell("orthorhombic", 130.0, np.array([0.1, 0.2]))
    sites = [("Cu", "4c", (0.18, 0.12)), ("Au", "4c", (0.03, 0.62))]
    atoms, _ = crystal_from_sites("Pnma", sites, cell)
    atoms.set_constraint(SpaceGroup("Pnma", atoms))
    return atoms


def missing_operations(atoms, operations, symprec):
    """Operations of the group that spglib does not find in the crystal, translations modulo the lattice."""
    data = spglib.get_symmetry((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=symprec)
    missing = 0
    for rotation, translation in zip(*operations, strict=True):
        same = (data["rotations"] == rotation).all((1, 2))
        away = data["translations"][same] - translation
        missing += not (np.abs((away - np.rint(away)) @ atoms.cell.array).max(1) < 1e-2).any() if same.any() else 1
    return missing


def number_of(atoms, symprec=1e-4):
    return spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=symprec).number


@given(st.integers(1, 230), st.integers(0, 1000))
def test_the_group_is_found_in_a_rattled_crystal_and_restored_exactly(number, seed):
    group, random = space_group(number), np.random.default_rng(seed)
    sites = [(e, p.label, random.random(p.dof)) for e, p in zip(("Na", "Cl"), (group.positions[0], group.positions[-1]), strict=True)]
    volume = 20.0 * sum(group.position(label).multiplicity for _, label, _ in sites)
    cell = conventional_cell(group.lattice_system, volume, 0.2 * random.normal(size=6))
    for primitive in (True, False):
        exact, _ = crystal_from_sites(group, sites, cell, primitive)
        atoms = exact.copy()
        atoms.rattle(2e-3, seed=seed)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 1e-3 * random.normal(size=(3, 3))), scale_atoms=True)
        constraint = SpaceGroup(number, atoms)
        assert constraint.degrees_of_freedom[0] == sum(group.position(label).dof for _, label, _ in sites)
        assert np.abs(atoms.positions - exact.positions).max() < 0.2
        assert missing_operations(atoms, group.setting.operations(primitive), 1e-4) == 0
        if "standard" in constraint.setting:
            assert sorted(m for _, m in constraint.sites)[0].lstrip("0123456789") in group.letters


def test_every_group_survives_a_thousand_noisy_steps():
    exact = 0
    for number in range(1, 231):
        group, random = space_group(number), np.random.default_rng(number)
        sites, total = [], 0
        for i in random.permutation(len(group.positions)):
            position = group.positions[i]
            if not sites or (total + position.multiplicity_primitive <= 16 and len(sites) < 3):
                sites.append((("Na", "Cl", "O")[len(sites)], position.label, random.random(position.dof)))
                total += position.multiplicity_primitive
        shape = 0.15 * random.normal(size=6)
        cell = conventional_cell(group.lattice_system, 25.0 * total * len(group.setting.centrings), shape)
        atoms, symmetry = crystal_from_sites(group, sites, cell)
        operations = group.setting.operations(primitive=True)
        for symprec in (1e-3, 1e-5):
            assert missing_operations(atoms, operations, symprec) == 0, group
        atoms.set_constraint(SpaceGroup.of_symmetry(group, symmetry, atoms.numbers, [(e, label) for e, label, _ in sites]))
        for step in range(1000):
            atoms.set_positions(atoms.positions + 0.02 * random.normal(size=(len(atoms), 3)))
            if step % 10 == 0:
                atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.01 * random.normal(size=(3, 3))), scale_atoms=True)
        # nothing was lost: all operations of the group, in the places where it was put, whatever else spglib finds
        assert missing_operations(atoms, operations, 1e-5) == 0, group
        exact += number_of(atoms) == number
        moved = atoms.get_scaled_positions(wrap=False)
        assert np.abs(symmetry.positions(torch.from_numpy(moved)).numpy() - moved).max() < 1e-12
        # sites without freedom have not moved at all, except with the cell
        fixed = symmetry.stabilizer.abs().sum((1, 2)) == 0
        still = fixed[symmetry.site].numpy()
        start = crystal_from_sites(group, sites, cell)[0].get_scaled_positions(wrap=False)
        assert np.abs(moved - start)[still].max(initial=0) < 1e-12
    # most sites force no more symmetry than the group has
    assert exact > 150


def test_no_drift_over_many_steps():
    atoms, random = alloy(), np.random.default_rng(0)
    symmetry = atoms.constraints[0].symmetry
    for _ in range(20_000):
        atoms.set_positions(atoms.positions + 0.3 * random.normal(size=atoms.positions.shape))
    frac = atoms.get_scaled_positions(wrap=False)
    assert np.abs(symmetry.positions(torch.from_numpy(frac)).numpy() - frac).max() < 1e-12
    assert np.abs((frac[:, 1] - 0.25) * 2 - np.rint((frac[:, 1] - 0.25) * 2)).max() < 1e-12
    assert np.abs(frac).max() > 1  # they went far


def test_atoms_that_were_pushed_off_their_sites_are_put_back_by_the_next_step():
    atoms = alloy()
    operations = space_group(62).setting.operations(primitive=True)
    atoms.rattle(0.01, seed=0)
    atoms.positions += 0.01 * np.random.default_rng(0).normal(size=(8, 3))  # past the constraints
    assert missing_operations(atoms, operations, 1e-4) > 0
    atoms.set_positions(atoms.positions)
    assert missing_operations(atoms, operations, 1e-5) == 0


def test_wrapping_the_atoms_does_no_harm():
    atoms, random = alloy(), np.random.default_rng(2)
    for _ in range(50):
        atoms.set_positions(atoms.positions + 0.3 * random.normal(size=atoms.positions.shape))
        atoms.wrap()
    assert atoms.get_scaled_positions(wrap=False).min() > -1e-6
    assert missing_operations(atoms, space_group(62).setting.operations(True), 1e-5) == 0


def test_steps_are_projected_linearly_however_large():
    atoms = alloy()
    constraint, before = atoms.constraints[0], atoms.positions.copy()
    step = 30 * np.random.default_rng(0).normal(size=before.shape)
    atoms.set_positions(before + step)
    kept = step.copy()
    constraint.adjust_forces(atoms, kept)
    assert np.allclose(atoms.positions - before, kept)


def test_large_steps_of_the_cell_are_cut_back_and_handedness_is_kept():
    atoms = alloy()
    for factor in (100.0, 1e-6):
        cell = atoms.cell.array.copy()
        atoms.set_cell(cell * factor, scale_atoms=True)
        assert np.allclose(np.abs(np.log(atoms.cell.lengths() / np.linalg.norm(cell, axis=1))), LARGEST_STEP)
    cell = atoms.cell.array.copy()
    atoms.set_cell(-cell, scale_atoms=True)
    assert np.allclose(atoms.cell.array, cell)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    atoms.set_cell(cell @ turn, scale_atoms=True)
    assert np.allclose(atoms.cell.array, cell @ turn)
    with pytest.raises(SymmetryError, match="not a finite number"):
        atoms.set_cell(cell * np.nan, scale_atoms=True)
    tight = perovskite()
    tight.set_constraint(SpaceGroup(221, tight))
    tight.set_cell(np.diag([4.2, 3.9, 3.9]), scale_atoms=True)
    assert np.allclose(tight.cell.cellpar(), [3.9 * (4.2 / 3.9) ** (1 / 3)] * 3 + [90] * 3)


def test_forces_momenta_and_stress_are_group_averages():
    atoms, random = alloy(), np.random.default_rng(1)
    constraint, cell = atoms.constraints[0], atoms.cell.array
    vectors, stress = random.normal(size=(8, 3)), random.normal(size=6)
    rotations, translations = space_group(62).setting.operations(primitive=True)
    frac, mean = atoms.get_scaled_positions(), np.zeros((8, 3))
    for rotation, translation in zip(rotations, translations, strict=True):
        turn = np.linalg.inv(cell) @ rotation.T @ cell  # Cartesian, rows
        for j in range(8):
            away = frac @ np.eye(3) - (rotation @ frac[j] + translation)
            onto = int(np.abs(away - np.rint(away)).max(1).argmin())
            mean[onto] += vectors[j] @ turn / len(rotations)
    for adjust in (constraint.adjust_forces, constraint.adjust_momenta):
        kept = vectors.copy()
        adjust(atoms, kept)
        assert np.allclose(kept, mean)
    constraint.adjust_stress(atoms, stress)
    assert np.allclose(stress[3:], 0)
    assert constraint.get_removed_dof(atoms) == 24 - 4 and constraint.degrees_of_freedom == (4, 3)
    assert atoms.get_number_of_degrees_of_freedom() == 4
    assert isinstance(constraint, FixConstraint)


@pytest.mark.parametrize("optimizer", [FIRE, BFGS])
def test_relaxing_keeps_the_group(optimizer):
    copper = bulk("Cu", "fcc", a=3.3)
    copper.set_constraint(SpaceGroup("Fm-3m", copper))
    low = alloy()
    for atoms, number in ((copper, 225), (low, 62)):
        atoms.calc = EMT()
        operations = space_group(number).setting.operations(primitive=True)
        before = atoms.get_potential_energy()
        assert optimizer(FrechetCellFilter(atoms), logfile=None).run(fmax=0.02, steps=300)
        assert atoms.get_potential_energy() < before - 0.01
        assert missing_operations(atoms, operations, 1e-5) == 0
    assert abs(copper.cell.lengths()[0] * 2**0.5 - 3.59) < 0.02
    assert number_of(copper) == 225


def test_molecular_dynamics_conserves_the_energy_in_the_group():
    atoms = alloy()
    atoms.calc = EMT()
    FIRE(atoms, logfile=None).run(fmax=0.05, steps=200)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    assert atoms.get_kinetic_energy() > 0.01
    energies = []
    dynamics = VelocityVerlet(atoms, 2 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.run(300)
    assert np.ptp(energies) < 0.02 * atoms.get_kinetic_energy() + 2e-3
    assert missing_operations(atoms, space_group(62).setting.operations(True), 1e-5) == 0


def test_thermostatted_dynamics_has_its_temperature_on_the_free_coordinates():
    atoms = alloy()
    atoms.calc = EMT()
    FIRE(atoms, logfile=None).run(fmax=0.05, steps=200)
    dynamics = Langevin(atoms, 4 * units.fs, temperature_K=400, friction=0.05 / units.fs, fixcm=False, rng=np.random.default_rng(0))
    seen = []
    dynamics.run(100)
    dynamics.attach(lambda: seen.append(atoms.get_temperature()))
    dynamics.run(1500)
    assert abs(np.mean(seen) / 400 - 1) < 0.3  # 4 degrees of freedom: the mean of 1,500 steps spreads by 8 %
    assert missing_operations(atoms, space_group(62).setting.operations(True), 1e-5) == 0


def test_generation_in_a_group_ends_at_the_crystal():
    target = perovskite()
    atoms = symmetric_crystal("SrTiO3", "Pm-3m", sites="Sr:1a Ti:1b O:3c", seed=3, volume=80.0)
    atoms.calc = OneCrystalCalculator(target)
    AnnealedLangevin(atoms, seed=0, steps=30).run()
    assert number_of(atoms, 1e-5) == 221
    assert np.allclose(atoms.cell.lengths(), 3.9, atol=0.05)
    low = symmetric_crystal("Cu4Au4", "Pnma", sites="Cu:4c Au:4c", seed=1)
    low.calc = OneCrystalCalculator(alloy())
    AnnealedLangevin(low, seed=0, steps=20).run()
    assert missing_operations(low, space_group(62).setting.operations(True), 1e-5) == 0


def test_files_copies_and_selections(tmp_path):
    atoms = alloy()
    constraint = atoms.constraints[0]
    assert constraint.sites == [("Cu", "4c"), ("Au", "4c")]
    assert repr(constraint) == "SpaceGroup(Pnma (62), Cu:4c Au:4c; standard setting, cell)"
    vectors = np.random.default_rng(0).normal(size=(8, 3))

    def kept(other, rows=slice(None)):
        moved = vectors[rows].copy()
        other.constraints[0].adjust_forces(other, moved)
        return moved

    expected = kept(atoms)
    ase.io.write(tmp_path / "a.traj", [atoms, atoms])
    ase.io.write(tmp_path / "a.json", atoms)
    again = [ase.io.read(tmp_path / "a.traj", index=-1), ase.io.read(tmp_path / "a.json"), atoms.copy()]
    for other in again:
        assert repr(other.constraints[0]) == repr(constraint) and other.constraints[0].group is constraint.group
        assert np.array_equal(kept(other), expected) and np.array_equal(other.positions, atoms.positions)
    back = dict2constraint(json.loads(json.dumps(constraint.todict())))
    assert isinstance(back, SpaceGroup) and back.tolerance == constraint.tolerance and repr(constraint.copy()) == repr(constraint)

    order = np.random.default_rng(1).permutation(8)
    shuffled = atoms[order]
    assert np.allclose(kept(shuffled, order), expected[order])
    gold = atoms[atoms.numbers == 79]
    assert gold.constraints[0].sites == [("Au", "4c")] and np.allclose(kept(gold, slice(4, 8)), expected[4:])
    assert gold.constraints[0].degrees_of_freedom == (2, 3)
    assert atoms[[]].constraints == []
    with pytest.raises(SymmetryError, match="only part of a site, or repeat it \\(Cu on 4c\\)"):
        atoms[1:]
    with pytest.raises(SymmetryError, match="part of a site, or repeat"):
        atoms[[0, 0, 1, 2]]
    with pytest.raises(NotImplementedError, match="set_constraint"):
        atoms.repeat(2)

    atoms.info["spacegroup"] = 62
    ase.io.write(tmp_path / "a.extxyz", atoms)
    plain = ase.io.read(tmp_path / "a.extxyz")
    plain.set_constraint(SpaceGroup(plain.info["spacegroup"], plain))
    assert repr(plain.constraints[0]) == repr(constraint)
    frozen = atoms.copy()
    frozen.set_constraint([SpaceGroup(62, frozen), FixAtoms([0])])
    frozen.set_positions(frozen.positions + 0.1)
    assert np.allclose(frozen.positions[0], atoms.positions[0])


def test_other_settings_are_recognised():
    """A crystal of Fd-3m at origin choice 1, of Pnma in all six choices of axes, of C2/c in its cell choices."""
    for number in (227, 62, 15, 166, 50):
        group = space_group(number)
        for hall in halls_of(number):
            one = setting(hall)
            rotations, translations = one.operations(primitive=False)
            random = np.random.default_rng(hall)
            metric = np.linalg.inv(np.diag([1, 1, 1.0])) + 0.05 * (lambda m: m + m.T)(random.normal(size=(3, 3)))
            metric = (rotations.transpose(0, 2, 1) @ metric @ rotations).mean(0)
            cell = np.linalg.cholesky(metric) * 9
            points = [random.random(3), random.random(3)]
            frac = np.concatenate([rotations @ p + translations for p in points]) % 1
            atoms = Atoms(numbers=np.repeat([11, 17], len(rotations)), scaled_positions=frac, cell=cell, pbc=True)
            constraint = SpaceGroup(number, atoms, tolerance=0.1)
            # the cell on rhombohedral axes is the standard primitive cell
            assert ("standard" in constraint.setting) == (hall == group.hall_number or one.choice == "R"), (number, hall, constraint)
            last = group.positions[-1].label
            assert constraint.sites == [("Na", last), ("Cl", last)]
            assert missing_operations(atoms, (rotations, translations), 1e-4) == 0


def test_supercells_and_odd_origins_are_left_to_spglib_and_given_operations_are_taken():
    shifted = perovskite()
    shifted.positions += [0.7, 0.2, 1.1]
    constraint = SpaceGroup(221, shifted)
    assert "found by spglib" in constraint.setting and constraint.degrees_of_freedom == (0, 1)
    assert [label for _, label in constraint.sites] in (["1a", "1b", "3c"], ["1b", "1a", "3d"])
    big = make_supercell(perovskite(), np.diag([2, 2, 2]))
    constraint = SpaceGroup("Pm-3m", big)
    assert "standard" in constraint.setting and constraint.degrees_of_freedom == (3, 1)  # Pm-3m of the large lattice
    found = spglib.get_symmetry((big.cell.array, big.get_scaled_positions(), big.numbers))
    constraint = SpaceGroup("Pm-3m", big, operations=(found["rotations"], found["translations"]))
    assert constraint.degrees_of_freedom == (0, 1) and sorted(constraint.symmetry.multiplicity.tolist()) == [8, 8, 24]
    assert sorted(label.lstrip("0123456789") for _, label in constraint.sites) in (["a", "b", "c"], ["a", "b", "d"])
    with pytest.raises(SymmetryError, match="keeps only 16 of the 48 rotations of Pm-3m"):
        SpaceGroup("Pm-3m", make_supercell(perovskite(), np.diag([2, 1, 1])))
    atoms = perovskite()
    identity = (np.eye(3)[None], np.zeros((1, 3)))
    assert SpaceGroup("P1", atoms, operations=identity).degrees_of_freedom == (15, 6)
    with pytest.raises(SymmetryError, match="not a group modulo the lattice"):
        SpaceGroup("P4", atoms, operations=(np.array([[[0, -1, 0], [1, 0, 0], [0, 0, 1]]]), np.zeros((1, 3))))
    shifted.positions[0] += [0.5, 0.1, 0]
    with pytest.raises(SymmetryError, match="does not have the operations given: atoms off"):
        SpaceGroup(221, shifted, operations=space_group(221).setting.operations(True))


def test_what_contradicts_is_said():
    with pytest.raises(GroupError, match="no space group 231"):
        SpaceGroup(231, perovskite())
    with pytest.raises(SymmetryError, match="needs the crystal"):
        SpaceGroup(221)
    with pytest.raises(SymmetryError, match="tolerance = 0 Å must be positive"):
        SpaceGroup(221, perovskite(), tolerance=0)
    stretched = perovskite()
    stretched.set_cell([3.9, 3.9, 4.9], scale_atoms=True)
    with pytest.raises(
        SymmetryError, match=r"its cell a, b, c = 3.900, 3.900, 4.900 Å.*cubic conventional cell has a = b = c.*P4/mmm \(123\)"
    ):
        SpaceGroup("Pm-3m", stretched)
    moved = perovskite()
    moved.positions[1] += [0.0, 0.9, 0.3]
    with pytest.raises(SymmetryError, match=r"atoms off the images of their partners by more than 0.3 Å: Ti1 1.\d\d Å"):
        SpaceGroup("Pm-3m", moved)
    with pytest.raises(SymmetryError, match=r"Pn-3n.*spglib finds Pm-3m \(221\)"):
        SpaceGroup("Pn-3n", perovskite())
    twins = Atoms("H2", scaled_positions=[[0, 0, 0], [0.02, 0, 0]], cell=[4] * 3, pbc=True)
    with pytest.raises(SymmetryError, match="sites collide: an operation takes both H0 and H1 to H"):
        SpaceGroup("Pm-3m", twins)
    shared = perovskite()
    shared.info["occupancy"] = {"0": {"Sr": 0.5, "Ba": 0.5}, "1": {"Ti": 1.0}}
    with pytest.raises(SymmetryError, match=r"site 0 is occupied by fractions of atoms \(Sr 0\.5, Ba 0\.5"):
        SpaceGroup("Pm-3m", shared)
    shared.info["occupancy"] = {"0": {"Sr": 1.0}}
    assert SpaceGroup("Pm-3m", shared).group.number == 221
    with pytest.raises(CrystalError, match="not periodic"):
        SpaceGroup(1, Atoms("H", cell=[3] * 3))
    atoms = perovskite()
    constraint = SpaceGroup(221, atoms)
    with pytest.raises(SymmetryError, match="set for 5 atoms, the crystal has 4"):
        constraint.adjust_forces(atoms, np.zeros((4, 3)))
    with pytest.raises(SymmetryError, match="do not belong"):
        SpaceGroup.of_symmetry(constraint.group, constraint.symmetry, atoms.numbers[:4], constraint.sites)
