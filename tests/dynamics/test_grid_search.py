"""The search on a grid: table lookups against the descriptor itself, and draws that anneal."""

import numpy as np
import pytest
import torch
from ase import Atoms

from asegen.crystals import CrystalBatch
from asegen.descriptors.ead import EAD
from asegen.descriptors.target import Target
from asegen.dynamics.grid_search import GridSearch, grid_of

EAD_SHORT = EAD((0, 1, 2, 3), ((1.0, 1.5), (1.0, 2.5), (0.5, 3.5)), cutoff=5.0, directions=True)
CELL = np.array([[3.3, 0, 0], [0.5, 4.1, 0], [0.3, -0.7, 4.6]])
GRID = (6, 8, 8)


def on_grid(places, numbers):
    return Atoms(numbers=numbers, scaled_positions=np.asarray(places) / GRID, cell=CELL, pbc=True)


def search(pooling="sites", seed=0):
    places = [[0, 0, 0], [3, 4, 4], [1, 6, 3], [4, 1, 6]]
    target = Target.of(on_grid(places, [3, 8, 8, 22]), EAD_SHORT, pooling)
    return GridSearch(target, CELL, GRID, torch.Generator().manual_seed(seed)), torch.tensor(places)


def invariants(places, numbers):
    batch = CrystalBatch.from_atoms([on_grid(p, numbers) for p in places])
    return EAD_SHORT(batch).view(len(places), len(numbers), -1).float()


def test_looked_up_moments_are_the_descriptor():
    found, _ = search()
    places = found._random(3, 4)
    expected = (invariants(places.numpy(), [3, 8, 8, 22]) / found._scale + 0.01).sqrt()
    assert torch.allclose(found._numbers_of(found._moments(places)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pooling", ["sites", "moments", "extrema"])
def test_a_drawn_atom_leaves_consistent_moments(pooling):
    found, _ = search(pooling)
    places = found._random(5, 4)
    moments = found._moments(places)
    loss = None
    for step in range(6):
        atom = torch.tensor([0, 1, 2, 3, step % 4])
        places, moments, loss = found._draw(places, moments, atom, points=20, temperature=0.1)
    fresh = found._moments(places)
    assert torch.allclose(moments, fresh, rtol=1e-3, atol=1e-2)
    assert torch.allclose(loss, found._loss(found._numbers_of(fresh)), rtol=1e-2, atol=1e-4)


def test_annealing_finds_the_crystal_on_the_grid():
    found, places = search()
    frac, loss = found.anneal(trials=8, sweeps=30, points=100)
    assert loss.min() < 1e-5
    assert found._loss(found._numbers_of(found._moments(places[None]))) < 1e-6
    best = (frac[loss.argmin()] * torch.tensor(GRID)).round().long()
    shift = (best[0] - places[0]) % torch.tensor(GRID)
    back = {tuple(p) for p in ((best - shift) % torch.tensor(GRID))[1:3].tolist()}
    # up to translation (and inversion, which no invariant sees)
    mirrored = {tuple(((-p) % torch.tensor(GRID)).tolist()) for p in places[1:3]}
    assert back in ({tuple(p.tolist()) for p in places[1:3]}, mirrored)


def test_the_seed_decides():
    first, again, other = (search(seed=s)[0].anneal(2, 2, 10)[0] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_grid_of_a_cell():
    grid = grid_of(CELL, 0.5)
    assert all(length / points <= 0.5 for length, points in zip(np.linalg.norm(CELL, axis=1), grid, strict=True))
    assert grid_of(np.eye(3) * 100.0, 0.5) == (60, 60, 60)
