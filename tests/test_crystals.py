import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from asegen import CrystalBatch
from asegen.crystals import wrap
from asegen.errors import CrystalError
from asegen.prior import start_crystal


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 1000))
def test_atoms_to_batch_and_back_without_loss(sizes, seed):
    random = np.random.default_rng(seed)
    crystals = [start_crystal(random.integers(1, 84, size), seed + k) for k, size in enumerate(sizes)]
    for atoms in crystals:
        atoms.positions += random.normal(size=3) * 10  # outside the cell
    batch = CrystalBatch.from_atoms(crystals)
    assert batch.num_atoms.tolist() == sizes
    for before, after in zip(crystals, batch.to_atoms(), strict=True):
        assert (before.numbers == after.numbers).all()
        assert np.allclose(before.positions, after.positions, atol=1e-12 * np.abs(before.positions).max())
        assert (before.cell.array == after.cell.array).all()
        assert after.pbc.all()
    assert np.allclose(batch.positions.numpy(), np.concatenate([a.positions for a in crystals]))
    assert np.allclose(batch.volume.numpy(), [a.get_volume() for a in crystals])


def test_select_takes_crystals_in_the_order_asked_for():
    crystals = [start_crystal(np.full(n, 10 + n), n) for n in (3, 1, 2)]
    batch = CrystalBatch.from_atoms(crystals).select([2, 0])
    assert batch.species.tolist() == [12, 12, 13, 13, 13]
    assert batch.index.tolist() == [0, 0, 1, 1, 1]


def test_wrapping_ends_below_one():
    wrapped = wrap(torch.tensor([-1e-18, 1.0, -0.25, 3.5], dtype=torch.float64))
    assert wrapped.tolist() == [0.0, 0.0, 0.75, 0.5]


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms(pbc=True, cell=[1, 1, 1]), "no atoms"),
        (Atoms("H", cell=[4, 4, 4]), "not periodic"),
        (Atoms("H", cell=[4, 4, 0], pbc=True), "without volume"),
        (Atoms("H", cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]], pbc=True), "without volume"),
        (Atoms("H", positions=[[np.nan, 0, 0]], cell=[4, 4, 4], pbc=True), "not a finite number"),
    ],
)
def test_what_is_no_crystal_is_refused_with_a_reason(atoms, words):
    with pytest.raises(CrystalError, match=words):
        CrystalBatch.from_atoms(atoms)
