import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asegen import kernels
from asegen.kernels import Schedule

widths = st.floats(0.003, 1.5)
places = st.floats(-2.0, 2.0)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(places, widths)
def test_wrapped_normal_is_the_sum_over_images(x, width):
    images = torch.arange(-30, 31, dtype=torch.float64)
    direct = torch.logsumexp(-0.5 * ((x - round(x) + images) / width) ** 2, 0) - math.log(width * math.sqrt(2 * math.pi))
    assert kernels.wrapped_normal_log_prob(tensor(x), tensor(width)).item() == pytest.approx(direct.item(), abs=1e-9)


@given(places, widths)
def test_its_score_is_the_derivative(x, width):
    h = 1e-6 * width
    up, down = (kernels.wrapped_normal_log_prob(tensor(x + s * h), tensor(width)).item() for s in (1, -1))
    score = kernels.wrapped_normal_score(tensor(x), tensor(width)).item()
    if abs(abs(x - round(x)) - 0.5) < 1e-3 and width < 0.05:
        return  # at the cut locus of a narrow blur the score jumps
    assert score == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-4 / width)


@pytest.mark.parametrize("width", [0.01, 0.1, 0.29, 0.31, 0.8])
def test_moments_of_samples_agree(width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400_000, generator=generator, dtype=torch.float64) * width
    # E cos 2πx of a wrapped normal is exp(-2π²σ²); the score has mean zero and the root mean square we divide by
    assert torch.cos(2 * math.pi * x).mean().item() == pytest.approx(math.exp(-2 * (math.pi * width) ** 2), abs=4e-3)
    score = kernels.wrapped_normal_score(x, tensor(width))
    norm = kernels.wrapped_normal_score_norm(tensor(width)).item()
    assert score.square().mean().sqrt().item() == pytest.approx(norm, rel=6e-3)
    assert abs(score.mean().item()) < 0.01 * norm


def test_narrow_and_broad_limits_of_the_score_norm():
    assert kernels.wrapped_normal_score_norm(tensor(0.01)).item() == pytest.approx(100, rel=1e-6)
    broad = kernels.wrapped_normal_score_norm(tensor(1.0)).item()
    assert broad == pytest.approx(math.sqrt(8) * math.pi * math.exp(-2 * math.pi**2), rel=1e-6)


@given(st.integers(0, 1000), st.floats(0.05, 1.5))
def test_normal_score_is_the_derivative(seed, time):
    schedule = Schedule()
    t = tensor(min(time, 1.0) * 0.99)
    alpha, width = schedule.lattice_alpha(t), schedule.lattice_width(t)
    generator = torch.Generator().manual_seed(seed)
    clean, noisy = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    noisy.requires_grad_(True)
    (gradient,) = torch.autograd.grad(kernels.normal_log_prob(noisy, clean, alpha, width).sum(), noisy)
    assert torch.allclose(gradient, kernels.normal_score(noisy, clean, alpha, width), atol=1e-12)


def test_lattice_noise_preserves_the_variance():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    schedule = Schedule()
    assert torch.allclose(schedule.lattice_alpha(t) ** 2 + schedule.lattice_width(t) ** 2, torch.ones(11, dtype=torch.float64))


def test_hiding_reveals_as_bayes_says():
    # joint of (hidden now, hidden later) by enumeration: an element hidden later is hidden now
    now, later = tensor(0.8), tensor(0.3)
    joint = {(1, 1): later, (1, 0): now - later, (0, 0): 1 - now}
    chance = joint[(1, 0)] / (joint[(1, 0)] + joint[(1, 1)])
    assert torch.allclose(kernels.reveal_probability(now, later), chance)
    assert kernels.reveal_probability(now, tensor(0.0)).item() == 1.0


def test_hidden_share_and_log_probabilities():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(1, 95, (100_000,), generator=generator)
    probability = torch.full((100_000,), 0.37, dtype=torch.float64)
    noisy = kernels.hide(clean, probability, torch.rand(100_000, generator=generator, dtype=torch.float64))
    assert (noisy == 0).double().mean().item() == pytest.approx(0.37, abs=5e-3)
    assert (noisy[noisy != 0] == clean[noisy != 0]).all()
    log = kernels.hidden_log_prob(torch.tensor([0, 5, 6]), torch.tensor([5, 5, 5]), tensor(0.37, 0.37, 0.37))
    assert log[0].exp().item() == pytest.approx(0.37)
    assert log[1].exp().item() == pytest.approx(0.63)
    assert log[2].item() == -math.inf


def test_the_schedule_can_be_inverted_and_maps_to_angstrom():
    schedule = Schedule()
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    assert torch.allclose(schedule.time(schedule.sigma(t)), t)
    # in a cube of N average atoms a blur of σ_f fractional units is σ Å along each edge
    width = schedule.frac_width(tensor(0.5), torch.tensor([8]))
    assert (width * (8 * schedule.atomic_volume) ** (1 / 3)).item() == pytest.approx(0.5)
