import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from hypothesis import given
from hypothesis import strategies as st

from asegen import load_prototypes, random_crystal
from asegen.checkpoint import Checkpoint
from asegen.errors import CheckpointError, FormulaError
from asegen.generation import request_of
from asegen.prior import atomic_volumes
from asegen.report import space_group as group_of
from asegen.starts import (
    Request,
    apportion,
    constrained,
    formula_of_sites,
    likely_units,
    make_starts,
    prototype_start,
    prototypes_for,
    seed_of,
)
from asegen.symmetry import GroupError, SitesError, canonical_sites, distinct_sites, groups_that_hold, space_group


def named(checkpoint: Checkpoint, name: str) -> Checkpoint:
    return Checkpoint(checkpoint.system, {**checkpoint.header, "name": name}, checkpoint.hash)


# ------------------------------------------------------------------------------------------------------------------ random_crystal


def test_a_random_crystal_of_a_group_carries_it():
    atoms = random_crystal("SrTiO3", spacegroup="P4mm", seed=3)
    (constraint,) = atoms.constraints
    assert constraint.group.number == 99 and atoms.info["spacegroup"] == 99 and atoms.info["seed"] == 3
    assert sorted(atoms.get_chemical_symbols()) == sorted(["Sr", "Ti", "O", "O", "O"])
    bare = atoms.copy()
    bare.set_constraint()
    found = group_of(bare, symprec=1e-3)
    assert len(space_group(found).rotations) >= 8
    again = random_crystal("SrTiO3", spacegroup=99, seed=3)
    assert (again.positions == atoms.positions).all() and (again.cell.array == atoms.cell.array).all()
    assert not random_crystal("SrTiO3", seed=3).constraints
    volumes = [random_crystal("SrTiO3", spacegroup=99, seed=s).get_volume() for s in range(20)]
    assert np.allclose(volumes, sum(atomic_volumes()[z] for z in atoms.numbers))


def test_sites_say_the_formula():
    atoms = random_crystal(spacegroup="Pnma", sites="Fe:4c,4a O:8d", seed=1)
    assert atoms.get_chemical_formula() == "Fe8O8"
    assert sorted(atoms.constraints[0].sites) == [("Fe", "4a"), ("Fe", "4c"), ("O", "8d")]
    assert random_crystal("Fe8O8", spacegroup=62, sites="O:8d Fe:4a,4c", seed=1).constraints[0].degrees_of_freedom == (5, 3)
    assert formula_of_sites("Na:4a Cl:4b", space_group(225)) == "NaCl"  # the primitive cell


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"formula": "NaCl", "spacegroup": 0}, GroupError, "no space group 0"),
        ({"formula": "NaCl", "spacegroup": 231}, GroupError, "no space group 231.*1 .P1. to 230"),
        ({"formula": "NaCl", "spacegroup": "Pm3n3"}, GroupError, "did you mean .*Pm-3n"),
        ({"formula": "NaCl", "spacegroup": "Fm3m"}, GroupError, "did you mean .*Fm-3m"),
        ({"formula": "NaCl", "sites": "Na:1a Cl:1b"}, FormulaError, "need a space group"),
        ({"sites": "Na:1a"}, FormulaError, "need a space group"),
        ({}, FormulaError, "needs a formula"),
        ({"spacegroup": 225}, FormulaError, "needs a formula"),
        ({"formula": "NaCl", "spacegroup": "Pnma"}, SitesError, "Pnma"),
        ({"formula": "NaCl", "spacegroup": 225, "sites": "Na:4a Cl:8c"}, SitesError, "NaCl2|Na1Cl2"),
        ({"formula": "NaCl", "spacegroup": 225, "sites": "Na:4a Cl:4z"}, SitesError, "no Wyckoff position '4z'"),
        ({"formula": "NaCl", "spacegroup": 225, "sites": "Na:4a Cl:4a"}, SitesError, "used twice"),
        ({"formula": "OgO", "spacegroup": 1}, FormulaError, "no training crystal contains Og"),
    ],
)
def test_impossible_crystals_say_why(arguments, error, words):
    with pytest.raises(error, match=words):
        random_crystal(**{"seed": 0, **arguments})


def test_a_relaxation_keeps_the_group_of_a_random_crystal():
    atoms = random_crystal("Cu3Au", spacegroup="Pm-3m", sites="Cu:3c Au:1a", seed=0)
    other = random_crystal("Cu2Au2", spacegroup="P4/nmm", seed=2)
    for crystal, number in ((atoms, 221), (other, 129)):
        symmetry = crystal.constraints[0].symmetry
        crystal.calc = EMT()
        before = crystal.get_volume()
        FIRE(FrechetCellFilter(crystal), logfile=None).run(fmax=0.02, steps=60)
        assert abs(crystal.get_volume() / before - 1) > 0.01
        frac = torch.from_numpy(crystal.get_scaled_positions(wrap=False))
        assert (symmetry.positions(frac) - frac).abs().max() < 1e-8
        bare = crystal.copy()
        bare.set_constraint()
        found = space_group(group_of(bare, symprec=1e-3))
        assert found.number == number or len(found.rotations) > len(space_group(number).rotations)


# ------------------------------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"formulas": ["NaCl"], "n": 0}, "n = 0 is not a positive number"),
        ({"formulas": ["NaCl"], "n": -2}, "n = -2"),
        ({"formulas": ["NaCl"], "n": 1.5}, "n = 1.5"),
        ({"formulas": ["NaCl"], "n": True}, "n = True"),
        ({"formulas": ["NaCl"], "start": "nowhere"}, "start = 'nowhere' is not one of prototypes, random"),
        ({"formulas": ["NaCl"], "order": "best"}, "order = 'best' is not one of stable, likely"),
        ({"formulas": ["NaCl"], "sites": "Na:4a Cl:4b"}, "need a space group"),
        ({"formulas": None, "units": [2]}, "units have no meaning"),
        ({"formulas": None, "start": "prototypes"}, "chosen for a formula"),
        ({"formulas": None, "spacegroup": 225}, "space group 225 needs a formula"),
        ({"formulas": []}, "list of formulas is empty"),
        ({"formulas": ["NaCl", "KCl"], "spacegroup": 225, "sites": "Na:4a Cl:4b"}, "at most one formula"),
    ],
)
def test_requests_that_make_no_sense_say_why(arguments, words):
    with pytest.raises(FormulaError, match=words):
        Request(**arguments)


def test_which_prototype_model_a_run_takes(small, packaged_mp20):
    mp20 = named(small, "mp20")
    asked = request_of("NaCl")
    assert prototypes_for(mp20, asked) is packaged_mp20
    assert prototypes_for(small, asked) is None  # no model of that name: random atoms
    assert prototypes_for(small, asked, "mp20") is packaged_mp20 and prototypes_for(small, asked, packaged_mp20) is packaged_mp20
    assert prototypes_for(mp20, request_of("NaCl", start="random")) is None
    assert prototypes_for(mp20, request_of(None)) is None
    assert prototypes_for(mp20, request_of(None, spacegroup=225, sites="Na:4a Cl:4b")) is packaged_mp20
    with pytest.raises(CheckpointError, match=r"'small' comes without a prototype model.*start='random'"):
        prototypes_for(small, request_of("NaCl", start="prototypes"))
    with pytest.raises(CheckpointError, match="no prototype model 'none-such'"):
        prototypes_for(small, asked, "none-such")


# ------------------------------------------------------------------------------------------------------------------------- starts


def test_starts_are_flat_in_order_and_ranked(small, packaged_mp20):
    starts = make_starts(small, request_of(["SrTiO3", "NaCl"], 3, units=[1, 2], seed=4), packaged_mp20)
    assert [len(s.atoms) for s in starts] == [5] * 3 + [10] * 3 + [2] * 3 + [4] * 3
    assert [s.atoms.info["rank"] for s in starts] == [1, 2, 3] * 4
    assert [s.atoms.info["seed"] for s in starts] == [seed_of(4, k) for k in range(12)]
    assert all(s.kind == "prototype" and s.atoms.info["start"] == "prototype" for s in starts)
    for number, (formula, units) in enumerate((("SrTiO3", 1), ("SrTiO3", 2), ("NaCl", 1), ("NaCl", 2))):
        expected = packaged_mp20.rank(formula, units=units)[0][:3]
        own = starts[3 * number : 3 * number + 3]
        assert [s.atoms.info["probability"] for s in own] == pytest.approx([c.probability for c in expected], rel=1e-5)
        assert [s.atoms.info["spacegroup"] for s in own] == [c.prototype.number for c in expected]
        assert [s.atoms.info["known"] for s in own] == [c.known for c in expected]
    assert starts[0].atoms.info["prototype"] == "Pm-3m Sr:1a Ti:1b O:3c" and starts[0].atoms.info["known"] is True
    more = make_starts(small, request_of(["SrTiO3"], 5, units=1, seed=4), packaged_mp20)
    assert all((a.atoms.positions == b.atoms.positions).all() for a, b in zip(more, starts[:3], strict=False))


def test_a_formula_means_its_composition(small, packaged_mp20):
    """Without units cells of all sizes stand for election, however the formula is written."""
    whole = make_starts(small, request_of("TiO2", 20), packaged_mp20)
    assert len({len(s.atoms) for s in whole}) > 2 and all(s.kind == "prototype" for s in whole)
    assert [s.atoms.info["rank"] for s in whole] == list(range(1, 21))
    twice = make_starts(small, request_of("Ti2O4", 20), packaged_mp20)
    assert all((a.atoms.positions == b.atoms.positions).all() for a, b in zip(whole, twice, strict=True))
    assert {len(s.atoms) for s in make_starts(small, request_of("Ti2O4", 20, units=1), packaged_mp20)} == {6}
    # two cells for each of them, one list after the other
    sizes = [len(s.atoms) for s in make_starts(small, request_of("Ti2O4", 2, units=[1, 2]), packaged_mp20)]
    assert sizes == [6, 6, 12, 12]


def test_starts_say_what_is_known_of_them(small, packaged_mp20):
    for order in ("stable", "likely"):
        starts = make_starts(small, request_of("ZrO2", 8, order=order, start="prototypes"), packaged_mp20)
        for start, candidate in zip(starts, packaged_mp20.rank("ZrO2", 8, order=order)[0], strict=True):
            info = start.atoms.info
            assert info.get("e_above_hull_source", "") == candidate.hull_source
            if candidate.hull_source:
                assert info["e_above_hull"] == pytest.approx(candidate.hull, abs=5.1e-5)
            assert info.get("material_id", "") == candidate.material_id and "handbook" not in info
            assert (info["probability"], info["known"]) == (pytest.approx(candidate.probability, rel=1e-5), candidate.known)
    assert starts[0].again is None  # a prototype gives one crystal


def test_atoms_stand_as_typed(small, packaged_mp20):
    for formula, typed in (("O3TiSr", ["O", "Ti", "Sr"]), ("SrTiO3", ["Sr", "Ti", "O"])):
        for options in ({}, {"spacegroup": 99}, {"order": "likely"}):
            for start in make_starts(small, request_of(formula, 12, **options), packaged_mp20):
                assert list(dict.fromkeys(start.atoms.get_chemical_symbols())) == typed, start
                if start.kind == "prototype":
                    assert list(dict.fromkeys(element for element, _ in start.sites)) == typed


def test_new_starts_are_of_no_known_crystal(small, packaged_mp20):
    starts = make_starts(small, request_of("CsCl", 12, new=True), packaged_mp20)
    assert all(s.kind == "prototype" and s.atoms.info["known"] is False for s in starts)
    assert [s.atoms.info["known"] for s in make_starts(small, request_of("CsCl", 2), packaged_mp20)] == [True, True]


def test_the_score_model_s_limits_matter_only_where_it_is_asked(small, packaged_mp20):
    few = Checkpoint(small.system, {**small.header, "data": {**small.header["data"], "max_atoms": 4, "elements": [6]}}, small.hash)
    starts = make_starts(few, request_of("SrTiO3", 5), packaged_mp20)
    assert [s.kind for s in starts] == ["prototype"] * 5 and max(len(s.atoms) for s in starts) > 4
    with pytest.raises(FormulaError, match=r"no known prototype is left for it, and Fe7O.*up to 4"):
        make_starts(few, request_of("Fe7O", 40), packaged_mp20)
    known = len(packaged_mp20.rank("Fe7O")[0])
    assert len(make_starts(few, request_of("Fe7O", known), packaged_mp20)) == known
    # and so where a database's order would rather have random atoms at the end of the list
    assert {s.kind for s in make_starts(few, request_of("Fe7O", known, order="likely"), packaged_mp20)} == {"prototype"}


def test_prototypes_with_atoms_on_each_other_are_passed_over(small, packaged_mp20, monkeypatch):
    first, second, third = (s.atoms for s in make_starts(small, request_of("SrTiO3", 3), packaged_mp20))
    close = {float(first.get_volume()), float(third.get_volume())}
    monkeypatch.setattr("asegen.starts.too_close", lambda atoms: "on each other" if float(atoms.get_volume()) in close else "")
    starts = make_starts(small, request_of("SrTiO3", 3), packaged_mp20)
    assert (starts[0].atoms.positions == second.positions).all() and [s.kind for s in starts] == ["prototype"] * 3
    assert [s.atoms.info["rank"] for s in starts] == [1, 2, 3]
    monkeypatch.setattr("asegen.starts.too_close", lambda atoms: "on each other")
    starts = make_starts(small, request_of("SrTiO3", 3), packaged_mp20)
    assert [s.kind for s in starts] == ["sites"] * 3 and [s.atoms.info["seed"] for s in starts] == [seed_of(0, k) for k in range(3)]


def test_where_prototypes_run_out_sites_follow(small, packaged_mp20):
    few = len(packaged_mp20.rank("Fe7O", units=1)[0])
    assert 0 < few < 6
    starts = make_starts(small, request_of("Fe7O", few + 4, units=1, seed=1), packaged_mp20)
    assert [s.kind for s in starts] == ["prototype"] * few + ["sites"] * 4
    assert [s.atoms.info["rank"] for s in starts] == list(range(1, few + 5))
    assert [s.atoms.info["seed"] for s in starts] == [seed_of(1, k) for k in range(few + 4)]
    for start in starts[few:]:
        info = start.atoms.info
        assert info["start"] == "sites" and info["known"] is False and "probability" not in info
        assert not start.atoms.constraints and len(start.symmetry) == 1
        assert info["spacegroup"] in groups_that_hold({"Fe": 7, "O": 1})
        assert info["prototype"].startswith(space_group(info["spacegroup"]).symbol + " ")
    assert len({s.atoms.info["prototype"] for s in starts[few:]}) > 1
    none = make_starts(small, request_of("Li3Bi7O5", 2), packaged_mp20)  # no prototype at all
    assert [s.kind for s in none] == ["sites", "sites"]


def test_a_start_for_the_score_model_has_others_from_other_seeds(small, packaged_mp20):
    sites, random, free = (
        make_starts(small, request_of("Fe2O3", 1, spacegroup=1, seed=2), None)[0],
        make_starts(small, request_of("Fe2O3", 1, seed=2), None)[0],
        make_starts(small, request_of(None, 1, seed=2), None)[0],
    )
    for start in (sites, random, free):
        other, same = start.again(99), start.again(start.atoms.info["seed"])
        assert other.kind == start.kind and other.atoms.info["seed"] == 99 and other.again is not None
        assert len(same.atoms) == len(start.atoms) and np.allclose(same.atoms.positions, start.atoms.positions)
        assert len(other.atoms) != len(start.atoms) or abs(other.atoms.positions - start.atoms.positions).max() > 1e-3
    assert sites.again(99).atoms.info["spacegroup"] == 1


def test_a_database_s_order_ends_with_random_atoms_where_a_new_prototype_is_likely(small, packaged_mp20):
    _, novelty = packaged_mp20.rank("Fe7O", order="likely")
    free = int(min(0.25, novelty) * 14)
    assert 0 < free <= 3
    starts = make_starts(small, request_of("Fe7O", 14, order="likely"), packaged_mp20)
    kinds = [s.kind for s in starts]
    assert kinds[14 - free :] == ["random"] * free and "random" not in kinds[: 14 - free] and kinds[0] == "prototype"
    assert [s.atoms.info["rank"] for s in starts] == list(range(1, 15)) and len({s.atoms.info["seed"] for s in starts}) == 14
    assert all("probability" not in s.atoms.info and s.symmetry is None for s in starts[14 - free :])
    for other in ({"order": "stable"}, {"order": "likely", "start": "prototypes"}, {"order": "likely", "spacegroup": 1}):
        assert "random" not in {s.kind for s in make_starts(small, request_of("Fe7O", 14, **other), packaged_mp20)}
    # a quarter of the list, and no more
    assert [s.kind for s in make_starts(small, request_of("Li3Bi7O5", 4, order="likely"), packaged_mp20)] == ["sites"] * 3 + ["random"]


def test_of_equal_crystals_in_a_group_only_one_is_a_start(small, packaged_mp20):
    starts = make_starts(small, request_of("SrTiO3", 6, units=1, spacegroup=221), packaged_mp20)
    kinds = [s.kind for s in starts]
    made = [s for s in starts if s.kind != "none"]
    assert kinds == sorted(kinds, key=lambda kind: kind == "none") and "none" in kinds
    keys = {canonical_sites(221, s.sites) for s in made}
    assert len(keys) == len(made) == len(list(distinct_sites("SrTiO3", 221)))
    assert [s.atoms.info["rank"] for s in made] == list(range(1, len(made) + 1))
    for start in starts[len(made) :]:
        assert start.reason == "Pm-3m holds no other crystal of SrTiO3 with so many atoms" and start.again is None
        assert "rank" not in start.atoms.info
    # where a parameter is free, another start on the same sites is another crystal
    assert {s.kind for s in make_starts(small, request_of("SrTiO3", 9, units=1, spacegroup=99, start="random"), None)} == {"sites"}
    # and sites that are asked for are repeated as often as they are asked for
    again = make_starts(small, request_of("SrTiO3", 3, spacegroup=221, sites="Sr:1a Ti:1b O:3c", start="random"), None)
    assert [s.kind for s in again] == ["sites"] * 3


def test_equivalent_sites_are_the_same_request(small, packaged_mp20):
    """Sr:1b Ti:1a O:3d is the cubic perovskite seen from another origin."""
    for sites in ("Sr:1a Ti:1b O:3c", "Sr:1b Ti:1a O:3d"):
        start = make_starts(small, request_of("SrTiO3", 1, spacegroup=221, sites=sites), packaged_mp20)[0]
        assert start.kind == "prototype" and start.atoms.info["known"]


# ------------------------------------------------------------------------------------------------- cells for the score model


def test_choices_are_in_proportion_at_every_length():
    assert apportion({1: 0.5, 2: 0.25, 4: 0.25}, 9) == [1, 2, 4, 1, 1, 2, 4, 1, 1]
    assert sorted(apportion({1: 5, 2: 3, 4: 2}, 10)) == [1] * 5 + [2] * 3 + [4] * 2
    assert apportion({2: 3.0}, 3) == [2, 2, 2] and apportion({1: 0.9, 2: 0.1}, 0) == []
    assert apportion({4: 1.0, 1: 1.0}, 4) == [1, 4, 1, 4]  # of equal ones the smaller cell first


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(0, 60))
def test_apportioned_choices_stay_near_their_shares(chances, count):
    table = {k + 1: chance for k, chance in enumerate(chances)}
    chosen = apportion(table, count)
    assert len(chosen) == count and apportion(table, count + 1)[:count] == chosen  # more crystals change none of the first
    for k, chance in table.items():
        assert abs(chosen.count(k) - count * chance / sum(chances)) < max(1.0, len(table) - 1)
    if count:
        assert table[chosen[0]] == max(chances)


def test_likely_units_are_those_of_the_candidates(packaged_mp20):
    numbers, asked = np.array([22, 8, 8]), request_of("TiO2")
    candidates, _ = packaged_mp20.rank("TiO2")
    chances = likely_units(numbers, candidates, packaged_mp20, 20, asked)
    assert set(chances) == {c.units for c in candidates if 3 * c.units <= 20}
    for units, chance in chances.items():
        assert chance == pytest.approx(sum(c.probability for c in candidates if c.units == units))
    assert set(likely_units(numbers, candidates, packaged_mp20, 6, asked)) <= {1, 2}
    # as written: twice the formula is one of these
    twice = likely_units(np.repeat(numbers, 2), candidates, packaged_mp20, 20, request_of("Ti2O4"))
    assert twice == pytest.approx({units // 2: chance for units, chance in chances.items() if units % 2 == 0})
    # nothing is known: small even cells, as many as fit
    assert likely_units(numbers, [], None, 20, asked) == {1: 1, 2: 1 / 2, 4: 1 / 4}
    assert likely_units(numbers, [], None, 11, asked) == {1: 1, 2: 1 / 2} and likely_units(numbers, [], None, 2, asked) == {}
    # no candidate in the group that is asked for: the sizes of all others
    rare = request_of("TiO2", spacegroup=230)
    assert likely_units(numbers, [], packaged_mp20, 20, rare) == pytest.approx(chances)


def test_cells_of_several_sizes_are_filled_where_none_is_given(small):
    sizes = [len(s.atoms) for s in make_starts(small, request_of("NaCl", 7), None)]
    assert sorted(sizes) == [2] * 4 + [4] * 2 + [8] and sizes[:2] == [2, 4]
    assert [len(s.atoms) for s in make_starts(small, request_of("NaCl", 3, units=3), None)] == [6] * 3
    # a group that holds no single formula unit
    held = [len(s.atoms) for s in make_starts(small, request_of("NaCl", 3, spacegroup="Pnma"), None)]
    assert held == [8] * 3


def test_a_group_that_is_asked_for_is_that_of_every_start(small, packaged_mp20):
    count = len(packaged_mp20.rank("SrTiO3", spacegroup=99)[0]) + 4
    starts = make_starts(small, request_of("SrTiO3", count, spacegroup="P4mm"), packaged_mp20)
    assert {s.atoms.info["spacegroup"] for s in starts} == {99}
    kinds = [s.kind for s in starts]
    assert kinds == sorted(kinds) and set(kinds) == {"prototype", "sites"}
    assert [s.kind for s in make_starts(small, request_of("SrTiO3", 3, spacegroup=99, start="random"), None)] == ["sites"] * 3
    for start in starts:
        assert len(space_group(group_of(start.atoms, symprec=1e-3)).rotations) >= 8


def test_sites_that_are_asked_for_are_those_of_every_start(small, packaged_mp20):
    asked = request_of("SrTiO3", 4, spacegroup=221, sites="O:3c Ti:1b Sr:1a")
    starts = make_starts(small, asked, packaged_mp20)
    assert [s.kind for s in starts] == ["prototype", "sites", "sites", "sites"]
    # elements in the order in which they were typed in the sites
    assert {s.atoms.info["prototype"] for s in starts} == {"Pm-3m O:3c Ti:1b Sr:1a"}
    assert all(s.atoms.get_chemical_symbols() == ["O", "O", "O", "Ti", "Sr"] for s in starts)
    alone = make_starts(small, request_of(None, 1, spacegroup=221, sites="O:3c Ti:1b Sr:1a"), packaged_mp20)
    assert alone[0].kind == "prototype" and sorted(alone[0].atoms.numbers) == [8, 8, 8, 22, 38]


def test_sites_say_how_many_formula_units_there_are(small, packaged_mp20):
    for options in ({}, {"units": 8}):
        starts = make_starts(small, request_of("FeO", 2, spacegroup="Pnma", sites="Fe:4c,4a O:8d", **options), packaged_mp20)
        assert {s.atoms.get_chemical_formula() for s in starts} == {"Fe8O8"}
    for formula, units in (("Fe2O3", None), ("Fe3O3", None), ("FeO", 4)):
        with pytest.raises(SitesError, match="the sites hold Fe8O8"):
            make_starts(small, request_of(formula, 2, units, spacegroup="Pnma", sites="Fe:4c,4a O:8d"), packaged_mp20)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"formula": "NaCl", "spacegroup": 0}, GroupError, "no space group 0"),
        ({"formula": "NaCl", "spacegroup": "231"}, GroupError, "no space group 231"),
        ({"formula": "SrTiO3", "spacegroup": "Pm-3n3"}, GroupError, "did you mean"),
        ({"formula": "NaCl", "units": 1, "spacegroup": "Pnma"}, SitesError, r"Wyckoff positions of Pnma \(62\) holds NaCl"),
        ({"formula": "OgO"}, FormulaError, "no training crystal contains Og"),
        ({"formula": "SrTiO3", "spacegroup": 221, "sites": "Sr:1a Ti:1b O:3c,1a"}, SitesError, "used twice"),
        ({"formula": "SrTiO3", "spacegroup": 221, "sites": "Sr:1a Ti:1b"}, SitesError, "not SrTiO3|Sr1Ti1O3"),
        ({"formula": "NaCl", "units": 11}, FormulaError, "22 atoms.*up to 20"),
        ({"formula": "NaCl", "seed": -1}, ValueError, "seed = -1"),
    ],
)
def test_starts_that_cannot_be_say_why(small, packaged_mp20, arguments, error, words):
    with pytest.raises(error, match=words):
        make_starts(small, request_of(**arguments), packaged_mp20)


def test_a_group_that_cannot_hold_a_formula_names_others(small, packaged_mp20):
    with pytest.raises(SitesError) as caught:
        make_starts(small, request_of("NaCl", units=1, spacegroup="Pnma"), packaged_mp20)
    assert "221" in str(caught.value) or "cubic" in str(caught.value)


@pytest.mark.parametrize("formula", ["SrTiO3", "MgAl2O4", "Mg2Al4O8", "Li2FeO2", "Ga2N2", "Zr4O8", "Fe7O"])
def test_a_start_with_its_constraint_names_its_sites_rightly(packaged_mp20, formula):
    """Label by label: the constraint's sites are those of its symmetry, in its order."""
    for candidate in packaged_mp20.rank(formula)[0][:10]:
        check_sites(constrained(prototype_start(candidate, 0)), candidate.sites)


def test_so_do_starts_on_random_sites(small):
    for start in make_starts(small, request_of("Zr4O8", 6, spacegroup="Pnma", start="random"), None):
        check_sites(constrained(start), start.sites)


def check_sites(atoms, expected):
    constraint = atoms.constraints[0]
    group, symmetry, symbols = constraint.group, constraint.symmetry, atoms.get_chemical_symbols()
    assert sorted(constraint.sites) == sorted(expected)
    conventional = atoms.get_scaled_positions(wrap=False) @ group.primitive
    rotations, translations = group.setting.operations(primitive=False)
    for (element, label), first, multiplicity in zip(
        constraint.sites, symmetry.first.tolist(), symmetry.multiplicity.tolist(), strict=True
    ):
        position = group.position(label)
        assert symbols[first] == element and position.multiplicity_primitive == multiplicity
        images = rotations @ conventional[first] + translations
        assert any(position.parameters_of(image) is not None for image in images), (label, constraint)
    assert constraint.degrees_of_freedom[0] == sum(group.position(label).dof for _, label in constraint.sites)


def test_a_start_from_random_atoms_has_no_constraint(small):
    (start,) = make_starts(small, request_of("NaCl"), None)
    assert start.kind == "random" and start.symmetry is None and not constrained(start).constraints
    (free,) = make_starts(small, request_of(None), None)
    assert free.kind == "random" and (free.atoms.numbers == 0).all()


def test_groups_for_sites_are_drawn_where_prototypes_are(small):
    """With the table, groups rich in prototypes come more often than all groups that can hold the formula, drawn evenly."""
    model = load_prototypes("mp20")
    starts = make_starts(small, request_of("Li3Bi7O5", 60), model)
    numbers = [s.atoms.info["spacegroup"] for s in starts]
    possible = groups_that_hold({"Li": 3, "Bi": 7, "O": 5})
    assert set(numbers) <= set(possible)
    ternary = [p.number for p in model.table.prototypes if len(p.counts) == 3]
    weight = {n: ternary.count(n) + 1 for n in possible}
    mean = sum(w * w for w in weight.values()) / sum(weight.values())
    assert np.mean([weight[n] for n in numbers]) > 0.6 * mean > 1.2 * np.mean(list(weight.values()))
