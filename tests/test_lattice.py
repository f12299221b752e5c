import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from asegen.lattice import cell_from_log, log_gradient, log_metric, pack, standard_cell, strain_gradient, strain_to_log, turn_cell, unpack


def cells(seed: int, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.matrix_exp(0.4 * torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)) * 4


def rotation(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return q * torch.det(q).sign()


seeds = st.integers(0, 10_000)


@given(seeds)
def test_the_log_metric_ignores_rotations_and_gives_the_metric_back(seed):
    cell = cells(seed)
    k = log_metric(cell)
    assert torch.allclose(k, log_metric(cell @ rotation(seed)))
    again = cell_from_log(k)
    assert torch.allclose(again @ again.mT, cell @ cell.mT)
    assert torch.allclose(torch.diagonal(k, dim1=-2, dim2=-1).sum(-1), torch.linalg.det(cell).abs().log())


@given(seeds)
def test_pack_keeps_norms_and_unpack_undoes_it(seed):
    k = log_metric(cells(seed))
    assert torch.allclose(pack(k).square().sum(-1), k.square().sum((-1, -2)))
    assert torch.allclose(unpack(pack(k)), k)


@given(seeds)
def test_turning_a_cell_keeps_its_orientation(seed):
    cell = cells(seed)
    assert torch.allclose(turn_cell(log_metric(cell), cell), cell)
    target = log_metric(cells(seed + 1))
    turned = turn_cell(target, cell)
    assert torch.allclose(log_metric(turned), target)
    # exp(k') Q with the same Q: the orientation factor is unchanged
    factor = cell_from_log(-log_metric(cell)) @ cell
    assert torch.allclose(cell_from_log(-target) @ turned, factor)


def test_the_standard_cell_is_lower_triangular_and_right_handed():
    cell = standard_cell(cells(1))
    assert torch.allclose(cell, cell.tril())
    assert (torch.linalg.det(cell) > 0).all()


@given(seeds)
def test_strain_gradient_is_the_derivative_along_a_strain(seed):
    cell = cells(seed, 1)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
    weight = weight + weight.mT
    gradient = strain_gradient(weight, cell)
    strain = torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)
    strain = strain + strain.mT
    h = 1e-6
    identity = torch.eye(3, dtype=torch.float64)
    up, down = (log_metric(cell @ (identity + sign * h * strain)) for sign in (1, -1))
    numeric = ((up - down) / (2 * h) * weight).sum()
    assert torch.allclose((gradient * strain).sum(), numeric, rtol=1e-6, atol=1e-7)
    assert torch.allclose(log_gradient(gradient, cell), weight, atol=1e-9)
    assert torch.allclose(strain_to_log(strain, cell), (up - down) / (2 * h), atol=1e-6)


def test_a_cube_is_no_special_case():
    cube = 4 * torch.eye(3, dtype=torch.float64)[None]
    weight = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))[None]
    assert np.allclose(strain_gradient(weight, cube), weight)
