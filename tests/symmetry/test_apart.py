import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st

from asegen.contacts import TOO_CLOSE, closest_contact
from asegen.symmetry import Symmetry, crystal_from_sites, space_group
from asegen.symmetry.apart import BOUND, Spacing
from asegen.symmetry.lattices import DIMENSIONS, conventional_cell


def drawn(seed: int):
    """A crystal on a few positions of some group, crowded or not."""
    random = np.random.default_rng(seed)
    group = space_group(int(random.integers(1, 231)))
    small = [p for p in group.positions if p.multiplicity_primitive <= 12 and p.dof] or [group.positions[-1]]
    chosen = [small[random.integers(len(small))] for _ in range(3)]
    sites = [(e, p.letter, random.random(p.dof)) for e, p in zip(("Na", "Cl", "O"), chosen, strict=True)]
    shape = 0.1 * random.normal(size=DIMENSIONS[group.lattice_system] - 1)
    size = random.uniform(8, 40) * sum(p.multiplicity for p in chosen)
    return crystal_from_sites(group, sites, conventional_cell(group.lattice_system, size, shape))


def tensors(crystals: list[Atoms]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    frac = torch.from_numpy(np.concatenate([a.get_scaled_positions(wrap=False) for a in crystals]))
    cell = torch.from_numpy(np.stack([a.cell.array for a in crystals]))
    return frac, cell, torch.from_numpy(np.concatenate([a.numbers for a in crystals]).astype(np.int64))


def moved(atoms: Atoms, frac: torch.Tensor) -> Atoms:
    copy = atoms.copy()
    copy.set_scaled_positions(frac.numpy())
    return copy


def test_two_atoms_end_at_the_bound_on_their_line_about_their_middle():
    atoms = Atoms("FeO", positions=[(0, 0, 0), (0.3, 0.4, 0.5)], cell=[6, 7, 8], pbc=True)
    frac, cell, species = tensors([atoms])
    end = moved(atoms, Spacing(Symmetry.none(2)).push(frac, cell, species))
    reach = BOUND * (covalent_radii[26] + covalent_radii[8])
    assert end.get_distance(0, 1) == pytest.approx(reach) and np.allclose(end.positions.mean(0), atoms.positions.mean(0))
    assert np.allclose(np.cross(end.positions[1] - end.positions[0], (0.3, 0.4, 0.5)), 0)


@pytest.mark.parametrize(
    ("group", "letter", "parameters", "lattice"),
    [
        (136, "f", (0.497,), (4.6, 4.6, 3.0)),  # onto a mirror, two to one
        (225, "e", (0.01,), (8.0, 8.0, 8.0)),  # onto a point, six to one
        (215, "e", (0.02,), (8.0, 8.0, 8.0)),  # along three-fold axes
        (47, "A", (0.01, 0.02, 0.03), (8.0, 9.0, 10.0)),  # eight to one, all free
    ],
)
def test_an_orbit_that_slides_onto_a_special_position_is_opened(group, letter, parameters, lattice):
    atoms, symmetry = crystal_from_sites(group, [("O", letter, parameters)], np.diag(lattice))
    frac, cell, species = tensors([atoms])
    assert closest_contact(atoms).ratio < 0.4
    found = Spacing(symmetry).push(frac, cell, species)
    assert closest_contact(moved(atoms, found)).ratio > 0.98 * BOUND > TOO_CLOSE
    assert torch.allclose(symmetry.positions(found), found, atol=1e-9)


@given(st.integers(0, 10**6))
def test_a_push_keeps_the_symmetry_and_never_brings_the_closest_closer(seed):
    atoms, symmetry = drawn(seed)
    frac, cell, species = tensors([atoms])
    spacing = Spacing(symmetry)
    found = spacing.push(frac, cell, species)
    assert torch.allclose(symmetry.positions(found), found, atol=1e-8)
    before, after = (float(spacing.ratios(f, cell, species).min()) for f in (frac, found))
    assert min(after, BOUND) >= min(before, BOUND) - 1e-9
    if before >= BOUND:
        assert torch.equal(found, frac)


@given(st.integers(0, 10**6))
def test_pairs_are_all_that_the_closest_contact_looks_at(seed):
    atoms, symmetry = drawn(seed)
    frac, cell, species = tensors([atoms])
    found, expected = float(Spacing(symmetry).ratios(frac, cell, species).min()), closest_contact(atoms)
    if not expected.image:
        assert found == pytest.approx(expected.ratio, rel=1e-6)
    else:
        assert found >= expected.ratio - 1e-9


def test_crystals_of_a_batch_do_not_feel_each_other():
    apart = crystal_from_sites(136, [("Ti", "a", ()), ("O", "f", (0.3,))], np.diag([4.6, 4.6, 3.0]))
    pairs = [*(drawn(seed) for seed in range(12)), apart]
    crystals, symmetries = [a for a, _ in pairs], [s for _, s in pairs]
    together = Spacing(Symmetry.cat(symmetries)).push(*tensors(crystals)).split([len(a) for a in crystals])
    changed = 0
    for atoms, symmetry, part in zip(crystals, symmetries, together, strict=True):
        alone = Spacing(symmetry).push(*tensors([atoms]))
        assert torch.allclose(alone, part, atol=1e-10)
        changed += not torch.equal(part, tensors([atoms])[0])
    assert 3 <= changed <= 12  # both kinds were there
    assert torch.equal(together[-1], tensors(crystals[-1:])[0])


def test_atoms_on_one_point_and_sites_without_freedom_stay_where_they_are():
    atoms = Atoms("O2", positions=[(1, 1, 1), (1, 1, 1)], cell=[5, 5, 5], pbc=True)
    assert torch.equal(Spacing(Symmetry.none(2)).push(*tensors([atoms])), tensors([atoms])[0])
    # unless it is known where they came from
    frac, cell, species = tensors([atoms])
    came = frac + torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]], dtype=torch.float64)
    end = moved(atoms, Spacing(Symmetry.none(2)).push(frac, cell, species, before=came))
    assert np.allclose(end.positions[1] - end.positions[0], [BOUND * 2 * covalent_radii[8], 0, 0])
    fixed, symmetry = crystal_from_sites(221, [("Cs", "a", ()), ("O", "b", ())], 2.5 * np.eye(3))
    assert torch.equal(Spacing(symmetry).push(*tensors([fixed])), tensors([fixed])[0])
    single, symmetry = crystal_from_sites(225, [("Cu", "a", ())], 2.0 * np.eye(3))
    assert torch.equal(Spacing(symmetry).push(*tensors([single])), tensors([single])[0])
