import io

import ase.io
import numpy as np
import pytest
from ase.constraints import FixAtoms, FixSymmetry

from asegen import AnnealedLangevin, ReverseODE, ScoreCalculator, Walk, generate, random_crystal
from asegen.errors import AsegenError, CrystalError
from asegen.report import space_group
from asegen.testing import OneCrystalCalculator


def distance(a, b) -> float:
    delta = a.get_scaled_positions(wrap=False) - b.get_scaled_positions(wrap=False)
    return max(np.abs(delta - np.round(delta)).max(), np.abs(a.cell.array - b.cell.array).max())


@pytest.mark.parametrize("formula", ["SrTiO3", "NaCl", "Li2O"])
def test_the_dynamics_is_the_batched_driver(small, formula):
    crystals = generate(formula, n=3, units=1, seed=4, checkpoint=small)
    for expected in crystals[1:]:
        seed = expected.info["seed"]
        atoms = random_crystal(formula, seed=seed)
        atoms.calc = ScoreCalculator(small)
        assert AnnealedLangevin(atoms, seed=seed).run()
        assert distance(atoms, expected) < 1e-5


def test_with_correctors_too(small):
    from asegen.checkpoint import Checkpoint

    walk = Walk(5, 2, 0.7, 0.15)
    header = {**small.header, "walk": vars(walk)}
    checkpoint = Checkpoint(small.system, header, small.hash)
    expected = generate("NaCl", n=1, units=1, seed=1, checkpoint=checkpoint)[0]
    atoms = random_crystal("NaCl", seed=expected.info["seed"])
    atoms.calc = ScoreCalculator(small)
    AnnealedLangevin(atoms, walk=walk).run()
    assert distance(atoms, expected) < 1e-5


def test_an_exact_score_leads_back_to_the_crystal(rocksalt):
    atoms = random_crystal("NaCl", seed=3)
    atoms.calc = OneCrystalCalculator(rocksalt)
    AnnealedLangevin(atoms, seed=3, steps=40).run()
    delta = atoms.get_scaled_positions(wrap=False) - rocksalt.get_scaled_positions(wrap=False)
    assert np.abs(delta - np.round(delta)).max() < 1e-6
    assert np.allclose(atoms.cell.cellpar(), rocksalt.cell.cellpar(), rtol=1e-6)


def test_the_ode_does_not_depend_on_the_seed_but_the_sde_does(rocksalt, small):
    ends = []
    for cls, seed in ((ReverseODE, 1), (ReverseODE, 2), (AnnealedLangevin, 1), (AnnealedLangevin, 2)):
        atoms = random_crystal("NaCl", seed=0)
        atoms.calc = ScoreCalculator(small)
        cls(atoms, seed=seed).run()
        ends.append(atoms)
    assert distance(ends[0], ends[1]) == 0
    assert distance(ends[2], ends[3]) > 1e-3


def test_a_restarted_run_comes_to_the_same_end(small, tmp_path):
    def start():
        atoms = random_crystal("SrTiO3", seed=9)
        atoms.calc = ScoreCalculator(small)
        return atoms

    whole = start()
    AnnealedLangevin(whole, trajectory=tmp_path / "whole.traj").run()
    AnnealedLangevin(start(), trajectory=tmp_path / "part.traj").run(3)
    again = AnnealedLangevin.restart(tmp_path / "part.traj", ScoreCalculator(small))
    assert again.nsteps == 3
    assert again.run()
    assert distance(again.atoms, whole) < 1e-10
    frames, expected = (ase.io.read(tmp_path / name, index=":") for name in ("part.traj", "whole.traj"))
    assert [f.info["step"] for f in frames] == [f.info["step"] for f in expected] == list(range(7))


def test_restart_refuses_foreign_trajectories(small, small_equivariant, tmp_path, rocksalt):
    ase.io.write(tmp_path / "foreign.traj", rocksalt)
    with pytest.raises(AsegenError, match="not written by AnnealedLangevin"):
        AnnealedLangevin.restart(tmp_path / "foreign.traj", ScoreCalculator(small))
    rocksalt.calc = ScoreCalculator(small)
    AnnealedLangevin(rocksalt, seed=0, trajectory=tmp_path / "mine.traj").run(1)
    with pytest.raises(AsegenError, match="made with checkpoint"):
        AnnealedLangevin.restart(tmp_path / "mine.traj", ScoreCalculator(small_equivariant))


def test_frames_say_where_they_come_from(small, tmp_path):
    atoms = random_crystal("NaCl", seed=2)
    atoms.calc = ScoreCalculator(small)
    log = io.StringIO()
    seen = []
    dynamics = AnnealedLangevin(atoms, trajectory=tmp_path / "t.traj", logfile=log)
    dynamics.attach(lambda: seen.append(dynamics.sigma), interval=2)
    steps = list(dynamics.irun())
    assert steps == [False] * 6 + [True]
    assert len(seen) == 4 and seen[-1] == 0 and seen == sorted(seen, reverse=True)
    assert len(log.getvalue().splitlines()) == 8
    frame = ase.io.read(tmp_path / "t.traj", index=3)
    assert {"seed", "step", "sigma", "checkpoint", "checkpoint_hash"} <= set(frame.info)
    assert frame.info["seed"] == 2 and frame.info["checkpoint_hash"] == small.hash


def test_log_and_frames_show_the_score_of_the_crystal_as_it_stands(small, tmp_path, monkeypatch):
    calls = []
    original = type(small.system).scores
    monkeypatch.setattr(type(small.system), "scores", lambda *a, **k: calls.append(1) or original(*a, **k))
    atoms = random_crystal("NaCl", seed=2)
    atoms.calc = ScoreCalculator(small)
    log = io.StringIO()
    AnnealedLangevin(atoms, trajectory=tmp_path / "t.traj", logfile=log, walk=Walk(4, 1)).run()
    assert len(calls) == Walk(4, 1).calls  # shown and used, computed once
    shown = [line.split()[2] for line in log.getvalue().splitlines()[1:]]
    frames = ase.io.read(tmp_path / "t.traj", index=":")
    assert shown[-1] == "-" and "forces" not in frames[-1].calc.results  # no noise level, no score
    for value, frame in zip(shown[:-1], frames[:-1], strict=True):
        there = frame.copy()
        there.calc = ScoreCalculator(small, sigma=frame.info["sigma"])
        assert np.allclose(frame.get_forces(), there.get_forces(), rtol=1e-4, atol=1e-6)
        largest = np.linalg.norm(there.get_forces(), axis=1).max()
        assert float(value) == pytest.approx(largest * frame.info["sigma"], rel=1e-3, abs=1e-4)


def test_fixed_atoms_and_their_cell_stay(small):
    atoms = random_crystal("SrTiO3", seed=1)
    atoms.set_constraint(FixAtoms([0, 3]))
    before = atoms.copy()
    atoms.calc = ScoreCalculator(small)
    AnnealedLangevin(atoms).run()
    moved = np.abs(atoms.positions - before.positions).max(axis=1)
    assert (moved[[0, 3]] < 1e-12).all() and (moved[[1, 2, 4]] > 1e-3).all()
    assert (atoms.cell.array == before.cell.array).all()


def test_fix_symmetry_keeps_the_group(small, rocksalt):
    atoms = rocksalt * (1, 1, 1)
    atoms.set_constraint(FixSymmetry(atoms))
    atoms.calc = ScoreCalculator(small)
    AnnealedLangevin(atoms, seed=0).run()
    assert abs(atoms.get_volume() / rocksalt.get_volume() - 1) > 1e-3  # it did move
    bare = atoms.copy()
    bare.set_constraint()
    assert space_group(bare, symprec=1e-4) == 225


def test_what_cannot_be_annealed_says_so(small, rocksalt):
    from ase.calculators.emt import EMT

    with pytest.raises(AsegenError, match="no calculator"):
        AnnealedLangevin(rocksalt)
    rocksalt.calc = EMT()
    with pytest.raises(AsegenError, match="EMT has no noise level"):
        AnnealedLangevin(rocksalt)
    rocksalt.calc = ScoreCalculator(small)
    with pytest.raises(ValueError, match="steps = 0"):
        AnnealedLangevin(rocksalt, steps=0)
    rocksalt.set_cell([0, 0, 0])
    with pytest.raises(CrystalError, match="without volume"):
        AnnealedLangevin(rocksalt)


def test_a_score_that_is_not_finite_stops_the_walk(rocksalt):
    class Broken(OneCrystalCalculator):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = self.results["forces"] * np.nan

    rocksalt.calc = Broken(rocksalt)
    with pytest.raises(CrystalError, match="not finite at sigma"):
        AnnealedLangevin(rocksalt, seed=0, steps=5).run()
