"""Derivatives of all invariants against automatic differentiation."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asegen.crystals import CrystalBatch
from asegen.descriptors.ead import EAD, exponents, monomials_of
from asegen.descriptors.jacobian import invariants_and_jacobian, monomial_gradients


@pytest.mark.parametrize("directions", [True, False])
@pytest.mark.parametrize("orders", [(0,), (0, 1, 2, 3), (1, 4)])
def test_against_automatic_differentiation(directions, orders):
    torch.manual_seed(1)
    ead = EAD(orders, ((2.0, 1.5), (0.7, 3.0)), cutoff=4.5, directions=directions)
    cell = torch.tensor([[3.1, 0, 0], [0.4, 3.9, 0], [0.2, -0.6, 4.2]], dtype=torch.float64)
    numbers = torch.tensor([1, 8, 8, 22])
    frac = torch.rand(2, 4, 3, dtype=torch.float64)
    values, jacobian = invariants_and_jacobian(ead, frac, cell, numbers)
    for trial in range(2):
        batch = CrystalBatch(numbers, frac[trial], cell[None], torch.tensor([4]))
        assert torch.allclose(values[trial], ead(batch))

        def of_positions(positions, batch=batch):
            return ead(replace(batch, frac=positions @ torch.linalg.inv(cell)))

        expected = torch.autograd.functional.jacobian(of_positions, frac[trial] @ cell)
        assert torch.allclose(jacobian[trial], expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_moving_all_atoms_changes_nothing():
    ead = EAD((0, 1, 2), ((1.0, 2.0),), cutoff=5.0)
    frac = torch.rand(3, 5, 3, dtype=torch.float64)
    _, jacobian = invariants_and_jacobian(ead, frac, 4.0 * torch.eye(3, dtype=torch.float64), torch.tensor([3, 3, 8, 8, 8]))
    assert jacobian.sum(dim=3).abs().max() < 1e-9 * jacobian.abs().max()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_monomial_gradients(seed):
    vectors = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    orders = (0, 1, 2, 3, 4)
    expected = torch.autograd.functional.jacobian(lambda v: monomials_of(v, orders), vectors)
    for k in range(3):
        assert torch.allclose(monomial_gradients(vectors, orders)[k], expected[k, :, k], atol=1e-10)
    assert [len(exponents(order)) for order in orders] == [1, 3, 6, 10, 15]
