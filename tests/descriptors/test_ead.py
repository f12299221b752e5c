import itertools
import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from scipy.spatial.transform import Rotation

from asegen import CrystalBatch
from asegen.descriptors import EAD, OURS, PAPER, ead
from asegen.errors import AsegenError, CrystalError, DescriptorError

RADIAL = ((1.0, 1.0), (3.0, 2.2), (20.0, 2.0))
ALL_ORDERS = (0, 1, 2, 3, 4)
KINDS = [EAD(ALL_ORDERS, RADIAL, 5.0, directions) for directions in (False, True)]
both_kinds = pytest.mark.parametrize("kind", KINDS, ids=["vectors", "directions"])


def invariants_of(kind: EAD, atoms: Atoms) -> np.ndarray:
    return kind(CrystalBatch.from_atoms(atoms)).numpy()


def summed_directly(kind: EAD, atoms: Atoms) -> np.ndarray:
    """The definition, image by image."""
    cell, found = atoms.cell.array, []
    images = list(itertools.product(range(-4, 5), repeat=3))
    for i in range(len(atoms)):
        vectors, charges = [], []
        for j, image in itertools.product(range(len(atoms)), images):
            vector = atoms.positions[j] + np.array(image) @ cell - atoms.positions[i]
            if 1e-9 < np.linalg.norm(vector) < kind.cutoff:
                vectors.append(vector)
                charges.append(atoms.numbers[j])
        r = np.linalg.norm(vectors, axis=1)
        x, y, z = (np.array(vectors) / r[:, None] if kind.directions else np.array(vectors)).T
        damping = 0.5 * (np.cos(np.pi * r / kind.cutoff) + 1)
        row = []
        for order in kind.orders:
            for eta, center in kind.radial:
                weight = np.array(charges) * np.exp(-eta * (r - center) ** 2) * damping
                total = 0.0
                for a, b in itertools.product(range(order + 1), repeat=2):
                    c = order - a - b
                    if c >= 0:
                        multinomial = math.factorial(order) // (math.factorial(a) * math.factorial(b) * math.factorial(c))
                        total += multinomial * (weight * x**a * y**b * z**c).sum() ** 2
                row.append(total)
        found.append(row)
    return np.array(found)


@both_kinds
def test_it_is_the_sum_it_is_said_to_be(kind, crystal):
    shortest = 5.0 / np.linalg.norm(np.linalg.inv(crystal.cell.array), axis=0).max() ** -1
    assert shortest < 3.5  # so that the images of the direct sum are enough
    np.testing.assert_allclose(invariants_of(kind, crystal), summed_directly(kind, crystal), rtol=1e-10)


@pytest.mark.parametrize("kind", [OURS, EAD((0, 2), ((20.0, 1.5), (90.0, 2.0)), 9.0)], ids=["ours", "narrow"])
def test_neighbours_that_are_left_out_say_nothing(kind, crystal):
    """Beyond `reach` the radial functions vanish; orders may be any selection."""
    larger = EAD(kind.orders, (*kind.radial, (0.01, 0.0)), kind.cutoff, kind.directions)
    assert larger.reach == kind.cutoff >= kind.reach
    kept = [k for k, label in enumerate(larger.labels) if label in kind.labels]
    np.testing.assert_allclose(invariants_of(kind, crystal), invariants_of(larger, crystal)[:, kept], rtol=1e-10, atol=1e-12)
    assert PAPER.reach < 13


@both_kinds
@pytest.mark.parametrize("seed", range(3))
def test_invariances(kind, crystal, seed):
    random = np.random.default_rng(seed)
    expected = invariants_of(kind, crystal)

    def check(atoms, rows=slice(None)):
        np.testing.assert_allclose(invariants_of(kind, atoms), expected[rows], rtol=1e-8, atol=1e-8)

    turned = crystal.copy()
    turned.set_cell(crystal.cell.array @ Rotation.random(random_state=seed).as_matrix(), scale_atoms=True)
    check(turned)
    mirrored = crystal.copy()
    mirrored.set_cell(-crystal.cell.array, scale_atoms=True)
    check(mirrored)
    moved = crystal.copy()
    moved.translate(random.normal(size=3) * 5)
    check(moved)
    moved.positions += random.integers(-2, 3, size=(len(crystal), 3)) @ crystal.cell.array
    check(moved)
    order = random.permutation(len(crystal))
    check(crystal[order], order)
    # other vectors of the same lattice: a product of shears
    choice = np.eye(3, dtype=int)
    for _ in range(3):
        a, b = random.permutation(3)[:2]
        choice[a] += random.integers(-1, 2) * choice[b]
    recut = crystal.copy()
    recut.set_cell(choice @ crystal.cell.array, scale_atoms=False)
    check(recut)
    supercell = make_supercell(crystal, np.diag(random.permutation([2, 1, 1])))
    np.testing.assert_allclose(invariants_of(kind, supercell), np.tile(expected, (2, 1)), rtol=1e-8, atol=1e-8)


def test_many_crystals_are_each_alone(crystal, rocksalt):
    kind = KINDS[1]
    one = bulk("Cu")
    together = kind(CrystalBatch.from_atoms([crystal, rocksalt, one])).numpy()
    alone = np.concatenate([invariants_of(kind, atoms) for atoms in (crystal, rocksalt, one)])
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-12)
    assert together.shape == (8, kind.size) and len(kind.labels) == kind.size


def scalar_of(kind: EAD, crystal: Atoms):
    """A function of fractional coordinates and cell, with its variables."""
    batch = CrystalBatch.from_atoms(crystal)
    weights = torch.linspace(0.5, 1.5, len(crystal) * kind.size, dtype=torch.float64).view(len(crystal), -1)

    def function(frac, cell):
        return ((kind(CrystalBatch(batch.species, frac, cell, batch.num_atoms)) / 1000 + 1).log() * weights).sum()

    return function, batch.frac.clone().requires_grad_(), batch.cell.clone().requires_grad_()


@both_kinds
def test_first_and_second_derivatives(kind, crystal):
    small = crystal[:3]
    few = EAD((0, 2, 3), RADIAL[:2], 4.0, kind.directions)
    function, frac, cell = scalar_of(few, small)
    assert torch.autograd.gradcheck(function, (frac, cell), eps=1e-6, atol=1e-5, rtol=1e-5)
    assert torch.autograd.gradgradcheck(function, (frac, cell), eps=1e-6, atol=1e-4, rtol=1e-4)


@both_kinds
def test_derivative_along_a_strain(kind, crystal):
    function, frac, cell = scalar_of(kind, crystal)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    unit = torch.eye(3, dtype=torch.float64)
    (slope,) = torch.autograd.grad(function(frac, cell @ (unit + strain)), strain)
    step = 1e-5
    for a, b in itertools.product(range(3), repeat=2):
        change = torch.zeros(3, 3, dtype=torch.float64)
        change[a, b] = step
        difference = (function(frac, cell @ (unit + change)) - function(frac, cell @ (unit - change))) / (2 * step)
        assert float(difference) == pytest.approx(float(slope[a, b]), rel=1e-5, abs=1e-5)
    torch.testing.assert_close(slope, slope.T)  # a rotation changes nothing


@both_kinds
def test_blocks_change_nothing(kind, crystal, rocksalt, monkeypatch):
    """Blocks are computed again for gradients (checkpoints), second ones included."""
    batch = CrystalBatch.from_atoms([crystal, rocksalt])

    def everything():
        frac, cell = batch.frac.clone().requires_grad_(), batch.cell.clone().requires_grad_()
        values = kind(CrystalBatch(batch.species, frac, cell, batch.num_atoms))
        first = torch.autograd.grad((values + 1).log().sum(), (frac, cell), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (frac, cell))
        return [values.detach(), *(g.detach() for g in first), *second]

    whole = everything()
    edges = len(ead.neighbours(batch, kind.reach).source)
    for most in (1, edges // 3):
        monkeypatch.setattr(ead, "EDGES_AT_ONCE", most)
        for part, expected in zip(everything(), whole, strict=True):
            torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
        with torch.no_grad():
            torch.testing.assert_close(kind(batch), whole[0])


def test_gradients_by_backward_in_blocks(crystal, monkeypatch):
    function, frac, cell = scalar_of(KINDS[0], crystal)
    expected = torch.autograd.grad(function(frac, cell), (frac, cell))
    monkeypatch.setattr(ead, "EDGES_AT_ONCE", 50)
    function(frac, cell).backward()
    torch.testing.assert_close(frac.grad, expected[0])
    torch.testing.assert_close(cell.grad, expected[1])


@both_kinds
def test_one_atom(kind):
    atoms = bulk("Cu")
    np.testing.assert_allclose(invariants_of(kind, atoms), summed_directly(kind, atoms), rtol=1e-9, atol=1e-9)
    odd = [k for k, label in enumerate(kind.labels) if label.startswith(("L=1", "L=3"))]
    np.testing.assert_allclose(invariants_of(kind, atoms)[:, odd], 0.0, atol=1e-9)  # a centre of inversion


@both_kinds
def test_an_atom_alone_has_zeros(kind):
    batch = CrystalBatch.from_atoms(Atoms("He", positions=[[1.0, 2.0, 3.0]], cell=[30.0] * 3, pbc=True))
    frac = batch.frac.requires_grad_()
    values = kind(batch)
    assert values.shape == (1, kind.size) and not values.any()
    with_another = Atoms("HeCu2", positions=[[1, 2, 3], [15, 15, 15], [15, 15, 17.0]], cell=[30.0] * 3, pbc=True)
    found = invariants_of(kind, with_another)
    assert not found[0].any() and found[1:, : len(RADIAL)].all()
    assert frac.requires_grad


@both_kinds
def test_atoms_on_one_place_have_finite_derivatives(kind, rocksalt):
    rocksalt.positions[1] = rocksalt.positions[0]
    function, frac, cell = scalar_of(kind, rocksalt)
    first = torch.autograd.grad(function(frac, cell), (frac, cell), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), (frac, cell))
    assert all(torch.isfinite(g).all() for g in (*first, *second))


def test_single_precision(crystal):
    batch = CrystalBatch.from_atoms(crystal, torch.float32)
    found = OURS(batch)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), invariants_of(OURS, crystal), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"orders": ()}, "orders from 0 to 4"),
        ({"orders": (5,)}, "orders from 0 to 4"),
        ({"radial": ()}, "at least one radial function"),
        ({"cutoff": 0.0}, "must be positive"),
        ({"radial": ((-1.0, 1.0),)}, "must be positive"),
        ({"cutoff": float("nan")}, "must be positive"),
    ],
)
def test_parameters_that_make_no_sense(parameters, words):
    with pytest.raises(DescriptorError, match=words):
        EAD(**parameters)


def test_a_collapsed_cell_is_refused_in_words(rocksalt):
    squeezed = rocksalt.copy()
    squeezed.set_cell(rocksalt.cell.array * 0.05, scale_atoms=True)
    with pytest.raises(CrystalError, match=r"too small for neighbours within .* Å"):
        PAPER(CrystalBatch.from_atoms(squeezed))
    with pytest.raises(AsegenError, match="not periodic"):
        PAPER(CrystalBatch.from_atoms(Atoms("He", cell=[3, 3, 3])))
