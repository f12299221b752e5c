"""One atom per orbit instead of the whole cell: the same scores, fewer edges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import OPTIONS, shaken_network
from hypothesis import given
from hypothesis import strategies as st

from asegen import CrystalBatch
from asegen.dynamics.batched import sample
from asegen.dynamics.rules import Walk
from asegen.graphs import neighbours
from asegen.networks import equivariant
from asegen.networks.orbits import wigner
from asegen.prior import start_crystal
from asegen.symmetry import Symmetry, crystal_from_sites, space_group, symmetric_crystal
from asegen.symmetry.lattices import conventional_cell
from asegen.systems import diffusion
from asegen.systems.diffusion import DiffusionSystem

numbers, seeds = st.integers(1, 230), st.integers(0, 10_000)


class _float64:
    """In the place of the network's own builder context; coupling coefficients of float32 are equivariant to 1e-8 only."""

    def __enter__(self):
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_):
        torch.set_default_dtype(torch.float32)


def exact_network(**options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equivariant, "_float32", _float64)
        return shaken_network("equivariant", **options).double()


EXACT = {lmax: DiffusionSystem(exact_network(features=4, layers=3, lmax=lmax, cutoff=4.5)) for lmax in (1, 2)}
SYSTEM = DiffusionSystem(shaken_network("equivariant", features=4, layers=3, cutoff=4.5))
SYSTEM.network.load_state_dict(EXACT[1].network.state_dict())


def symmetric(number, seed, primitive=True, most=30):
    """A turned crystal on a few random Wyckoff positions, atoms and symmetry."""
    group, random = space_group(number), np.random.default_rng(seed)
    sites, total = [], 0
    for i in random.permutation(len(group.positions)):
        position = group.positions[i]
        size = position.multiplicity_primitive if primitive else position.multiplicity
        if not sites or (total + size <= most and len(sites) < 3):
            sites.append((("Na", "Cl", "O")[len(sites)], position.label, random.random(position.dof)))
            total += size
    cells = len(group.setting.centrings) if primitive else 1
    cell = conventional_cell(group.lattice_system, 20.0 * total * cells, 0.2 * random.normal(size=6))
    return crystal_from_sites(group, sites, cell @ np.linalg.qr(random.normal(size=(3, 3)))[0], primitive)


def scores(system, batch, symmetry=None):
    time = torch.linspace(0.2, 0.7, len(batch), dtype=torch.float64)
    with torch.no_grad():
        return system.scores(batch, time, symmetry=symmetry)


def exact_scores(lmax, batch, symmetry=None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion, "_to_float", lambda inputs: inputs)
        return scores(EXACT[lmax], batch, symmetry)


def error(found, expected):
    """Largest difference over the largest value (symmetry may force small ones, rounding stays), the worst of the three scores."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        a, b = a.nan_to_num(neginf=0), b.nan_to_num(neginf=0)
        assert a.shape == b.shape and not a.isnan().any() and not b.isnan().any()
        worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp(min=0.1)))
    return worst


def edges_seen(system, batch, symmetry=None):
    """Rows that go through the tensor product of the first layer."""
    rows = []
    product = system.network.layers[0].conv.tp_scatter.tp
    hook = product.register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[1])))
    scores(system, batch, symmetry)
    hook.remove()
    return rows


@pytest.mark.parametrize("lmax", [1, 2])
@given(number=numbers, seed=seeds, primitive=st.booleans())
def test_one_atom_per_orbit_says_what_the_whole_cell_says(lmax, number, seed, primitive):
    atoms, symmetry = symmetric(number, seed, primitive)
    batch = CrystalBatch.from_atoms(atoms)
    assert error(exact_scores(lmax, batch, symmetry), exact_scores(lmax, batch)) < 1e-10


@given(number=numbers, seed=seeds)
def test_in_single_precision_it_is_as_close_to_the_truth_as_the_whole_cell(number, seed):
    """How close that is depends on the crystal: atoms on top of each other and forces that cancel cost both their digits."""
    atoms, symmetry = symmetric(number, seed)
    batch = CrystalBatch.from_atoms(atoms)
    truth = exact_scores(1, batch)
    rounding = error(scores(SYSTEM, batch), truth)
    assert error(scores(SYSTEM, batch, symmetry), truth) < 5 * rounding + 1e-5


@given(number=numbers, seed=seeds)
def test_order_images_and_neighbours_in_the_batch_do_not_matter(number, seed):
    """Atoms of an orbit apart from each other, the first not the one that the operations start from, a crystal of P1 in between."""
    random = np.random.default_rng(seed)
    parts, crystals = [], []
    for k in range(2):
        atoms, symmetry = symmetric((number + 97 * k) % 230 + 1, seed + k)
        order = torch.from_numpy(random.permutation(len(atoms)))
        values = {name: getattr(symmetry, name)[order] for name in ("site", "rotation", "shift")}
        parts.append(replace(symmetry, **values))
        crystals.append(atoms[order.numpy()])
        crystals[-1].positions += random.integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    parts.insert(1, Symmetry.none(4))
    crystals.insert(1, start_crystal(np.array([8, 8, 22, 38]), seed))
    batch, together = CrystalBatch.from_atoms(crystals), Symmetry.cat(parts)
    assert error(exact_scores(1, batch, together), exact_scores(1, batch)) < 1e-10


def test_only_edges_that_end_on_representatives_are_computed():
    atoms, symmetry = symmetric(225, 3)
    batch = CrystalBatch.from_atoms(atoms)
    degree = torch.bincount(neighbours(batch, SYSTEM.network.cutoff).source)
    assert symmetry.num_sites < len(atoms) / 2
    assert edges_seen(SYSTEM, batch) == [int(degree.sum())]
    assert edges_seen(SYSTEM, batch, symmetry) == [int(degree[symmetry.first].sum())]


def test_centres_pick_edges_of_the_whole_graph():
    batch = CrystalBatch.from_atoms([start_crystal(np.full(n, 14), n) for n in (3, 5)])
    centres = torch.tensor([6, 1])
    whole, part = neighbours(batch, 5.0), neighbours(batch, 5.0, centres)
    kept = torch.isin(whole.source, centres)
    for name in ("source", "target", "shift", "crystal"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[kept])


def test_without_symmetry_nothing_changes():
    atoms = [start_crystal(np.array([8, 22, 38]), 1), start_crystal(np.array([11, 17]), 2)]
    batch = CrystalBatch.from_atoms(atoms)
    for a, b in zip(scores(SYSTEM, batch, Symmetry.none([3, 2])), scores(SYSTEM, batch), strict=True):
        assert torch.equal(a, b)


def test_other_networks_do_not_mind_the_symmetry():
    system = DiffusionSystem(shaken_network(**OPTIONS))
    atoms, symmetry = symmetric(62, 0)
    batch = CrystalBatch.from_atoms(atoms)
    for a, b in zip(scores(system, batch, symmetry), scores(system, batch), strict=True):
        assert torch.equal(a, b)


@given(seeds)
def test_features_turn_as_a_representation_of_all_rotations(seed):
    random = np.random.default_rng(seed)
    turns = torch.from_numpy(np.linalg.qr(random.normal(size=(2, 3, 3)))[0])
    both = torch.cat([turns, turns[:1] @ turns[1:], -torch.eye(3, dtype=torch.float64)[None]])
    for order, matrix in enumerate(wigner(both, 3)):
        assert torch.allclose(matrix[2], matrix[0] @ matrix[1], atol=1e-12)
        assert torch.allclose(matrix[0] @ matrix[0].T, torch.eye(2 * order + 1, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(matrix[3], (-1) ** order * torch.eye(2 * order + 1, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(wigner(both, 1)[1], both, atol=1e-12)


def generated(checkpoint, monkeypatch, starts, symmetry, use):
    """Crystals of a symmetric walk, and what the network was told each time."""
    told = []
    original = DiffusionSystem.scores_at

    def spy(self, *arguments, **options):
        told.append(options["symmetry"])
        return original(self, *arguments, **{**options, "symmetry": options["symmetry"] if use else None})

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionSystem, "scores_at", spy)
        walk = Walk(steps=6, correctors=1)
        finished = sample(checkpoint, starts, walk, symmetry=symmetry, device=torch.device("cpu"), batch_size=4)
        return [atoms for part in finished for _, atoms in part], told


def test_a_symmetric_run_uses_it_and_ends_at_the_same_crystals(small_equivariant, monkeypatch):
    starts, symmetry = [], []
    for number, formula in ((62, "Ca4Ti4O12"), (62, "Ca4Ti4O12"), (227, "Mg2Al4O8"), (225, "NaCl")):
        atoms = symmetric_crystal(formula, number, seed=number)
        symmetry.append(atoms.constraints[0].symmetry)
        atoms.set_constraint()
        starts.append(atoms)
    fast, told = generated(small_equivariant, monkeypatch, starts, symmetry, use=True)
    slow, _ = generated(small_equivariant, monkeypatch, starts, symmetry, use=False)
    assert told and all(one is not None for one in told)
    for a, b in zip(fast, slow, strict=True):
        assert np.abs(a.get_scaled_positions(wrap=False) - b.get_scaled_positions(wrap=False)).max() < 1e-4
        assert np.abs(a.cell.array - b.cell.array).max() < 1e-3


def test_elements_that_are_decided_atom_by_atom_are_not_shared(small_equivariant, monkeypatch):
    atoms = symmetric_crystal("SrTiO3", 221, seed=0)
    symmetry = atoms.constraints[0].symmetry
    atoms.set_constraint()
    atoms.info["reference_volume"] = 60.0
    atoms.numbers[:] = 0
    _, told = generated(small_equivariant, monkeypatch, [atoms], [symmetry], use=True)
    assert told and all(one is None for one in told)
