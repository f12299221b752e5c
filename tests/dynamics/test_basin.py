import io
import json
import math

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixedLine
from ase.optimize import BFGS, FIRE

from asegen import CrystalBasinHopping, EADCalculator, ScoreCalculator, SpaceGroup
from asegen.descriptors import EAD
from asegen.dynamics import Moves
from asegen.dynamics.moves import KINDS
from asegen.errors import AsegenError, NoEnergyError
from asegen.testing import OneCrystalCalculator

ONLY = {kind: Moves(**{**dict.fromkeys(KINDS, 0.0), kind: 1.0}) for kind in KINDS}


class Landscape(Calculator):
    """An energy that is a function of the atoms, without forces."""

    implemented_properties = ["energy"]

    def __init__(self, function):
        super().__init__()
        self.function = function

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = self.function(self.atoms)


def alloy() -> Atoms:
    """Cu and Au in layers of a small cell, mixed."""
    atoms = bulk("Cu", cubic=True, a=3.9) * (1, 1, 2)
    atoms.symbols[[0, 2, 5, 7]] = "Au"
    return atoms


def toy(function, temperature=1.0, moves=ONLY["displace"], **options) -> CrystalBasinHopping:
    atoms = Atoms("HeNe", cell=[4, 4, 4], positions=[[0, 0, 0], [2, 2, 2]], pbc=True)
    atoms.calc = Landscape(function)
    return CrystalBasinHopping(atoms, seed=3, temperature=temperature, moves=moves, optimizer=None, **options)


@pytest.fixture
def small_crystal() -> Atoms:
    return Atoms("MgO2Al", scaled_positions=[[0, 0, 0], [0.7, 0.6, 0.0], [0.5, 0.1, 0.6], [0.3, 0.3, 0.1]], cell=[3.8, 4.1, 4.6], pbc=True)


def test_a_crystal_is_rebuilt_from_random_positions(small_crystal):
    atoms = small_crystal[[0, 3, 1, 2]]
    atoms.set_scaled_positions(np.random.default_rng(0).random((4, 3)))
    atoms.calc = EADCalculator(small_crystal, EAD((0, 1, 2, 3), tuple((1.0, 1.0 + 0.8 * k) for k in range(6)), 5.5, True))
    hopping = CrystalBasinHopping(atoms, seed=0, temperature=0.002, fmax=2e-4, relax_steps=80, converged=1e-4)
    assert hopping.run(40) and hopping.converged and hopping.nsteps < 40
    assert hopping.best_energy < 1e-4
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor as adaptor

    assert StructureMatcher().fit(adaptor.get_structure(hopping.best), adaptor.get_structure(small_crystal))
    assert hopping.best.get_potential_energy() == hopping.best_energy


def test_swaps_order_an_alloy():
    """Every arrangement of 4 Cu and 4 Au is tried by brute force; swaps alone find the best."""
    from itertools import combinations

    atoms = alloy()
    energies = []
    for gold in combinations(range(1, 8), 3):
        other = atoms.copy()
        other.symbols[:] = "Cu"
        other.symbols[[0, *gold]] = "Au"
        other.calc = EMT()
        energies.append(other.get_potential_energy())
    atoms.calc = EMT()
    hopping = CrystalBasinHopping(atoms, seed=1, temperature=0.05, moves=ONLY["swap"], optimizer=None)
    hopping.run(60)
    assert hopping.best_energy == pytest.approx(min(energies), abs=1e-6)
    assert hopping.best.get_chemical_formula() == atoms.get_chemical_formula() == "Au4Cu4"
    assert hopping.counts["swap"].tried == 60 and hopping.counts["displace"].tried == 0


def test_the_cell_is_found_too():
    atoms = bulk("Cu", cubic=True, a=3.9)
    atoms.rattle(0.2, seed=1)
    atoms.calc = EMT()
    moves = Moves(relocate=0.0, step=0.5)
    hopping = CrystalBasinHopping(atoms, seed=0, cell=True, temperature=0.05, fmax=0.01, moves=moves, relax_steps=60)
    hopping.run(3)
    assert hopping.counts["strain"].tried + hopping.counts["displace"].tried == 3
    assert hopping.best.get_volume() / 4 == pytest.approx(11.565, abs=0.02)  # EMT's copper
    # a cell that is not asked for stays
    fixed = bulk("Cu", cubic=True, a=3.9)
    fixed.calc = EMT()
    CrystalBasinHopping(fixed, seed=0, relax_steps=3).run(4)
    assert np.array_equal(fixed.cell.array, np.eye(3) * 3.9)


def test_the_seed_decides(small_crystal):
    runs = []
    for seed in (1, 1, 2):
        atoms = small_crystal.copy()
        atoms.calc = EADCalculator(small_crystal)
        runs.append(CrystalBasinHopping(atoms, seed=seed, relax_steps=10, temperature=10.0))
        runs[-1].run(4)
    same, again, other = (run.atoms.positions for run in runs)
    assert np.array_equal(same, again) and not np.allclose(same, other)
    assert runs[0].counts == runs[1].counts
    # from the crystal, where it has one
    small_crystal.info["seed"] = 77
    small_crystal.calc = EADCalculator(small_crystal)
    assert CrystalBasinHopping(small_crystal).seed == 77


@pytest.mark.parametrize("cell", [False, True])
def test_an_interrupted_run_is_the_whole_run(small_crystal, tmp_path, cell):
    def start():
        atoms = small_crystal.copy()
        atoms.rattle(0.3, seed=1)
        atoms.set_constraint(FixAtoms([0]))
        atoms.calc = EADCalculator(small_crystal)
        return atoms

    options = {"seed": 5, "relax_steps": 8, "temperature": 0.3, "cell": cell, "optimizer": BFGS, "optimizer_options": {"maxstep": 0.1}}
    whole = CrystalBasinHopping(start(), trajectory=str(tmp_path / "whole.traj"), **options)
    whole.run(8)
    state, log = tmp_path / "state.json", io.StringIO()
    CrystalBasinHopping(start(), trajectory=str(tmp_path / "parts.traj"), restart_file=state, **options).run(3)
    for steps in (0, 3, 2):
        part = CrystalBasinHopping.restart(state, EADCalculator(small_crystal), trajectory=str(tmp_path / "parts.traj"), logfile=log)
        part.run(steps)
    assert part.nsteps == 8 and len(log.getvalue().splitlines()) == 5
    assert np.array_equal(part.atoms.positions, whole.atoms.positions) and np.array_equal(part.atoms.cell.array, whole.atoms.cell.array)
    assert np.array_equal(part.best.positions, whole.best.positions)
    assert (part.energy, part.best_energy, part.counts) == (whole.energy, whole.best_energy, whole.counts)
    frames = [ase.io.read(tmp_path / name, index=":") for name in ("whole.traj", "parts.traj")]
    assert [len(f) for f in frames] == [9, 9]
    for a, b in zip(*frames, strict=True):
        assert np.array_equal(a.positions, b.positions) and a.info == b.info
        assert a.get_potential_energy() == b.get_potential_energy()
    assert json.loads(state.read_text())["nsteps"] == 8 and not list(tmp_path.glob("*.part"))


def test_restart_files_that_do_not_fit(small_crystal, tmp_path):
    class Own(BFGS):
        pass

    small_crystal.calc = EADCalculator(small_crystal)
    state = tmp_path / "state.json"
    CrystalBasinHopping(small_crystal, seed=0, relax_steps=1, optimizer=Own, restart_file=state).run(1)
    with pytest.raises(AsegenError, match="with the optimizer Own"):
        CrystalBasinHopping.restart(state, small_crystal.calc)
    assert CrystalBasinHopping.restart(state, small_crystal.calc, optimizer=Own).nsteps == 1
    for text in ("{}", "not json", '{"settings": {}, "counts": {}}', "[1]"):
        state.write_text(text)
        with pytest.raises(AsegenError, match="no restart file of CrystalBasinHopping, or it is damaged"):
            CrystalBasinHopping.restart(state, small_crystal.calc)


def test_acceptance_of_two_states():
    """Half the moves lead to each of two states: the upper one is entered with exp(−ΔE/T), and visited in proportion."""
    gap, temperature = 0.7, 0.5
    hopping = toy(lambda atoms: gap * (atoms.positions[0, 0] % 1.0 > 0.5), temperature, Moves(1, 0, 0, 0, step=50.0))
    visits = []
    hopping.attach(lambda: visits.append(hopping.energy > 0))
    hopping.run(2000)
    boltzmann = math.exp(-gap / temperature)
    below = 1 / (1 + boltzmann)
    assert np.mean(visits) == pytest.approx(1 - below, abs=0.04)
    assert hopping.acceptance == pytest.approx(1 - below * 0.5 * (1 - boltzmann), abs=0.04)
    count = hopping.counts["displace"]
    assert count.tried == 2000 and count.failed == 0 and count.accepted + count.rejected == 2000
    cold = toy(lambda atoms: gap * (atoms.positions[0, 0] % 1.0 > 0.5), 0.0, Moves(1, 0, 0, 0, step=50.0))
    cold.run(50)
    assert cold.energy == 0.0 and cold.counts["displace"].rejected > 10


def test_hops_that_fail_are_counted_and_taken_back():
    calls = iter(range(1000))

    def energy(atoms):
        number = next(calls)
        if number < 1:
            return 1.0  # the start
        if number % 3 == 0:
            raise RuntimeError("the calculator is out of order")
        return [math.nan, math.inf][number % 2]

    log = io.StringIO()
    hopping = toy(energy, logfile=log)
    before = hopping.atoms.positions.copy()
    hopping.run(9)
    assert hopping.counts["displace"].failed == 9 and hopping.nsteps == 9
    assert np.array_equal(hopping.atoms.positions, before) and hopping.energy == 1.0
    assert math.isnan(hopping.trial_energy) and hopping.outcome == "failed" and hopping.last_error
    assert "RuntimeError: the calculator is out of order" in log.getvalue() and len(log.getvalue().splitlines()) == 11
    hopping.atoms.calc.function = lambda atoms: 0.5  # in order again
    hopping.run(1)
    assert hopping.outcome == "accepted" and hopping.best_energy == 0.5


def test_a_cell_turned_inside_out_is_a_failure(small_crystal):
    class Inverting(FIRE):
        def run(self, *args, **kwargs):
            started.append(1)
            if len(started) > 1:
                self.atoms.atoms.set_cell(-self.atoms.atoms.cell.array, scale_atoms=True)
            return True

    started = []
    small_crystal.calc = EADCalculator(small_crystal)
    hopping = CrystalBasinHopping(small_crystal, seed=0, optimizer=Inverting, cell=True)
    cell = small_crystal.cell.array.copy()
    hopping.run(3)
    assert sum(count.failed for count in hopping.counts.values()) == 3 and "inside out" in hopping.last_error
    assert np.array_equal(small_crystal.cell.array, cell)


def test_an_interruption_leaves_the_crystal_as_it_was():
    calls = iter(range(10))

    def energy(atoms):
        if next(calls) > 0:
            raise KeyboardInterrupt
        return 0.0

    hopping = toy(energy)
    before = hopping.atoms.positions.copy()
    with pytest.raises(KeyboardInterrupt):
        hopping.run(3)
    assert np.array_equal(hopping.atoms.positions, before)


def test_constraints_hold_in_every_frame(small_crystal, tmp_path):
    atoms = small_crystal.copy()
    atoms.set_constraint(FixAtoms([0, 3]))
    atoms.calc = EADCalculator(small_crystal[[0, 3, 1, 2]])
    frames = []
    hopping = CrystalBasinHopping(atoms, seed=0, temperature=5.0, relax_steps=5)
    hopping.attach(lambda: frames.append(atoms.positions.copy()))
    hopping.run(8)
    frames = np.array(frames)
    assert np.array_equal(frames[:, [0, 3]], np.repeat(frames[:1, [0, 3]], 9, axis=0))
    assert np.ptp(frames[:, [1, 2]], axis=0).min() > 0.1
    assert hopping.counts["swap"].tried == 0  # only the two oxygens are free
    with pytest.raises(AsegenError, match="no move is left"):
        atoms.set_constraint(FixAtoms([0, 1, 2, 3]))
        CrystalBasinHopping(atoms)
    # swaps that another constraint does not allow are failures
    atoms.set_constraint([FixedLine(i, [0, 0, 1]) for i in range(4)])
    hopping = CrystalBasinHopping(atoms, seed=0, moves=ONLY["swap"], optimizer=None)
    hopping.run(3)
    assert hopping.counts["swap"].failed == 3 and "does not let" in hopping.last_error


def test_a_space_group_is_kept_and_its_sites_are_swapped():
    """Perovskite with A and B exchanged and the oxygens elsewhere: found, in the group at every hop."""
    perovskite = Atoms("SrTiO3", cell=[3.9] * 3, pbc=True)
    perovskite.set_scaled_positions([[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    start = perovskite[[1, 0, 2, 3, 4]]
    start.symbols[:2] = "SrTi"  # on the other's place
    start.set_constraint(SpaceGroup("Pm-3m", start))
    start.calc = EADCalculator(perovskite)
    hopping = CrystalBasinHopping(start, seed=0, moves=ONLY["swap"], converged=1e-8, relax_steps=5)
    assert hopping.run(5)
    assert {label: element for element, label in start.constraints[0].sites} in (
        {"1a": "Sr", "1b": "Ti", "3c": "O"},
        {"1b": "Sr", "1a": "Ti", "3d": "O"},
    )
    # a group with free parameters: a relocated atom takes its partners along
    free = Atoms("SrO2", cell=[4, 4, 5], pbc=True, scaled_positions=[[0, 0, 0], [0, 0, 0.3], [0, 0, 0.7]])
    free.set_constraint(SpaceGroup("P4/mmm", free))
    free.calc = EADCalculator(free.copy())
    heights = []
    hopping = CrystalBasinHopping(free, seed=0, moves=ONLY["relocate"], temperature=100.0, relax_steps=2)
    hopping.attach(lambda: heights.append(free.get_scaled_positions(wrap=False)))
    hopping.run(8)
    heights = np.array(heights)
    np.testing.assert_allclose(heights[:, :, :2], 0.0, atol=1e-9)
    total = (heights[:, 1, 2] + heights[:, 2, 2]) % 1
    np.testing.assert_allclose(np.minimum(total, 1 - total), 0.0, atol=1e-9)
    assert np.ptp(heights[:, 1, 2]) > 0.1


def test_strains_keep_a_space_group():
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(SpaceGroup("Fm-3m", atoms))
    atoms.calc = EMT()
    hopping = CrystalBasinHopping(atoms, seed=0, cell=True, moves=ONLY["strain"], optimizer=None, temperature=100.0)
    lengths = []
    hopping.attach(lambda: lengths.append(atoms.cell.cellpar()))
    hopping.run(4)
    lengths = np.array(lengths)
    np.testing.assert_allclose(lengths[:, 1:3], lengths[:, :1].repeat(2, axis=1))
    np.testing.assert_allclose(lengths[:, 3:], 90.0)
    assert np.ptp(lengths[:, 0]) > 0.01


def test_observers_log_and_trajectory(small_crystal, tmp_path):
    small_crystal.calc = EADCalculator(small_crystal)
    seen, sparse, log = [], [], io.StringIO()
    path = str(tmp_path / "basin.traj")
    hopping = CrystalBasinHopping(small_crystal, seed=0, temperature=0.0, relax_steps=3, trajectory=path, logfile=log)
    hopping.attach(lambda: seen.append((hopping.nsteps, hopping.move, hopping.outcome, hopping.energy)))
    hopping.attach(sparse.append, 2, "called")
    flags = list(hopping.irun(4))
    hopping.run(0)
    assert flags == [False] * 5 and [s[0] for s in seen] == [0, 1, 2, 3, 4] and len(sparse) == 3
    assert len(log.getvalue().splitlines()) == 6
    frames = ase.io.read(path, index=":")
    for frame, (number, move, outcome, energy) in zip(frames, seen, strict=True):
        assert frame.info == {"seed": 0, "hop": number, "move": move, "outcome": outcome}
        assert frame.get_potential_energy() == energy
    assert seen[0][1:3] == ("start", "accepted") and {s[2] for s in seen[1:]} == {"rejected"}


def test_calculators_without_an_energy(rocksalt, small):
    for calc in (OneCrystalCalculator(rocksalt), ScoreCalculator(small)):
        rocksalt.calc = calc
        with pytest.raises(NoEnergyError, match="has no energy, so hops cannot be compared"):
            CrystalBasinHopping(rocksalt)
    rocksalt.calc = None
    with pytest.raises(AsegenError, match="no calculator"):
        CrystalBasinHopping(rocksalt)

    def refuses(atoms):
        raise PropertyNotImplementedError

    with pytest.raises(NoEnergyError, match="Landscape has no energy"):
        toy(refuses).run(1)
    with pytest.raises(AsegenError, match="energy of the start is nan"):
        toy(lambda atoms: math.nan).run(1)


def test_options_that_make_no_sense():
    for options, words in (({"temperature": -1.0}, "temperature"), ({"fmax": 0.0}, "fmax"), ({"relax_steps": -1}, "relax_steps")):
        with pytest.raises(ValueError, match=words):
            toy(lambda atoms: 0.0, **options)
    with pytest.raises(ValueError, match="at least 0"):
        Moves(swap=-1.0)
    with pytest.raises(AsegenError, match="no move is left"):
        toy(lambda atoms: 0.0, moves=ONLY["strain"])  # the cell is not asked for
