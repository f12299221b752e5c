"""The one-dimensional U-Net: shapes, its parts against plain formulas, what it may not do."""

from __future__ import annotations

import pytest
import torch

from asegen.errors import RecipeError
from asegen.networks.unet1d import LinearAttention, Sinusoids, StandardizedConv1d, UNet1D


def shaken(**options) -> UNet1D:
    torch.manual_seed(0)
    network = UNet1D(**{"size": 37, "width": 16, "stages": (1, 2), "patch": 4, "groups": 4, **options})
    torch.nn.init.normal_(network.out.weight, std=0.1)
    return network


@pytest.mark.parametrize("options", [{}, {"patch": 1, "stages": (1, 1, 2)}, {"stages": (1,)}, {"size": 1}, {"size": 64}])
def test_any_length_goes_in_and_comes_out(options):
    network = shaken(**options)
    x = torch.randn(3, network.size)
    assert network(x, torch.rand(3)).shape == x.shape


def test_an_untrained_network_says_nothing_and_every_weight_learns():
    torch.manual_seed(0)
    network = UNet1D(20, width=16, stages=(1, 2), patch=2, groups=4)
    x, time = torch.randn(4, 20), torch.rand(4)
    assert (network(x, time) == 0).all()
    torch.nn.init.normal_(network.out.weight)
    network(x, time).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and (p.grad != 0).any() for p in network.parameters())


def test_crystals_of_a_batch_do_not_see_each_other():
    network = shaken()
    x, time = torch.randn(5, 37), torch.rand(5)
    together = network(x, time)
    torch.testing.assert_close(together[2:3], network(x[2:3], time[2:3]), rtol=1e-4, atol=1e-5)
    assert (together - network(x, time + 0.3)).abs().max() > 1e-4  # and the time counts


def test_standardised_convolutions_do_not_see_scale_and_offset_of_their_weights():
    torch.manual_seed(0)
    layer, x = StandardizedConv1d(4, 6, 3, padding=1), torch.randn(2, 4, 9)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(7.0).add_(3.0)
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-4)


def test_linear_attention_is_its_formula():
    torch.manual_seed(0)
    layer, x = LinearAttention(8, 4), torch.randn(2, 8, 5)
    q, k, v = layer.inner(layer.norm(x)).chunk(3, dim=1)
    heads = []
    for h in range(4):
        s = slice(2 * h, 2 * h + 2)
        query, key = q[:, s].softmax(1) / 2**0.5, k[:, s].softmax(2)
        context = torch.einsum("bdn,ben->bde", key, v[:, s])
        heads.append(torch.einsum("bde,bdn->ben", context, query))
    torch.testing.assert_close(layer(x), x + layer.outer(torch.cat(heads, 1)))


def test_times_are_told_apart():
    embedded = Sinusoids(32)(torch.linspace(0, 1, 2001))
    assert embedded.shape == (2001, 32) and (embedded[1:] - embedded[:-1]).norm(dim=1).min() > 0.1


@pytest.mark.parametrize("options", [{"width": 10}, {"width": 0}, {"patch": 0}, {"stages": (1, 0)}, {"heads": 3}])
def test_impossible_options_are_named(options):
    with pytest.raises(RecipeError, match="width"):
        shaken(**options)
