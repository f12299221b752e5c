import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asegen.contacts import too_close
from asegen.errors import FormulaError
from asegen.prior import atomic_volumes
from asegen.symmetry import GroupError, SitesError, SpaceGroup, count_sites, crystal_from_sites, parse_sites, space_group, symmetric_crystal
from asegen.symmetry.crystal import CLOSEST, _redrawn, closest_approach
from asegen.symmetry.lattices import conventional_cell


@given(st.integers(1, 230), st.integers(0, 1000))
def test_random_crystals_hold_the_formula_the_group_and_the_volume(number, seed):
    formula = {"Si": 4, "O": 8} if count_sites("Si4O8", number) else {"Si": 24, "O": 48}
    atoms = symmetric_crystal(formula, number, seed=seed)
    constraint = atoms.constraints[0]
    assert {s: atoms.get_chemical_symbols().count(s) for s in formula} == formula
    assert constraint.group.number == number == atoms.info["spacegroup"]
    assert tuple(constraint.sites) == parse_sites(atoms.info["sites"], number, formula)
    volumes = atomic_volumes()
    assert np.isclose(atoms.get_volume(), sum(volumes[z] for z in atoms.numbers))
    # the group is found again where it was put, and nothing has to be moved
    plain = atoms.copy()
    plain.set_constraint()
    found = SpaceGroup(number, plain)
    assert "standard setting" in found.setting and found.degrees_of_freedom == constraint.degrees_of_freedom
    assert np.abs(plain.positions - atoms.positions).max() < 1e-8
    assert sorted(found.sites) == sorted(constraint.sites)


def test_a_seed_decides_the_crystal():
    first, again, other = (symmetric_crystal("Fe4O6", "R-3c", seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.positions, again.positions) and np.array_equal(first.cell.array, again.cell.array)
    assert first.info == again.info and first.info["seed"] == 1
    assert not np.allclose(first.cell.array, other.cell.array)
    drawn = symmetric_crystal("Fe4O6", "R-3c", seed=None)
    redone = symmetric_crystal("Fe4O6", "R-3c", seed=drawn.info["seed"])
    assert np.array_equal(drawn.positions, redone.positions)


def test_sites_volume_and_kinds_of_formula():
    atoms = symmetric_crystal([26, 8], "Fm-3m", sites="Fe:a O:b", volume=20.0)
    assert atoms.info["sites"] == "Fe:4a O:4b" and np.isclose(atoms.get_volume(), 20.0) and len(atoms) == 2
    assert symmetric_crystal({"Fe": 1, "O": 1}, 225, sites=[("Fe", "4b"), ("O", "4a")]).info["sites"] == "Fe:4b O:4a"
    assert symmetric_crystal("FeO", "P1").constraints[0].degrees_of_freedom == (6, 6)


def test_collisions_are_rare_where_they_can_be_avoided():
    close = [closest_approach(symmetric_crystal("Sr4Ti4O12", "Pnma", sites="Sr:4c Ti:4b O:4c,8d", seed=s)) for s in range(20)]
    assert np.median(close) >= CLOSEST
    single = symmetric_crystal("Cu", "Fm-3m")
    assert np.isclose(closest_approach(single), single.cell.lengths()[0] / atomic_volumes()[29] ** (1 / 3))


def test_building_from_sites():
    group = space_group("Pnma")
    cell = conventional_cell("orthorhombic", 200.0, np.zeros(2))
    sites = [("Fe", "4a", ()), ("Fe", "c", (0.1, 0.2)), ("O", "8d", (0.1, 0.2, 0.3))]
    atoms, symmetry = crystal_from_sites(group, sites, cell)
    assert atoms.get_chemical_formula() == "Fe8O8" and not atoms.constraints
    assert symmetry.dof.item() == 5 and symmetry.multiplicity.tolist() == [4, 4, 8]
    assert np.allclose(atoms.get_scaled_positions()[4], [0.1, 0.25, 0.2])
    rock = [("Na", "4a", ()), ("Cl", "4b", ())]
    small, large = (crystal_from_sites(225, rock, np.eye(3) * 5.6, primitive=p)[0] for p in (True, False))
    assert (len(small), len(large)) == (2, 8) and np.isclose(4 * small.get_volume(), large.get_volume())
    start = time.perf_counter()
    for _ in range(100):
        crystal_from_sites(group, sites, cell)
    assert (time.perf_counter() - start) / 100 < 5e-3  # 0.1 ms when nothing else runs
    with pytest.raises(SitesError, match=r"4c \(x,1/4,z\) of Pnma has 2 free parameters, 1 were given"):
        crystal_from_sites(group, [("Fe", "4c", (0.1,))], cell)


def test_what_cannot_be_built():
    with pytest.raises(SitesError, match="no combination of Wyckoff positions of Fd-3m"):
        symmetric_crystal("SrTiO3", "Fd-3m")
    with pytest.raises(SitesError, match="hold Sr1Ti1 in the primitive cell, not Sr1Ti1O3"):
        symmetric_crystal("SrTiO3", "Pm-3m", sites="Sr:1a Ti:1b")
    with pytest.raises(GroupError, match="no space group"):
        symmetric_crystal("SrTiO3", "Pm3mm")
    with pytest.raises(FormulaError, match="no element"):
        symmetric_crystal("Qq", 221)


def test_crowded_crystals_do_not_begin_with_atoms_on_each_other():
    """Twelve sites on mirrors, which draws of all at once leave at 0.24 to 0.53 of their radii."""
    sites = "O:2a,2a,2a,2a,2a,2a,2a,2a,2a,2a,4b Ga:4b,4b La:4b,4b"
    for seed in range(5):
        atoms = symmetric_crystal("O12Ga4La4", 8, sites=sites, seed=seed)
        assert too_close(atoms) == ""
        frac = atoms.get_scaled_positions(wrap=False)
        exact = atoms.constraints[0].symmetry.positions(torch.from_numpy(frac)).numpy()
        assert np.abs(exact - frac).max() < 1e-9
        assert np.array_equal(atoms.positions, symmetric_crystal("O12Ga4La4", 8, sites=sites, seed=seed).positions)


def test_one_site_that_is_on_its_mirror_is_drawn_again():
    """Yb next to its own image: this site alone is drawn again, the other stays."""
    group, cell, random = space_group("Pm"), conventional_cell("monoclinic", 120.0, np.zeros(3)), np.random.default_rng(0)
    chosen = parse_sites("Tl:1a Yb:2c", group)
    before = [np.array([0.5, 0.5]), np.array([0.1, 0.01, 0.1])]
    after = _redrawn(group, chosen, before, cell, random)
    assert np.array_equal(after[0], before[0]) and not np.array_equal(after[1], before[1])
    far, near = (closest_approach(crystal_from_sites(group, [(*s, p) for s, p in zip(chosen, own, strict=True)], cell)[0])
                 for own in (after, before))  # fmt: skip
    assert near < 0.1 and far >= CLOSEST
