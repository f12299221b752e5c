"""What every network must keep, as properties; what only the equivariant one keeps; what the energy one adds."""

import numpy as np
import pytest
import torch
from conftest import OPTIONS, shaken_network
from hypothesis import given
from hypothesis import strategies as st

from asegen import CrystalBatch
from asegen.crystals import nearest_image
from asegen.errors import RecipeError
from asegen.networks import build_network
from asegen.networks.dense import PairFeatures
from asegen.prior import start_crystal
from asegen.systems.diffusion import DiffusionSystem

BUILT = {
    "dense": shaken_network(**OPTIONS).double(),
    "energy": shaken_network("energy", **OPTIONS).double(),
    "equivariant": shaken_network("equivariant", features=8, layers=2),
}
ALL = list(BUILT)


def crystals(seed: int, sizes=(3, 5)) -> CrystalBatch:
    random = np.random.default_rng(seed)
    return CrystalBatch.from_atoms([start_crystal(random.integers(1, 80, n), seed * 7 + k) for k, n in enumerate(sizes)])


def scores(name: str, batch: CrystalBatch, time: float = 0.4):
    system = DiffusionSystem(BUILT[name])
    with torch.no_grad():
        return system.scores(batch, torch.full((len(batch),), time, dtype=torch.float64))


def close(found, expected, tolerance=2e-4):
    for a, b in zip(found, expected, strict=True):
        assert not a.isnan().any() and not b.isnan().any()
        a, b = a.nan_to_num(neginf=0), b.nan_to_num(neginf=0)
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-6)


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 300))
def test_images_origin_and_order_do_not_matter(name, seed):
    batch = crystals(seed)
    expected = scores(name, batch)
    generator = torch.Generator().manual_seed(seed)
    moved = batch.frac + torch.rand(len(batch), 3, generator=generator, dtype=torch.float64)[batch.index]
    moved = moved + torch.randint(-2, 3, moved.shape, generator=generator)
    close(scores(name, CrystalBatch(batch.species, moved, batch.cell, batch.num_atoms)), expected)
    order = torch.cat([torch.randperm(3, generator=generator), 3 + torch.randperm(5, generator=generator)])
    permuted = scores(name, CrystalBatch(batch.species[order], batch.frac[order], batch.cell, batch.num_atoms))
    close(permuted, (expected.position[order], expected.lattice, expected.elements[order]))


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 300))
def test_rotating_the_crystal_changes_no_fractional_score(name, seed):
    batch = crystals(seed)
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    close(scores(name, CrystalBatch(batch.species, batch.frac, batch.cell @ turn, batch.num_atoms)), scores(name, batch))


@pytest.mark.parametrize("name", ALL)
def test_the_answer_for_a_crystal_does_not_depend_on_its_batch(name):
    batch = crystals(3, (4, 2, 4, 7))
    together = scores(name, batch)
    for number in range(4):
        atoms = torch.nonzero(batch.index == number)[:, 0]
        alone = scores(name, batch.select([number]))
        close(alone, (together.position[atoms], together.lattice[[number]], together.elements[atoms]), 1e-4)


@pytest.mark.parametrize("name", ALL)
def test_position_scores_of_a_crystal_sum_to_zero(name):
    batch = crystals(5)
    total = torch.zeros(2, 3, dtype=torch.float64).index_add_(0, batch.index, scores(name, batch).position)
    assert total.abs().max() < 1e-4 * scores(name, batch).position.abs().max()


@given(seed=st.integers(0, 300))
def test_the_equivariant_network_does_not_see_the_choice_of_cell(seed):
    """Other lattice vectors of the same lattice: the same Cartesian forces and stress."""
    batch = crystals(seed, (4,))
    change = torch.tensor([[1, 1, 0], [0, 1, 0], [0, -1, 1]], dtype=torch.float64)
    other = CrystalBatch(batch.species, batch.frac @ torch.linalg.inv(change), change @ batch.cell, batch.num_atoms)

    def cartesian(b: CrystalBatch):
        found = scores("equivariant", b)
        return (found.position @ torch.linalg.inv(b.cell[0]).T,)

    close(cartesian(other), cartesian(batch), 1e-3)


def test_shortest_distances_are_those_of_ase(crystal):
    batch = CrystalBatch.from_atoms(crystal)
    found = PairFeatures().double().shortest(batch.frac.reshape(1, 5, 3), batch.cell)[0]
    expected = crystal.get_all_distances(mic=True)
    off = ~np.eye(5, dtype=bool)
    assert np.allclose(found.numpy()[off], expected[off], atol=1e-10)
    assert np.allclose(np.diag(found), crystal.cell.lengths().min())


def test_pair_features_are_plane_waves_of_the_difference(crystal):
    batch = CrystalBatch.from_atoms(crystal)
    features = PairFeatures().double()
    found = features(batch.frac.reshape(1, 5, 3), batch.cell)[0, 1, 3]
    delta = nearest_image(batch.frac[1] - batch.frac[3])
    phase = delta @ features.waves
    count = features.waves.shape[1]
    assert torch.allclose(found[:count], phase.cos()) and torch.allclose(found[count : 2 * count], phase.sin())


@given(seed=st.integers(0, 100))
def test_the_scores_of_the_energy_network_are_its_derivatives(seed):
    system = DiffusionSystem(BUILT["energy"])
    batch = crystals(seed, (3,))
    time = torch.full((1,), 0.5, dtype=torch.float64)
    found = scores("energy", batch, 0.5)
    generator = torch.Generator().manual_seed(seed)
    step = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    h = 1e-3  # the network computes in float32
    with torch.no_grad():
        up, down = (
            system.energy(CrystalBatch(batch.species, batch.frac + s * h * step, batch.cell, batch.num_atoms), time).item() for s in (1, -1)
        )
    slope = -(up - down) / (2 * h)
    expected = float((found.position * step).sum())
    assert slope == pytest.approx(expected, rel=2e-2, abs=2e-2 * float(found.position.norm()))


@pytest.mark.parametrize("name", ["dense", "equivariant"])
def test_untrained_losses_are_about_one_and_gradients_reach_everything(name):
    torch.manual_seed(0)
    network = build_network(name, OPTIONS if name == "dense" else {"features": 8, "layers": 2})
    system = DiffusionSystem(network, free_share=1.0)
    batch = crystals(1, (3, 5, 4, 2, 6, 3, 4, 4)).to(dtype=torch.float32)
    losses = system.loss(batch, torch.Generator().manual_seed(0))
    assert 0.5 < float(losses.lattice) < 2.0 and 0.5 < float(losses.position) < 2.0
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(3):  # outputs start at zero, so what lies behind them gets its gradient after a step
        optimizer.zero_grad()
        system.loss(batch, torch.Generator().manual_seed(0)).total.backward()
        optimizer.step()
    silent = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not silent


def test_unknown_networks_and_options_are_refused():
    with pytest.raises(RecipeError, match="unknown network 'mystery'"):
        build_network("mystery", {})
    with pytest.raises(RecipeError, match="wdith"):
        build_network("dense", {"wdith": 3})
