import numpy as np
import pytest
import torch

from asegen import CrystalBatch
from asegen.dynamics.rules import TIME_MAX, State, StepScores, Walk, correct, draw_noise, noise_of_step, predict, reveal
from asegen.kernels import Schedule, normal_score
from asegen.prior import start_crystal

SCHEDULE = Schedule()


def gaussian_walk(churn: float, correctors: int = 0, steps: int = 60, count: int = 1500) -> torch.Tensor:
    """Final lattice coordinates of a walk with the exact score of clean coordinates ~ N(0.4, 0.6²)."""
    mean, spread = 0.4, 0.6
    walk = Walk(steps, correctors, churn, 0.2)
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    one = torch.ones(count, dtype=torch.int64)
    state = State(one * 14, torch.rand(count, 3, generator=generator, dtype=torch.float64), y, one.double() * 18, one)

    def scores(state, t):
        time = torch.tensor([t], dtype=torch.float64)
        alpha, width = SCHEDULE.lattice_alpha(time), SCHEDULE.lattice_width(time)
        blurred = ((alpha * spread) ** 2 + width**2).sqrt()
        return StepScores(torch.zeros_like(state.frac), normal_score(state.y, torch.full_like(state.y, mean), alpha, blurred))

    times = walk.times()
    rows = [draw_noise(seed, 1, steps * (1 + correctors)) for seed in range(count)]
    for k in range(steps):
        row = k * (1 + correctors)
        state = predict(state, scores(state, times[k]), noise_of_step([r[row] for r in rows]), SCHEDULE, times[k], times[k + 1], walk)
        for extra in range(1, correctors + 1 if times[k + 1] > 0 else 1):
            fresh = noise_of_step([r[row + extra] for r in rows])
            state = correct(state, scores(state, times[k + 1]), fresh, SCHEDULE, times[k + 1], walk.snr)
    return state.y


@pytest.mark.parametrize(("churn", "correctors"), [(1.0, 0), (0.0, 0), (0.5, 0), (1.0, 1)])
def test_a_walk_with_the_exact_score_ends_at_the_data(churn, correctors):
    y = gaussian_walk(churn, correctors)
    assert y.mean().item() == pytest.approx(0.4, abs=0.03)
    assert y.std().item() == pytest.approx(0.6, abs=0.04)


def test_positions_of_a_known_crystal_are_found_from_any_noise():
    from asegen.kernels import wrapped_normal_score

    clean = torch.tensor([[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]], dtype=torch.float64)
    walk = Walk(50)
    state = State.of(CrystalBatch.from_atoms(start_crystal(np.array([11, 17]), 5)))
    times = walk.times()
    noise = draw_noise(5, 2, 50)
    for k in range(50):
        sigma = SCHEDULE.sigma(torch.tensor([times[k]], dtype=torch.float64))
        width = SCHEDULE.frac_width(sigma, state.num_atoms)
        found = StepScores(wrapped_normal_score(state.frac - clean, width[:, None]), torch.zeros_like(state.y))
        state = predict(state, found, noise_of_step([noise[k]]), SCHEDULE, times[k], times[k + 1], walk)
    delta = state.frac - clean
    assert (delta - delta.round()).abs().max() < 1e-6


@pytest.mark.parametrize("churn", [1.0, 0.0])
def test_positions_spread_about_a_site_end_with_their_spread(churn):
    """Clean positions normal about 1/2 with width 0.04: the exact score of their blur leads back to that width."""
    from asegen.kernels import wrapped_normal_score

    spread, count, walk = 0.04, 1500, Walk(80, churn=churn)
    generator = torch.Generator().manual_seed(0)
    one = torch.ones(count, dtype=torch.int64)
    frac = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    state = State(one * 14, frac, torch.zeros(count, 6, dtype=torch.float64), one.double() * 18, one)
    times = walk.times()
    rows = [draw_noise(seed, 1, walk.steps) for seed in range(count)]
    for k in range(walk.steps):
        width = SCHEDULE.frac_width(SCHEDULE.sigma(torch.tensor([times[k]], dtype=torch.float64)), one)[:, None]
        score = wrapped_normal_score(state.frac - 0.5, (width**2 + spread**2).sqrt())
        found = StepScores(score, torch.zeros_like(state.y))
        state = predict(state, found, noise_of_step([row[k] for row in rows]), SCHEDULE, times[k], times[k + 1], walk)
    delta = state.frac - 0.5
    assert (delta - delta.round()).std().item() == pytest.approx(spread, rel=0.08)


def test_corrector_keeps_the_density_it_samples():
    """Langevin at one level on a normal score: the variance stays that of the blur (step² small)."""
    count, t = 4000, 0.6
    generator = torch.Generator().manual_seed(1)
    width = SCHEDULE.lattice_width(torch.tensor([t], dtype=torch.float64))
    one = torch.ones(count, dtype=torch.int64)
    y = width * torch.randn(count, 6, generator=generator, dtype=torch.float64)
    state = State(one * 14, torch.zeros(count, 3, dtype=torch.float64), y, one.double() * 18, one)
    for _ in range(50):
        found = StepScores(torch.zeros_like(state.frac), -state.y / width**2)
        rows = torch.randn(count, 6, generator=generator).numpy()
        noise = noise_of_step([np.concatenate([np.zeros(3), row, np.zeros(2)]) for row in rows])
        state = correct(state, found, noise, SCHEDULE, t, 0.2)
    assert state.y.std().item() == pytest.approx(float(width), rel=0.04)


def test_noise_belongs_to_the_seed_alone():
    short, long = draw_noise(7, 4, 3), draw_noise(7, 4, 50)
    assert (short == long[:3]).all()
    assert not np.allclose(short, draw_noise(8, 4, 3))
    normals = draw_noise(0, 10, 2000)[:, :36]
    assert abs(normals.mean()) < 0.01 and abs(normals.std() - 1) < 0.01
    uniforms = draw_noise(0, 10, 2000)[:, 36:]
    assert uniforms.min() >= 0 and uniforms.max() < 1


def test_hidden_elements_are_drawn_from_the_distribution_and_all_revealed_at_the_end():
    count = 20_000
    logits = torch.full((count, 119), -torch.inf, dtype=torch.float64)
    logits[:, 8], logits[:, 26] = np.log(0.25), np.log(0.75)
    uniform = torch.rand(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = reveal(torch.zeros(count, dtype=torch.int64), logits, uniform, SCHEDULE, 0.5, 0.0)
    assert set(drawn.unique().tolist()) == {8, 26}
    assert (drawn == 26).double().mean().item() == pytest.approx(0.75, abs=0.01)
    partly = reveal(torch.zeros(count, dtype=torch.int64), logits, uniform, SCHEDULE, 0.8, 0.6)
    hiding = SCHEDULE.hiding(torch.tensor([0.8, 0.6], dtype=torch.float64))
    assert (partly == 0).double().mean().item() == pytest.approx(float(hiding[1] / hiding[0]), abs=0.01)
    cold = reveal(torch.zeros(count, dtype=torch.int64), logits, uniform, SCHEDULE, 0.5, 0.0, temperature=0.5)
    assert (cold == 26).double().mean().item() == pytest.approx(0.9, abs=0.01)  # 0.75² / (0.75² + 0.25²)
    known = torch.full((count,), 14)
    assert (reveal(known, logits, uniform, SCHEDULE, 0.5, 0.0) == 14).all()


def test_a_walk_goes_down_to_zero_and_counts_its_evaluations():
    times = Walk(10).times()
    assert times[0] == TIME_MAX and times[-1] == 0 and (np.diff(times) < 0).all()
    assert Walk(10).calls == 10 and Walk(10, 2).calls == 28
    assert Walk.of({"steps": 20.0, "churn": 0.5}) == Walk(20, 0, 0.5)
