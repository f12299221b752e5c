import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from asegen import load_prototypes, random_crystal
from asegen.checkpoint import Checkpoint
from asegen.errors import CheckpointError, FormulaError
from asegen.generation import request_of
from asegen.prior import atomic_volumes
from asegen.report import space_group as group_of
from asegen.starts import Request, constrained, formula_of_sites, make_starts, prototype_start, prototypes_for, seed_of
from asegen.symmetry import GroupError, SitesError, groups_that_hold, space_group


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
    expected = packaged_mp20.rank("SrTiO3")[0][:3]
    assert [s.atoms.info["probability"] for s in starts[:3]] == [round(c.probability, 5) for c in expected]
    assert [s.atoms.info["spacegroup"] for s in starts[:3]] == [c.prototype.number for c in expected]
    assert starts[0].atoms.info["prototype"] == "Pm-3m Sr:1a Ti:1b O:3c" and starts[0].atoms.info["known"] is True
    more = make_starts(small, request_of(["SrTiO3"], 5, seed=4), packaged_mp20)
    assert all((a.atoms.positions == b.atoms.positions).all() for a, b in zip(more, starts[:3], strict=False))


def test_where_prototypes_run_out_sites_follow(small, packaged_mp20):
    few = len(packaged_mp20.rank("Fe7O")[0])
    assert 0 < few < 6
    starts = make_starts(small, request_of("Fe7O", few + 4, seed=1), packaged_mp20)
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


def test_a_group_that_is_asked_for_is_that_of_every_start(small, packaged_mp20):
    starts = make_starts(small, request_of("SrTiO3", 12, spacegroup="P4mm"), packaged_mp20)
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
    assert {s.atoms.info["prototype"] for s in starts} == {"Pm-3m Sr:1a Ti:1b O:3c"}
    alone = make_starts(small, request_of(None, 1, spacegroup=221, sites="O:3c Ti:1b Sr:1a"), packaged_mp20)
    assert alone[0].kind == "prototype" and sorted(alone[0].atoms.numbers) == [8, 8, 8, 22, 38]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"formula": "NaCl", "spacegroup": 0}, GroupError, "no space group 0"),
        ({"formula": "NaCl", "spacegroup": "231"}, GroupError, "no space group 231"),
        ({"formula": "SrTiO3", "spacegroup": "Pm-3n3"}, GroupError, "did you mean"),
        ({"formula": "NaCl", "spacegroup": "Pnma"}, SitesError, "cannot hold|can hold|hold"),
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
        make_starts(small, request_of("NaCl", spacegroup="Pnma"), packaged_mp20)
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
