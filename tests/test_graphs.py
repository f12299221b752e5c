import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given
from hypothesis import strategies as st

from asegen import CrystalBatch
from asegen.errors import CrystalError
from asegen.graphs import nearest, neighbours
from asegen.prior import start_crystal


def by_hand(atoms: Atoms, cutoff: float) -> list[float]:
    """Every distance within the cutoff, from a box of images that is certainly large enough."""
    heights = atoms.get_volume() / np.linalg.norm(np.cross(atoms.cell[[1, 2, 0]], atoms.cell[[2, 0, 1]]), axis=1)
    reach = np.ceil(cutoff / heights).astype(int) + 2
    images = np.array(list(itertools.product(*(range(-r, r + 1) for r in reach)))) @ atoms.cell.array
    positions = atoms.get_positions(wrap=True)
    found = []
    for i, j in itertools.product(range(len(atoms)), repeat=2):
        distance = np.linalg.norm(positions[j] + images - positions[i], axis=1)
        found += distance[(distance < cutoff) & (distance > 1e-9)].tolist()
    return sorted(found)


@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(2.0, 6.0))
def test_neighbours_are_exact_for_any_cell(seed, size, cutoff):
    atoms = start_crystal(np.full(size, 14), seed)
    atoms.positions += 20 * np.random.default_rng(seed).normal(size=(size, 3))
    batch = CrystalBatch.from_atoms(atoms)
    graph = neighbours(batch, cutoff)
    distances = graph.vectors(batch.frac, batch.cell).norm(dim=-1).numpy()
    assert np.allclose(np.sort(distances), by_hand(atoms, cutoff), atol=1e-9)


@pytest.mark.parametrize(
    "cell",
    [
        [[1.2, 0, 0], [0, 9, 0], [0, 0, 9]],  # one short vector
        [[3, 0, 0], [2.9, 0.9, 0], [2.5, 2.5, 2.0]],  # skewed
        [[2.5, 0, 0], [0, 2.5, 0], [0, 0, 2.5]],  # one atom, own images only
    ],
)
def test_against_ase_for_odd_cells(cell):
    atoms = Atoms("Si", cell=cell, pbc=True)
    batch = CrystalBatch.from_atoms(atoms)
    graph = neighbours(batch, 6.0)
    assert np.allclose(np.sort(graph.vectors(batch.frac, batch.cell).norm(dim=-1)), np.sort(neighbor_list("d", atoms, 6.0)))


def test_edges_of_a_batch_stay_in_their_crystals(crystal, rocksalt):
    batch = CrystalBatch.from_atoms([crystal, rocksalt])
    graph = neighbours(batch, 5.0)
    assert (batch.index[graph.source] == graph.crystal).all() and (batch.index[graph.target] == graph.crystal).all()
    alone = neighbours(CrystalBatch.from_atoms(rocksalt), 5.0)
    assert int((graph.crystal == 1).sum()) == len(alone.source)


def test_nearest_takes_the_closest(rocksalt):
    batch = CrystalBatch.from_atoms(rocksalt)
    graph = nearest(batch, 6, 6.0)
    distances = graph.vectors(batch.frac, batch.cell).norm(dim=-1)
    assert torch.bincount(graph.source).tolist() == [6, 6]
    assert torch.allclose(distances, torch.full_like(distances, 2.82))


def test_a_collapsed_cell_is_refused():
    atoms = Atoms("Si", cell=[0.2, 0.2, 0.2], pbc=True)
    with pytest.raises(CrystalError, match="too small"):
        neighbours(CrystalBatch.from_atoms(atoms), 5.0)
