from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from asegen import AnnealedLangevin, CrystalBatch, ReverseODE, ScoreCalculator, Walk, generate, random_crystal
from asegen.checkpoint import load_checkpoint
from asegen.contacts import closest_contact, too_close
from asegen.dynamics.batched import sample
from asegen.dynamics.rules import TIME_MAX, State, StepNoise, StepScores, correct, draw_noise, noise_of_step, predict
from asegen.dynamics.symmetric import Projection, blur, hold
from asegen.generation import refining_walk, request_of
from asegen.kernels import Schedule
from asegen.prior import lattice_coordinates
from asegen.report import space_group as group_of
from asegen.starts import constrained, make_starts
from asegen.symmetry import Symmetry, crystal_from_sites, space_group
from asegen.symmetry.apart import BOUND
from asegen.symmetry.lattices import DIMENSIONS, conventional_cell

SCHEDULE = Schedule()


def drawn(number: int, seed: int):
    """A crystal on one or two positions of a group: its sites with parameters, volume and shape of the conventional cell."""
    group, random = space_group(number), np.random.default_rng(seed)
    small = [p for p in group.positions if p.multiplicity_primitive <= 24]
    chosen = [small[-1], small[random.integers(len(small))]]
    if chosen[1].dof == 0 and chosen[1] is chosen[0]:
        chosen.pop()
    sites = [(e, p.letter, 0.1 + 0.8 * random.random(p.dof)) for e, p in zip(("Na", "Cl"), chosen, strict=False)]
    atoms = sum(p.multiplicity for p in chosen)
    return group, sites, 18.0 * atoms, 0.15 * random.normal(size=DIMENSIONS[group.lattice_system] - 1)


def build(group, sites, volume, shape):
    return crystal_from_sites(group, sites, conventional_cell(group.lattice_system, volume, shape))


def moved(sites, values):
    """The sites with other parameters, given as one vector."""
    bounds = np.cumsum([0, *(len(p) for *_, p in sites)])
    return [(e, letter, values[lo:hi]) for (e, letter, _), lo, hi in zip(sites, bounds[:-1], bounds[1:], strict=True)]


def parameter_directions(group, sites, volume, shape) -> np.ndarray:
    """Derivative of all fractional coordinates with each free parameter of the positions, shape (3n, d): they are linear."""
    values = np.concatenate([np.asarray(p, dtype=float) for *_, p in sites])
    frac = build(group, sites, volume, shape)[0].get_scaled_positions(wrap=False)
    columns = []
    for k in range(len(values)):
        step = np.zeros(len(values))
        step[k] = 1e-3
        there = build(group, moved(sites, values + step), volume, shape)[0].get_scaled_positions(wrap=False)
        columns.append((there - frac).ravel() / 1e-3)
    return np.array(columns).reshape(len(values), -1).T


def matrix_of(linear, size: int, width: int) -> np.ndarray:
    return np.array([linear(torch.from_numpy(row.reshape(-1, width))).numpy().ravel() for row in np.eye(size)]).T


@given(st.integers(1, 230), st.integers(0, 10**6))
def test_moves_are_projected_orthogonally_on_those_of_the_free_parameters(number, seed):
    """The projection of a group's positions, as a matrix, is B pinv(B), B from the Wyckoff positions themselves."""
    case = drawn(number, seed)
    atoms, symmetry = build(*case)
    projection = Projection.of(symmetry)
    found = matrix_of(projection.positions, 3 * len(atoms), 3)
    directions = parameter_directions(*case)
    expected = directions @ np.linalg.pinv(directions) if directions.size else np.zeros_like(found)
    assert np.abs(found - expected).max() < 1e-8
    assert np.abs(found - found.T).max() < 1e-10 and np.abs(found @ found - found).max() < 1e-10
    assert round(np.trace(found)) == int(symmetry.dof[0])


@given(st.integers(1, 230), st.integers(0, 10**6))
def test_lattice_moves_are_projected_orthogonally_on_those_of_the_free_cell(number, seed):
    """As a matrix, T pinv(T) with T from the cells of the lattice system, in the whitened coordinates."""
    group, sites, volume, shape = drawn(number, seed)
    atoms, symmetry = build(group, sites, volume, shape)
    reference = torch.tensor([atoms.get_volume() * 1.1], dtype=torch.float64)

    def y(values):
        cell = conventional_cell(group.lattice_system, float(np.exp(values[0])), values[1:])
        return lattice_coordinates(torch.from_numpy(group.primitive @ cell)[None], reference)[0].numpy()

    start = np.array([np.log(volume), *shape])
    steps = 1e-4 * np.eye(len(start))
    tangent = np.array([(y(start + step) - y(start - step)) / 2e-4 for step in steps]).T
    cell = torch.from_numpy(atoms.cell.array.copy())[None]
    found = matrix_of(lambda move: Projection.of(symmetry).lattice(move, cell), 6, 6)
    assert np.abs(found - tangent @ np.linalg.pinv(tangent)).max() < 1e-5
    assert np.abs(found - found.T).max() < 1e-9 and round(np.trace(found)) == DIMENSIONS[group.lattice_system]


def test_without_symmetry_nothing_is_changed():
    move, change = torch.randn(7, 3, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    symmetry = Symmetry.none([3, 4])
    cell = torch.eye(3, dtype=torch.float64) * 4 + 0.3 * torch.rand(2, 3, 3, dtype=torch.float64)
    assert torch.allclose(Projection.of(symmetry).positions(move), move, atol=1e-12)
    assert torch.allclose(Projection.of(symmetry).lattice(change, cell), change, atol=1e-10)
    crystals = [bulk("NaCl", "rocksalt", 5.6), bulk("KBr", "rocksalt", 6.6)]
    old = State.of(CrystalBatch.from_atoms(crystals))
    new = State(old.species, old.frac + 0.3, old.y + 0.2, old.volume, old.num_atoms, old.turn)
    assert hold(new, old, None) is new
    held = hold(new, old, Projection.of(Symmetry.none([2, 2])))
    assert torch.allclose(held.frac, new.frac, atol=1e-10) and torch.allclose(held.y, new.y, atol=1e-8)


@pytest.mark.parametrize(
    ("number", "letter", "parameters"),
    [(194, "h", (0.2,)), (225, "e", (0.2,)), (166, "h", (0.2, 0.3)), (62, "c", (0.1, 0.2))],
)
def test_noise_of_a_free_parameter_has_the_variance_of_all_its_atoms(number, letter, parameters):
    """σ² / Σ_i |R_i b|² for a parameter alone, σ² (Σ_i (R_i B)ᵀ R_i B)⁻¹ for several."""
    group = space_group(number)
    case = (group, [("Na", letter, np.array(parameters))], 200.0, np.zeros(DIMENSIONS[group.lattice_system] - 1))
    atoms, symmetry = build(*case)
    directions = parameter_directions(*case)
    sigma, count = 0.05, 20_000
    noise = sigma * torch.randn(count * len(atoms), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    move = Projection.of(Symmetry.cat([symmetry] * count)).positions(noise).reshape(count, -1).numpy()
    found = np.linalg.lstsq(directions, move.T, rcond=None)[0]
    assert np.abs(directions @ found - move.T).max() < 1e-10  # nothing but the parameters moves
    expected = sigma**2 * np.linalg.inv(directions.T @ directions)
    assert np.cov(found).reshape(expected.shape) == pytest.approx(expected, rel=0.05, abs=0.03 * expected.max())
    assert abs(found.mean()) < 4 * expected.max() ** 0.5 / count**0.5


def test_the_variance_in_numbers():
    """Rutile's x: four atoms at ±(x, x, 0) and ±(1/2 − x, 1/2 + x, 1/2), each moving by √2 of it: σ²/8."""
    case = (space_group(136), [("O", "f", np.array([0.3]))], 60.0, np.array([-0.3]))
    _, symmetry = build(*case)
    noise = torch.randn(40_000 * 4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    moves = Projection.of(Symmetry.cat([symmetry] * 40_000)).positions(noise).reshape(-1, 4, 3)
    assert float(moves[:, 0, 0].var()) == pytest.approx(1 / 8, rel=0.03)
    assert (moves[:, 0, 0] - moves[:, 0, 1]).abs().max() < 1e-12 and moves[:, :, 2].abs().max() < 1e-12


@given(st.integers(1, 230), st.integers(0, 10**6))
def test_a_held_step_ends_exactly_on_the_symmetry(number, seed):
    case = drawn(number, seed)
    atoms, symmetry = build(*case)
    projection, random = Projection.of(symmetry), torch.Generator().manual_seed(seed)
    state = State.of(CrystalBatch.from_atoms(atoms))
    for _ in range(5):
        old = state
        wild = State(
            old.species,
            old.frac + 0.4 * torch.randn(old.frac.shape, generator=random, dtype=torch.float64),
            old.y + 0.7 * torch.randn(old.y.shape, generator=random, dtype=torch.float64),
            old.volume,
            old.num_atoms,
            old.turn,
        )
        state = hold(wild, old, projection)
        cell = state.batch().cell
        assert torch.allclose(symmetry.positions(state.frac), state.frac, atol=1e-9)
        metric = cell @ cell.mT
        exact = symmetry.cells(cell)
        assert torch.allclose(exact @ exact.mT, metric, atol=1e-8 * float(metric.abs().max()))
        # the part of the step that was symmetric was taken, not only some of it, unless it put atoms on each other
        wanted = old.frac + projection.positions(wild.frac - old.frac)
        there, here = (float(projection.spacing.ratios(frac, cell, old.species).min()) for frac in (wanted, state.frac))
        if there >= BOUND:
            assert torch.allclose(state.frac, wanted, atol=1e-8)
        assert here > min(there, BOUND) - 1e-6


def test_langevin_samples_the_restriction_of_a_normal_density():
    """Every atom and lattice coordinate normal about a symmetric crystal: on the symmetric crystals a parameter that moves
    atoms by |R_i b| has the variance w² / Σ|R_i b|², and the cell of a cubic group the variance of the one coordinate left."""
    group, count, time, snr = space_group(225), 1200, 0.25, 0.25
    sites = [("Na", "a", np.array([])), ("F", "e", np.array([0.24]))]  # in a cell so large that no walk brings atoms together
    atoms, symmetry = build(group, sites, 3000.0, np.zeros(0))
    batch = CrystalBatch.from_atoms([atoms] * count)
    start = State.of(batch)
    projection = Projection.of(Symmetry.cat([symmetry] * count))
    t = torch.tensor([time], dtype=torch.float64)
    width, spread = SCHEDULE.frac_width(SCHEDULE.sigma(t), start.num_atoms)[0], SCHEDULE.lattice_width(t)
    generator = torch.Generator().manual_seed(5)
    state = start
    for _ in range(120):
        scores = StepScores(-(state.frac - start.frac) / width**2, -(state.y - start.y) / spread**2)
        noise = StepNoise(
            torch.randn(state.frac.shape, generator=generator, dtype=torch.float64),
            torch.randn(state.y.shape, generator=generator, dtype=torch.float64),
            torch.zeros(len(state.frac), 2),
        )
        state = hold(correct(state, scores, noise, SCHEDULE, time, snr), state, projection)
    away = (state.frac - start.frac).reshape(count, -1).numpy()
    directions = parameter_directions(group, sites, 300.0, np.zeros(0))
    found = away @ directions[:, 0] / (directions**2).sum()
    bias = 1 / (1 - snr**2 / 2)  # of the finite step
    assert found.var() == pytest.approx(bias * float(width) ** 2 / (directions**2).sum(), rel=0.12)
    change = state.y - start.y
    assert float((change**2).sum(1).mean()) == pytest.approx(bias * float(spread) ** 2, rel=0.12)
    assert not torch.allclose(change, change.mean(0, keepdim=True), atol=1e-3)


# ----------------------------------------------------------------------------------------------------------------- whole walks


@pytest.mark.parametrize(("formula", "group"), [("SrTiO3", 221), ("TiO2", "P4mm"), ("Fe2O3", "R-3m"), ("Na2O2", "P2_1/m"), ("GaN2", "P1")])
def test_a_walk_with_a_packaged_checkpoint_keeps_the_group_at_every_step(formula, group):
    atoms = random_crystal(formula, spacegroup=group, seed=3)
    symmetry, number = atoms.constraints[0].symmetry, space_group(group).number
    atoms.calc = ScoreCalculator("mp20")
    before, worst = atoms.copy(), []

    def look():
        frac = torch.from_numpy(atoms.get_scaled_positions(wrap=False))
        cell = torch.from_numpy(atoms.cell.array.copy())[None]
        exact = symmetry.cells(cell)
        worst.append(max(float((symmetry.positions(frac) - frac).abs().max()), float((exact - cell).abs().max()) / 10))

    dynamics = AnnealedLangevin(atoms, steps=12)
    dynamics.attach(look)
    dynamics.run()
    assert len(worst) == 13 and max(worst) < 1e-8
    assert abs(atoms.get_volume() / before.get_volume() - 1) > 1e-3  # it did move
    bare = atoms.copy()
    bare.set_constraint()
    found = space_group(group_of(bare, symprec=1e-4))
    assert found.number == number or len(found.rotations) > len(space_group(number).rotations)


@pytest.mark.parametrize(("formula", "group"), [("SrTiO3", 99), ("Na2Cl2", "Cmcm"), ("Si3O6", "P3_121")])
def test_the_dynamics_is_the_batched_driver_with_a_group(small, formula, group):
    request = request_of(formula, 3, seed=2, start="random", spacegroup=group)
    starts = make_starts(small, request)
    walk, cpu = Walk.of(small.walk_defaults), torch.device("cpu")
    batches = sample(small, [start.atoms for start in starts], walk, symmetry=[start.symmetry for start in starts], device=cpu)
    crystals = dict(pair for batch in batches for pair in batch)
    for position, start in enumerate(starts):
        expected = crystals[position]
        atoms = constrained(start)
        assert atoms.constraints[0].group.number == space_group(group).number
        atoms.calc = ScoreCalculator(small)
        AnnealedLangevin(atoms).run()
        delta = atoms.get_scaled_positions(wrap=False) - expected.get_scaled_positions(wrap=False)
        assert np.abs(delta - np.round(delta)).max() < 1e-4
        assert np.abs(atoms.cell.array - expected.cell.array).max() < 1e-4


def test_random_crystal_with_a_group_is_where_generate_begins(small):
    expected = generate("SrTiO3", seed=2, start="random", spacegroup=99, checkpoint=small)[0]
    atoms = random_crystal("SrTiO3", spacegroup=99, seed=expected.info["seed"])
    atoms.calc = ScoreCalculator(small)
    AnnealedLangevin(atoms).run()
    assert np.abs(atoms.cell.array - expected.cell.array).max() < 1e-4


def test_drivers_agree_with_the_packaged_checkpoint_too():
    crystals = generate("TiO2", n=1, seed=5, start="random", spacegroup=99, checkpoint="mp20", steps=10)
    atoms = random_crystal("TiO2", spacegroup=99, seed=crystals[0].info["seed"])
    atoms.calc = ScoreCalculator("mp20")
    AnnealedLangevin(atoms, steps=10).run()
    delta = atoms.get_scaled_positions(wrap=False) - crystals[0].get_scaled_positions(wrap=False)
    assert np.abs(delta - np.round(delta)).max() < 1e-3 and np.abs(atoms.cell.array - crystals[0].cell.array).max() < 1e-3


def test_a_restarted_symmetric_run_comes_to_the_same_end(small, tmp_path):
    def start():
        atoms = random_crystal("SrTiO3", spacegroup=99, seed=9)
        atoms.calc = ScoreCalculator(small)
        return atoms

    walk = Walk(6, 1, begin=0.6)
    whole = start()
    AnnealedLangevin(whole, walk=walk, trajectory=tmp_path / "whole.traj").run()
    AnnealedLangevin(start(), walk=walk, trajectory=tmp_path / "part.traj").run(2)
    again = AnnealedLangevin.restart(tmp_path / "part.traj", ScoreCalculator(small))
    assert again.nsteps == 2 and again.walk == walk and again.atoms.constraints[0].group.number == 99
    assert again.run()
    assert np.abs(again.atoms.positions - whole.positions).max() < 1e-8
    frames, expected = (ase.io.read(tmp_path / name, index=":") for name in ("part.traj", "whole.traj"))
    assert len(frames) == len(expected) == 7
    assert all(np.abs(a.positions - b.positions).max() < 1e-8 for a, b in zip(frames, expected, strict=True))


def test_stock_ase_dynamics_keeps_the_group_too(small):
    """The constraint speaks ASE's own language: ReverseODE with it, and the group kept."""
    atoms = random_crystal("Na2Cl2", spacegroup=63, seed=1)
    atoms.calc = ScoreCalculator(small)
    ReverseODE(atoms, steps=5).run()
    bare = atoms.copy()
    bare.set_constraint()
    assert len(space_group(group_of(bare, symprec=1e-4)).rotations) >= len(space_group(63).rotations)


# ------------------------------------------------------------------------------------------------------------ atoms kept apart


def pulled(rounds: int, monkeypatch) -> float:
    """Rutile under a score that wants all its oxygen on the mirror at x = 1/2, in steps with noise: the way down, closest contact."""
    monkeypatch.setattr("asegen.symmetry.apart.ROUNDS", rounds)
    sites = [("Ti", "a", ()), ("O", "f", np.array([0.35]))]
    atoms, symmetry = build(space_group(136), sites, 62.0, np.array([-0.3]))
    aim, _ = build(space_group(136), [sites[0], ("O", "f", np.array([0.5]))], 62.0, np.array([-0.3]))
    target = torch.from_numpy(aim.get_scaled_positions(wrap=False))
    state, projection, walk = State.of(CrystalBatch.from_atoms(atoms)), Projection.of(symmetry), Walk(20, begin=0.4)
    rows, times = draw_noise(0, len(atoms), walk.rows), walk.times()
    for k in range(walk.steps):
        t = torch.tensor([times[k]], dtype=torch.float64)
        width = SCHEDULE.frac_width(SCHEDULE.sigma(t), state.num_atoms)
        away = state.frac - target
        scores = StepScores(-(away - away.round()) / width**2, torch.zeros_like(state.y))
        new = predict(state, scores, noise_of_step([rows[k]]), SCHEDULE, times[k], times[k + 1], walk)
        state = hold(replace(new, y=state.y), state, projection)
    (end,) = state.batch().to_atoms()
    assert torch.allclose(symmetry.positions(state.frac), state.frac, atol=1e-9)
    return closest_contact(end).ratio


def test_a_site_does_not_slide_onto_a_special_position(monkeypatch):
    assert pulled(0, monkeypatch) < 0.02  # what would come of it
    assert pulled(8, monkeypatch) == pytest.approx(BOUND, rel=0.02)


@pytest.mark.parametrize(
    ("group", "sites"),
    [(10, "Mg:1e Pm:2k Tl:1h"), (191, "O:4h Rh:2c"), (65, "Si:4i Ag:4k Ce:2c"), (12, "Si:4h Ag:2b,2d Ce:2c"), (8, "Si:4b Ag:4b Ce:2a")],
)
def test_walks_that_used_to_end_with_atoms_on_each_other(group, sites):
    starts, symmetries = [], []
    for seed in range(4):
        atoms = random_crystal(spacegroup=group, sites=sites, seed=seed)
        symmetries.append(atoms.constraints[0].symmetry)
        atoms.set_constraint()
        starts.append(atoms)
    checkpoint = load_checkpoint("mp20")
    walk = Walk.of(checkpoint.walk_defaults)
    (batch,) = sample(checkpoint, starts, walk, symmetry=symmetries, device=torch.device("cpu"))
    assert [too_close(atoms) for _, atoms in batch] == [""] * 4


# ---------------------------------------------------------------------------------------------------------------- where it begins


def test_times_begin_where_asked():
    assert Walk(10).times()[0] == TIME_MAX
    assert Walk(4, begin=0.2).times() == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0])
    assert Walk(10).rows == 11 and Walk(10, 2).rows == 31
    assert Walk.of({"steps": 4, "begin": 0.5}).begin == 0.5 and Walk.of_values(Walk(3, 1, 0.5, 0.2, 0.9, 0.3).values()) == Walk(
        3, 1, 0.5, 0.2, 0.9, 0.3
    )
    assert Walk.of_values([50, 0, 1.0, 0.1, 1.0]).begin == 1.0  # trajectories from before there was a choice
    for begin in (0.0, -0.1, 1.01):
        with pytest.raises(ValueError, match="begins at time"):
            Walk(begin=begin)


def test_the_row_for_the_blur_changes_no_other_noise():
    assert (draw_noise(3, 4, Walk(5, 1).rows)[:-1] == draw_noise(3, 4, 10)).all()


def test_a_blurred_crystal_looks_as_the_noise_level_says():
    count, time = 3000, 0.3
    crystal = random_crystal("NaCl", seed=0)
    state = State.of(CrystalBatch.from_atoms([crystal] * count))
    rows = np.array([draw_noise(seed, 2, 1)[0] for seed in range(count)])
    noise = StepNoise(torch.from_numpy(rows[:, :6].reshape(-1, 3)), torch.from_numpy(rows[:, 6:12]), torch.zeros(2 * count, 2))
    found = blur(state, noise, SCHEDULE, time)
    t = torch.tensor([time], dtype=torch.float64)
    width = float(SCHEDULE.frac_width(SCHEDULE.sigma(t), torch.tensor([2])))
    assert float((found.frac - state.frac).std()) == pytest.approx(width, rel=0.03)
    alpha = np.cos(np.pi * time / 2)
    assert torch.allclose(found.y.mean(0), alpha * state.y[0], atol=4 * np.sin(np.pi * time / 2) / count**0.5)
    assert float((found.y - alpha * state.y).std()) == pytest.approx(np.sin(np.pi * time / 2), rel=0.03)
    assert (found.species == state.species).all()


def test_a_walk_that_begins_low_stays_near_its_start(small):
    """Both drivers blur with the same noise, inside the group, and the blur decides how far the crystal goes."""
    start = random_crystal("SrTiO3", spacegroup=99, seed=4)
    symmetry = start.constraints[0].symmetry
    moves = []
    for begin in (0.05, 0.4):
        walk = Walk(4, 0, 1.0, begin=begin)
        bare = start.copy()
        bare.set_constraint()
        ((_, batched),) = next(sample(small, [bare], walk, symmetry=[symmetry], device=torch.device("cpu")))
        atoms = start.copy()
        atoms.calc = ScoreCalculator(small)
        frames = []
        dynamics = AnnealedLangevin(atoms, walk=walk)
        dynamics.attach(lambda frames=frames, atoms=atoms: frames.append(atoms.get_scaled_positions(wrap=False)))
        dynamics.run()
        assert np.abs(atoms.get_scaled_positions(wrap=False) - batched.get_scaled_positions(wrap=False)).max() < 1e-4
        assert np.abs(atoms.cell.array - batched.cell.array).max() < 1e-4
        moves.append(np.abs(frames[0] - start.get_scaled_positions(wrap=False)).max())
        assert np.abs(frames[0][:, :2] - start.get_scaled_positions(wrap=False)[:, :2]).max() < 1e-9  # P4mm: along the axis only
    levels = SCHEDULE.sigma(torch.tensor([0.05, 0.4], dtype=torch.float64))
    assert moves[0] > 1e-4 and moves[1] / moves[0] == pytest.approx(float(levels[1] / levels[0]), rel=1e-3)


def test_refining_walks(small):
    assert refining_walk(small, 0) is None
    walk = refining_walk(small, 0.05)
    level = float(SCHEDULE.sigma(torch.tensor(walk.begin, dtype=torch.float64)))
    assert level == pytest.approx(0.05, rel=0.02) and walk.churn == 0 and walk.steps >= 4
    for blur_width in (0.001, -1, 10):
        with pytest.raises(ValueError, match=f"refine = {blur_width}"):
            refining_walk(small, blur_width)
