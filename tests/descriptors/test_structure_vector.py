"""Structure vectors: invariances, the way there and back, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.geometry import cellpar_to_cell
from hypothesis import given
from hypothesis import strategies as st

from asegen.crystals import CrystalBatch
from asegen.descriptors.ead import EAD
from asegen.descriptors.structure_vector import (
    Decoded,
    Rejected,
    StructureVector,
    cell_of,
    cell_parameters,
    count_reasons,
    ead_of,
    nearest_counts,
    pooled,
)
from asegen.errors import DataError, DescriptorError

SMALL = EAD(orders=(0, 1, 2), radial=((3.0, 1.5), (3.0, 2.5)), cutoff=5.0, directions=True)
LAYOUT = StructureVector(SMALL, (8, 11, 17, 22, 38), 8)


def batch_of(*crystals: Atoms) -> CrystalBatch:
    return CrystalBatch.from_atoms(list(crystals))


@pytest.fixture
def crystals(crystal, rocksalt) -> list[Atoms]:
    return [crystal, rocksalt, bulk("Ti", "hcp", a=2.95, c=4.68)]


def test_there_and_back(crystals):
    vectors = LAYOUT.encode(batch_of(*crystals))
    assert vectors.shape == (3, LAYOUT.size) and LAYOUT.size == 13 + 5 + 1 + 6
    targets = pooled(SMALL, batch_of(*crystals))
    for atoms, vector, target in zip(crystals, vectors, targets, strict=True):
        decoded = LAYOUT.decode(vector.float())
        assert isinstance(decoded, Decoded)
        assert decoded.numbers.tolist() == sorted(atoms.numbers)
        np.testing.assert_allclose(np.linalg.det(decoded.cell), atoms.cell.volume, rtol=1e-5)
        np.testing.assert_allclose(decoded.cell @ decoded.cell.T, atoms.cell.array @ atoms.cell.array.T, atol=1e-4)
        torch.testing.assert_close(decoded.target, target, rtol=1e-5, atol=1e-5)


def test_vectors_do_not_see_rotation_translation_and_order(crystal):
    moved = crystal.copy()
    moved.rotate(40, (1, 2, 3), rotate_cell=True)
    moved.positions += [0.3, -7.0, 1.1]
    moved = moved[[3, 0, 4, 2, 1]]
    mirrored = crystal.copy()
    mirrored.set_cell(-crystal.cell.array, scale_atoms=True)
    a, b, c = LAYOUT.encode(batch_of(crystal, moved, mirrored))
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-6)
    torch.testing.assert_close(a, c, rtol=1e-8, atol=1e-6)


def test_pooling_is_the_plain_one(crystals):
    batch = batch_of(*crystals)
    target, invariants = pooled(SMALL, batch), SMALL(batch)
    for number, (lo, hi) in enumerate(itertools.pairwise(batch.offsets.tolist())):
        torch.testing.assert_close(target[number, :6], invariants[lo:hi].amax(0))
        torch.testing.assert_close(target[number, 6:12], invariants[lo:hi].amin(0))
    assert float(target[1, 12]) == pytest.approx(2.82)
    lonely = Atoms("Na", cell=[20, 20, 20], pbc=True)
    assert float(pooled(SMALL, batch_of(lonely))[0, 12]) == SMALL.cutoff


@given(st.lists(st.floats(-1.5, 4.0), min_size=1, max_size=4), st.integers(1, 6))
def test_the_nearest_composition_is_the_nearest(wanted, total):
    wanted = np.array(wanted)
    found = nearest_counts(wanted, total)
    assert found.sum() == total and found.min() >= 0
    every = (np.array(c) for c in itertools.product(range(total + 1), repeat=len(wanted)) if sum(c) == total)
    best = min(float(((c - wanted) ** 2).sum()) for c in every)
    assert float(((found - wanted) ** 2).sum()) == pytest.approx(best)


def test_what_is_no_crystal_is_rejected_and_counted(rocksalt):
    good = LAYOUT.encode(batch_of(rocksalt))[0]
    bad = {}
    for name, place, value in (
        ("none", LAYOUT.count, 0.2),
        ("many", LAYOUT.count, 9.0),
        ("between", LAYOUT.composition, torch.tensor([0.0, 0.25, 0.5, 0.25, 0.0])),
        ("negative", LAYOUT.composition, torch.tensor([-0.5, 0.75, 0.75, 0.0, 0.0])),
        ("flat", LAYOUT.cell, torch.tensor([4.0, 4, 4, 60, 60, 119.9])),
        ("no triangle", LAYOUT.cell, torch.tensor([4.0, 4, 4, 30, 30, 90])),
        ("short", LAYOUT.cell, torch.tensor([4.0, -4, 4, 90, 90, 90])),
        ("angle", LAYOUT.cell, torch.tensor([4.0, 4, 4, 90, 190, 90])),
        ("small", LAYOUT.cell, torch.tensor([1.0, 1, 1, 90, 90, 90])),
        ("nan", LAYOUT.cell, torch.nan),
    ):
        bad[name] = good.clone()
        bad[name][place] = value
    results = {name: LAYOUT.decode(vector) for name, vector in bad.items()}
    reasons = {name: result.reason for name, result in results.items() if isinstance(result, Rejected)}
    assert reasons == {
        "none": "number of atoms",
        "many": "number of atoms",
        "between": "composition",
        "negative": "composition",
        **dict.fromkeys(("flat", "no triangle", "short", "angle", "small", "nan"), "cell"),
    }
    assert count_reasons([*results.values(), LAYOUT.decode(good)]) == {"number of atoms": 2, "composition": 2, "cell": 6}
    assert "a, b, c" in results["flat"].sentence and "9 atoms" in results["many"].sentence


def test_cells_there_and_back():
    parameters = torch.tensor([[3.0, 4.0, 5.0, 80.0, 95.0, 110.0], [4.0, 4.0, 4.0, 60.0, 60.0, 60.0]], dtype=torch.float64)
    cells = torch.from_numpy(np.stack([cellpar_to_cell(p) for p in parameters.numpy()]))
    torch.testing.assert_close(cell_parameters(cells), parameters)
    np.testing.assert_allclose(cell_of(parameters[0].numpy()), cells[0].numpy())


def test_what_does_not_fit_the_layout_is_named(rocksalt, crystal):
    with pytest.raises(DataError, match="no place for K"):
        LAYOUT.encode(batch_of(bulk("K", "bcc", a=5.3)))
    with pytest.raises(DataError, match="has 16 atoms; the vectors were made for up to 8"):
        LAYOUT.encode(batch_of(rocksalt.repeat(2)))
    with pytest.raises(DataError, match="other parameters or elements"):
        LAYOUT.decode(torch.zeros(LAYOUT.size + 1))
    for elements, most in (((), 5), ((8, 8), 5), ((11, 8), 5), ((0, 8), 5), ((8,), 0)):
        with pytest.raises(DescriptorError):
            StructureVector(SMALL, elements, most)


def test_headers_hold_the_layout():
    assert StructureVector.from_description(LAYOUT.describe()) == LAYOUT
    for bad in ({}, {"orders": [0]}, {"orders": [0], "radial": [[1.0]], "cutoff": 5.0}, {**LAYOUT.describe()["ead"], "width": 1}):
        with pytest.raises(DescriptorError, match="orders, radial"):
            ead_of(bad)
