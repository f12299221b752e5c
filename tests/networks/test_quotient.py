"""One atom per orbit instead of the whole cell: the same scores, fewer edges."""

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
from asegen.symmetry import SpaceGroup, Symmetry, crystal_from_sites, space_group, symmetric_crystal
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


SYSTEM = DiffusionSystem(shaken_network("equivariant", features=8, layers=3))
EXACT = {lmax: DiffusionSystem(exact_network(features=4, layers=3, lmax=lmax, cutoff=4.5)) for lmax in (1, 2)}


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
    cell = conventional_cell(group.lattice_system, 20.0 * total * (1 if primitive else 1 / 2), 0.2 * random.normal(size=6))
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
    """Largest difference over the largest value, the worst of the three kinds of score."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        a, b = a.nan_to_num(neginf=0), b.nan_to_num(neginf=0)
        assert a.shape == b.shape and a.dtype == b.dtype and not a.isnan().any() and b.abs().max() > 0
        worst = max(worst, float((a - b).abs().max() / b.abs().max()))
    return worst


def shuffled(atoms, symmetry, seed):
    """The crystal with its atoms in another order and images, its symmetry found from its operations."""
    order = np.random.default_rng(seed).permutation(len(atoms))
    mixed = atoms[order]
    mixed.set_scaled_positions(mixed.get_scaled_positions(wrap=False) + np.random.default_rng(seed).integers(-2, 3, (len(atoms), 3)))
    return mixed, order


@pytest.mark.parametrize("lmax", [1, 2])
@given(number=numbers, seed=seeds, primitive=st.booleans())
def test_one_atom_per_orbit_says_what_the_whole_cell_says(lmax, number, seed, primitive):
    atoms, symmetry = symmetric(number, seed, primitive)
    batch = CrystalBatch.from_atoms(atoms)
    whole = exact_scores(lmax, batch)
    if symmetry.dof == 0:  # nothing may move: the scores are rounding
        whole = whole._replace(position=whole.position + 1)
        found = exact_scores(lmax, batch, symmetry)
        assert error(found._replace(position=found.position + 1), whole) < 1e-10
    else:
        assert error(exact_scores(lmax, batch, symmetry), whole) < 1e-10


@given(number=numbers, seed=seeds)
def test_in_single_precision_it_is_the_same_to_rounding(number, seed):
    atoms, symmetry = symmetric(number, seed)
    batch = CrystalBatch.from_atoms(atoms)
    found, whole = scores(SYSTEM, batch, symmetry), scores(SYSTEM, batch)
    assert error(found[1:], whole[1:]) < 1e-5
    if symmetry.dof > 0:
        assert error(found[:1], whole[:1]) < 1e-5
