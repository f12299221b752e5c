"""Packaged evaluation networks: stated errors, same numbers for same crystals, sentences for what is no crystal."""

from __future__ import annotations

import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell

from asegen.errors import CheckpointError
from asegen.metrics import learned
from asegen.metrics.learned import evaluators, learned_features, load_evaluator

NAMES = ("carbon-24", "mp20", "perov-5")


@pytest.fixture(scope="module")
def materials() -> list[Atoms]:
    """30 crystals of MP-20's validation split with their formation energies (Materials Project, CC BY 4.0)."""
    return ase.io.read(Path(__file__).with_name("energies.extxyz"), ":")


@pytest.fixture(scope="module")
def features(materials):
    return learned_features(materials)


def test_packaged_files():
    assert tuple(evaluators()) == NAMES
    for name, path in evaluators().items():
        assert path.stat().st_size < 500_000
        evaluator = load_evaluator(name)
        header = evaluator.header
        assert header["name"] == name
        assert header["data"]["licence"] and header["data"]["name"]
        assert header["metrics"]["held out"]["mae"] < 0.5 * header["metrics"]["held out"]["mae_of_the_mean"]
        assert not any(parameter.requires_grad for parameter in evaluator.network.parameters())


def test_stated_error_is_found_again(materials, features):
    truth = np.array([atoms.info["formation_energy_per_atom"] for atoms in materials])
    error = np.abs(features.energies - truth).mean()
    stated = load_evaluator("mp20").header["metrics"]["test"]["mae"]
    assert error < 3 * stated
    assert error < 0.2 * np.abs(truth - truth.mean()).mean()


def test_shapes_and_types(materials, features):
    assert features.activations.shape == (30, load_evaluator("mp20").network.output.in_features)
    assert features.activations.dtype == features.energies.dtype == np.float64
    assert features.reasons == [""] * 30
    assert features.unseen == [[]] * 30
    assert features.valid.all()
    assert np.isfinite(features.activations).all() and np.isfinite(features.energies).all()
    empty = learned_features([])
    assert empty.activations.shape == (0, features.activations.shape[1])
    assert len(empty.valid) == 0


def test_shaken_crystals_move_away(materials, features):
    """What the Fréchet distance rests on. Energies are not asked for: trained on relaxed crystals alone, mp20 cannot tell them."""
    random = np.random.default_rng(0)
    before = 0.0
    for scale in (0.1, 0.3, 0.9):
        shaken = [atoms.copy() for atoms in materials]
        for atoms in shaken:
            atoms.positions += random.normal(scale=scale, size=atoms.positions.shape)
        moved = np.linalg.norm(learned_features(shaken).activations - features.activations, axis=1).mean()
        assert moved > 1.5 * before
        before = moved


def test_carbon_shaken_lies_higher():
    """Carbon-24 holds crystals far from equilibrium, so its energies do know."""
    diamond = bulk("C", "diamond", a=3.57, cubic=True)
    shaken = diamond.copy()
    shaken.rattle(0.2, seed=0)
    perfect, higher = learned_features([diamond, shaken], "carbon-24").energies
    assert perfect + 0.05 < higher < -150


@pytest.mark.parametrize("name", NAMES)
def test_deterministic_and_independent_of_the_batch(materials, name):
    state = torch.random.get_rng_state()
    learned._load.cache_clear()
    first = learned_features(materials, name)
    assert torch.equal(torch.random.get_rng_state(), state)
    again = learned_features(materials, name)
    np.testing.assert_array_equal(again.activations, first.activations)
    np.testing.assert_array_equal(again.energies, first.energies)
    for size in (1, 7):
        other = learned_features(materials[::-1], name, batch_size=size)
        np.testing.assert_allclose(other.activations[::-1], first.activations, atol=1e-10)
        np.testing.assert_allclose(other.energies[::-1], first.energies, atol=1e-10)


def test_large_cells_are_evaluated_fewer_at_a_time(materials, features, monkeypatch):
    batches = []
    whole = learned._evaluate
    monkeypatch.setattr(learned, "_EDGES", 1000)
    monkeypatch.setattr(learned, "_evaluate", lambda evaluator, graphs: batches.append(graphs) or whole(evaluator, graphs))
    found = learned_features(materials)
    assert len(batches) > 3
    assert all(len(graphs) == 1 or sum(len(g.source) for g in graphs) <= 1000 for graphs in batches)
    np.testing.assert_allclose(found.energies, features.energies, atol=1e-10)


def test_invariant(materials, features):
    random = np.random.default_rng(0)
    changed = []
    for number, atoms in enumerate(materials):
        other = make_supercell(atoms, [[1, 0, 0], [1, 1, 0], [0, -1, 1]], wrap=False)
        if number % 3 == 0:
            other = other.repeat((1, 2, 1))
        other.rotate(random.uniform(0, 360), random.normal(size=3), rotate_cell=True)
        other.translate(random.normal(size=3))
        changed.append(other[random.permutation(len(other))])
    found = learned_features(changed)
    np.testing.assert_allclose(found.activations, features.activations, atol=1e-8)
    np.testing.assert_allclose(found.energies, features.energies, atol=1e-8)


def test_odd_crystals():
    odd = [
        bulk("Po", "sc", a=3.35),
        Atoms("OOTi", positions=[[0, 0, 0], [0, 0, 0.01], [0, 0, 0]], cell=[4] * 3, pbc=True),
        bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat((5, 5, 1)),
        bulk("He", "fcc", a=4.2),
        Atoms("H20", scaled_positions=np.random.default_rng(0).random((20, 3)), cell=[1] * 3, pbc=True),
    ]
    found = learned_features(odd)
    assert found.reasons == [""] * 5
    assert np.isfinite(found.energies).all() and np.isfinite(found.activations).all()
    assert np.abs(found.energies).max() < 100
    seen = load_evaluator("mp20").elements
    assert found.unseen == [[atoms.symbols[0]] if atoms.numbers[0] not in seen else [] for atoms in odd]
    assert learned_features(odd[2:3], "carbon-24").unseen == [["Na", "Cl"]]


def test_what_is_no_crystal_has_a_reason(rocksalt):
    flat, blurred, molecule = rocksalt.copy(), rocksalt.copy(), Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.1]])
    flat.cell[2] = flat.cell[1]
    blurred.positions[0, 0] = np.inf
    undecided = rocksalt.copy()
    undecided.numbers[0] = 0
    given = [flat, rocksalt, blurred, molecule, Atoms(pbc=True), undecided, rocksalt]
    found = learned_features(given)
    assert [bool(reason) for reason in found.reasons] == [True, False, True, True, True, True, False]
    assert found.valid.tolist() == [False, True, False, False, False, False, True]
    assert np.isnan(found.energies[~found.valid]).all() and np.isnan(found.activations[~found.valid]).all()
    assert "volume" in found.reasons[0] and "finite" in found.reasons[2] and "element" in found.reasons[5]
    np.testing.assert_allclose(found.energies[1], learned_features([rocksalt]).energies[0], atol=1e-10)


def test_files_that_are_no_evaluators(tmp_path, small_path):
    with pytest.raises(CheckpointError, match="mp20"):
        load_evaluator("nothing")
    with pytest.raises(CheckpointError, match="evaluation network"):
        load_evaluator(small_path)
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle.safetensors")
    with pytest.raises(CheckpointError):
        load_evaluator(tmp_path / "pickle.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(evaluators()["mp20"].read_bytes()[:-1000])
    with pytest.raises(CheckpointError):
        load_evaluator(broken)
    copy = Path(shutil.copy(evaluators()["mp20"], tmp_path / "copy.safetensors"))
    assert load_evaluator(copy).header == load_evaluator("mp20").header
