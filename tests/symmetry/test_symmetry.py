import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asegen.lattice import unpack
from asegen.symmetry import Symmetry, crystal_from_sites, space_group
from asegen.symmetry.lattices import DIMENSIONS, conventional_cell
from asegen.symmetry.tables import match_atoms, symmetry_of_atoms, symmetry_of_letters

numbers, seeds = st.integers(1, 230), st.integers(0, 10_000)


def random_case(number, seed, primitive=True, most=30):
    """A crystal on a few random Wyckoff positions: atoms, symmetry, and the group's operations in its cell."""
    group, random = space_group(number), np.random.default_rng(seed)
    size = (lambda p: p.multiplicity_primitive) if primitive else (lambda p: p.multiplicity)
    sites, total = [], 0
    for i in random.permutation(len(group.positions)):
        position = group.positions[i]
        if not sites or (total + size(position) <= most and len(sites) < 3):
            sites.append((("Na", "Cl", "O")[len(sites)], position.label, random.random(position.dof)))
            total += size(position)
    cell = conventional_cell(group.lattice_system, 30.0 * total, 0.2 * random.normal(size=6))
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    atoms, symmetry = crystal_from_sites(group, sites, cell @ turn, primitive)
    return atoms, symmetry, group.setting.operations(primitive)


def group_average(values, atoms, operations):
    """Plain average of fractional displacements over all operations of the group."""
    frac = atoms.get_scaled_positions(wrap=False)
    # every site its own element: the images must be told apart by position alone, and distance 0 does that
    image, distance = match_atoms(frac, atoms.numbers, atoms.cell.array, *operations)
    assert distance.max() < 1e-8
    total = np.zeros_like(values)
    for rotation, row in zip(operations[0], image, strict=True):
        total[row] += values @ rotation.T
    return total / len(operations[0])


def draw(shape, seed):
    return torch.from_numpy(np.random.default_rng(seed + 77).normal(size=shape))


@given(numbers, seeds, st.booleans())
def test_displacements_are_the_average_over_the_group(number, seed, primitive):
    atoms, symmetry, operations = random_case(number, seed, primitive)
    step = draw((len(atoms), 3), seed)
    kept = symmetry.displacements(step)
    assert np.allclose(kept, group_average(step.numpy(), atoms, operations))
    assert torch.allclose(symmetry.displacements(kept), kept)
    assert torch.allclose(symmetry.displacements(step.float()).double(), kept, atol=1e-5)


@given(numbers, seeds)
def test_the_projection_is_orthogonal_and_its_rank_the_degrees_of_freedom(number, seed):
    atoms, symmetry, _ = random_case(number, seed)
    cell = torch.from_numpy(atoms.cell.array.copy())
    step = draw((len(atoms), 3), seed)
    kept = symmetry.displacements(step)
    assert abs(((kept @ cell) * ((step - kept) @ cell)).sum()) < 1e-9 * (step @ cell).square().sum()
    basis = torch.eye(3 * len(atoms), dtype=torch.float64).reshape(-1, len(atoms), 3)
    projector = torch.stack([symmetry.displacements(b) for b in basis]).reshape(3 * len(atoms), -1)
    assert torch.linalg.matrix_rank(projector, atol=1e-8) == symmetry.dof.item() == round(projector.trace().item())


@given(numbers, seeds)
def test_scores_are_dual_to_displacements(number, seed):
    atoms, symmetry, _ = random_case(number, seed)
    gradient, step = draw((len(atoms), 3), seed), draw((len(atoms), 3), seed + 1)
    kept = symmetry.scores(gradient)
    assert torch.isclose((kept * step).sum(), (gradient * symmetry.displacements(step)).sum())
    assert torch.allclose(symmetry.scores(kept), kept)
    # as forces (Cartesian) both projections are one: g = F Cᵀ
    cell = torch.from_numpy(atoms.cell.array.copy())
    force = gradient @ torch.linalg.inv(cell).mT
    assert torch.allclose(symmetry.displacements(force @ torch.linalg.inv(cell)) @ cell, kept @ torch.linalg.inv(cell).mT, atol=1e-10)


@given(numbers, seeds, st.booleans())
def test_positions_are_put_exactly_on_their_sites_in_their_image(number, seed, primitive):
    atoms, symmetry, _ = random_case(number, seed, primitive)
    exact = torch.from_numpy(atoms.get_scaled_positions(wrap=False))
    assert torch.allclose(symmetry.positions(exact), exact, atol=1e-12)
    images = torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, size=exact.shape)).double()
    off = exact + images + 0.02 * draw(exact.shape, seed)
    snapped = symmetry.positions(off)
    expected = exact + images + symmetry.displacements(off - exact - images)
    assert torch.allclose(snapped, expected, atol=1e-12)
    assert torch.allclose(symmetry.positions(snapped), snapped, atol=1e-13)


@given(numbers, seeds)
def test_cells_and_strains(number, seed):
    atoms, symmetry, (rotations, _) = random_case(number, seed)
    cell = torch.from_numpy(atoms.cell.array.copy())[None]
    assert torch.allclose(symmetry.cells(cell), cell, atol=1e-10)
    bent = cell @ torch.linalg.matrix_exp(0.1 * draw((1, 3, 3), seed))
    snapped = symmetry.cells(bent)
    metric = (snapped @ snapped.mT)[0].numpy()
    assert np.abs(rotations.transpose(0, 2, 1) @ metric @ rotations - metric).max() < 1e-12 * np.abs(metric).max()
    assert torch.allclose(symmetry.cells(snapped), snapped, atol=1e-10)
    strain = draw((1, 3, 3), seed)
    strain = strain + strain.mT
    kept = symmetry.strains(strain, cell)
    turns = atoms.cell.array.T @ rotations @ np.linalg.inv(atoms.cell.array.T)
    assert np.allclose(kept[0], np.mean(turns @ strain[0].numpy() @ turns.transpose(0, 2, 1), 0))
    # a cell strained by what was kept has the symmetry, however large the strain
    strained = cell @ torch.linalg.matrix_exp(0.5 * kept)
    assert torch.allclose(symmetry.cells(strained), strained, atol=1e-9)


@given(numbers, seeds)
def test_the_strain_basis_spans_the_symmetric_strains(number, seed):
    atoms, symmetry, _ = random_case(number, seed)
    cell = torch.from_numpy(atoms.cell.array.copy())[None]
    basis, count = symmetry.strain_basis(cell)[0], symmetry.cell_dof.item()
    assert torch.allclose(basis @ basis.mT, torch.diag((torch.arange(6) < count).double()), atol=1e-10)
    assert torch.allclose(unpack(basis[0]), torch.eye(3, dtype=torch.float64) / 3**0.5)
    matrices = unpack(basis[:count])
    assert torch.allclose(
        symmetry.strains(matrices, cell) if count == 1 else torch.cat([symmetry.strains(m[None], cell) for m in matrices]), matrices
    )


def test_lattice_dimensions_of_the_230_groups():
    for number in range(1, 231):
        group = space_group(number)
        symmetry = symmetry_of_letters(group, [group.letters[-1]])
        assert symmetry.cell_dof.item() == DIMENSIONS[group.lattice_system]
        assert symmetry.dof.item() == 3 and len(symmetry.site) == len(group.rotations)


@given(st.lists(st.tuples(numbers, seeds), min_size=1, max_size=4))
def test_a_batch_gives_what_each_crystal_gives_alone(cases):
    made = [random_case(*case)[:2] for case in cases]
    parts = [symmetry for _, symmetry in made]
    batch = Symmetry.cat(parts).to("cpu")
    assert len(batch) == len(parts) and torch.equal(batch.num_atoms, torch.tensor([len(atoms) for atoms, _ in made]))
    assert batch.dof.tolist() == [p.dof.item() for p in parts] and batch.cell_dof.tolist() == [p.cell_dof.item() for p in parts]
    exact = [torch.from_numpy(atoms.get_scaled_positions(wrap=False)) for atoms, _ in made]
    steps = [draw(e.shape, k) for k, e in enumerate(exact)]
    for method in ("displacements", "scores"):
        alone = [getattr(p, method)(s) for p, s in zip(parts, steps, strict=True)]
        assert torch.allclose(getattr(batch, method)(torch.cat(steps)), torch.cat(alone), atol=1e-13)
    off = [e + 0.01 * s for e, s in zip(exact, steps, strict=True)]
    assert torch.allclose(batch.positions(torch.cat(off)), torch.cat([p.positions(o) for p, o in zip(parts, off, strict=True)]), atol=1e-13)
    cell = torch.stack([torch.from_numpy(atoms.cell.array.copy()) for atoms, _ in made])
    strain = draw(cell.shape, 5)
    strain = strain + strain.mT
    for k, part in enumerate(parts):
        assert torch.allclose(batch.cells(cell)[k : k + 1], part.cells(cell[k : k + 1]))
        assert torch.allclose(batch.strains(strain, cell)[k : k + 1], part.strains(strain[k : k + 1], cell[k : k + 1]))
        found, alone = batch.strain_basis(cell)[k], part.strain_basis(cell[k : k + 1])[0]
        assert torch.allclose(found.mT @ found, alone.mT @ alone, atol=1e-9)


def test_no_symmetry_changes_nothing():
    none = Symmetry.none([3, 2])
    frac, cell = draw((5, 3), 0), torch.linalg.matrix_exp(0.3 * draw((2, 3, 3), 1))
    for method in (none.displacements, none.scores, none.positions):
        assert torch.equal(method(frac), frac)
    strain = cell + cell.mT
    assert torch.allclose(none.cells(cell), cell) and torch.allclose(none.strains(strain, cell), strain)
    assert none.dof.tolist() == [9, 6] and none.cell_dof.tolist() == [6, 6] and none.index.tolist() == [0, 0, 0, 1, 1]
    assert Symmetry.none(4).num_sites == 4


def test_cat_of_nothing():
    with pytest.raises(ValueError, match="at least one"):
        Symmetry.cat([])


@given(numbers, seeds)
def test_tables_from_operations_are_those_from_wyckoff_positions(number, seed):
    atoms, symmetry, operations = random_case(number, seed)
    random = np.random.default_rng(seed)
    order = random.permutation(len(atoms))
    frac = atoms.get_scaled_positions(wrap=False)[order] + random.integers(-1, 2, size=(len(atoms), 3))
    image, _ = match_atoms(frac, atoms.numbers[order], atoms.cell.array, *operations)
    other = symmetry_of_atoms(frac, *operations, image)
    step = draw(frac.shape, seed)
    inverse = np.argsort(order)
    assert torch.allclose(other.displacements(step)[inverse], symmetry.displacements(step[inverse]), atol=1e-12)
    assert torch.allclose(other.positions(torch.from_numpy(frac)), torch.from_numpy(frac), atol=1e-10)
    assert other.dof == symmetry.dof and other.num_sites == symmetry.num_sites


@given(numbers, seeds)
def test_plain_values_give_the_symmetry_back_exactly(number, seed):
    _, symmetry, _ = random_case(number, seed)
    again = Symmetry.of_values(symmetry.values())
    for name, value in vars(symmetry).items():
        if not name.startswith("_") and isinstance(value, torch.Tensor):
            assert torch.equal(getattr(again, name), value), name


def test_noise_on_an_orbit_of_m_atoms_has_a_variance_smaller_by_m():
    """A free parameter of an orbit is a mean over its m atoms: variance σ²/m along every free direction (σ per component, Å)."""
    generator = torch.Generator().manual_seed(0)
    for number, letter, parameters in ((62, "8d", 3), (62, "4c", 2), (221, "6e", 1), (194, "4f", 1), (167, "18e", 1)):
        group = space_group(number)
        position = group.position(letter)
        cell = torch.from_numpy(conventional_cell(group.lattice_system, 200.0, np.full(6, 0.1)) @ np.eye(3))
        cell = torch.from_numpy(group.primitive) @ cell
        symmetry = symmetry_of_letters(group, [letter])
        m, sigma, draws = position.multiplicity_primitive, 0.3, 4000
        copies = Symmetry.cat([symmetry] * draws)
        noise = sigma * torch.randn(draws * m, 3, generator=generator, dtype=torch.float64)
        kept = copies.displacements(noise @ torch.linalg.inv(cell)) @ cell
        first = kept.reshape(draws, m, 3)[:, 0]
        values = torch.linalg.eigvalsh(first.T @ first / draws)
        free = values[values > 1e-6 * sigma**2]
        assert len(free) == parameters == position.dof
        assert torch.allclose(free, torch.full_like(free, sigma**2 / m), rtol=6 * (2 / draws) ** 0.5)
        # and every atom of the orbit moves as much as the first
        assert torch.allclose(kept.reshape(draws, m, 3).norm(dim=-1), first.norm(dim=-1)[:, None].expand(-1, m))


def test_langevin_in_a_harmonic_well_has_the_variance_kT_over_m_k():
    """Overdamped Langevin with projected force and noise samples exp(−U/kT) on the symmetric subspace: var = kT/(m k)."""
    group = space_group(62)
    symmetry = symmetry_of_letters(group, ["4c"])
    cell = torch.from_numpy(conventional_cell("orthorhombic", 200.0, np.array([0.1, -0.2])))
    chains, m, k, kT, step = 3000, 4, 2.0, 0.5, 0.01
    batch = Symmetry.cat([symmetry] * chains)
    inverse = torch.linalg.inv(cell)
    generator = torch.Generator().manual_seed(1)
    x = torch.zeros(chains * m, 3, dtype=torch.float64)  # displacements from the bottom, Å
    for _ in range(400):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        move = -step * k * x + (2 * kT * step) ** 0.5 * noise
        x = x + batch.displacements(move @ inverse) @ cell
    x = x.reshape(chains, m, 3)
    expected = kT / (m * k) / (1 - step * k / 2)  # the discrete chain's own variance
    variance = x[:, 0].square().mean(0)
    assert variance[1] < 1e-20  # on the mirror
    assert torch.allclose(variance[[0, 2]], torch.tensor(expected).double(), rtol=6 * (2 / chains) ** 0.5)
    assert torch.allclose(x.square().sum(-1), x[:, :1].square().sum(-1).expand(-1, m))
