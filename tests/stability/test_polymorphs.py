"""Which relaxed crystals are the same, in what order they come, which are not trusted, and what a user sees of them."""

import json
import math

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from asegen.cli import polymorphs as command
from asegen.errors import StabilityError
from asegen.stability import polymorphs, relax
from asegen.stability.polymorphs import HOLE, log_probabilities
from asegen.stability.relaxed import Relaxed

KINDS = {"fcc": 225, "bcc": 229, "sc": 221, "diamond": 227}


def result(kind, energy, *, element="Cu", converged=True, reason=None, **info):
    """A crystal that relaxed to an energy per atom; None: that could not be relaxed."""
    atoms = bulk(element, kind, a={"fcc": 3.6, "bcc": 2.9, "sc": 2.4, "diamond": 5.4}[kind])
    start = atoms.copy()
    start.info.update(info)
    atoms.info.update(info)
    if energy is not None:
        atoms.calc = SinglePointCalculator(atoms, energy=energy * len(atoms), forces=np.zeros((len(atoms), 3)), stress=np.zeros(6))
    numbers = dict.fromkeys(("energy_gain", "fmax", "smax", "displacement", "volume_change"), 0.0)
    return Relaxed(
        start=start,
        atoms=atoms,
        converged=converged and energy is not None,
        reason=reason,
        energy=None if energy is None else energy * len(atoms),
        energy_per_atom=energy,
        calls=1,
        spacegroup_before=KINDS[kind],
        spacegroup=KINDS[kind],
        potential="made up",
        scale="eV",
        seconds=0.0,
        **numbers,
    )


def kinds(found):
    names = {number: name for name, number in KINDS.items()}
    return [names[one.spacegroup] for one in found]


def crystals():
    fcc = bulk("Cu", a=3.7)
    turned = bulk("Cu", a=3.5, cubic=True)
    turned.rotate(31, [1, 2, 3], rotate_cell=True)
    return [Atoms("Cu", cell=[2.4] * 3, pbc=True), fcc, bulk("Cu", "hcp", a=2.6, c=4.2), turned, Atoms("Au", cell=[15] * 3, pbc=True)]


def test_each_structure_once_lowest_first():
    found = polymorphs(relax(crystals(), EMT(), processes=1))
    members = {one.spacegroup: one.members for one in found}
    assert members == {225: (1, 3), 194: (2,), 221: (0,)} and found[2].spacegroup == 221
    assert found[0].above_lowest == 0 and np.all(np.diff([one.above_lowest for one in found]) > 0)
    assert found[0].atoms.get_potential_energy() == found[0].relaxed.energy
    assert found[2].above_lowest == pytest.approx(found[2].relaxed.energy_per_atom - found[0].relaxed.energy_per_atom)


def test_formulas_keep_their_order_and_are_not_compared():
    gold = relax([bulk("Au"), *crystals()[1:3]], EMT(), processes=1)
    found = polymorphs(gold)
    assert [one.relaxed.formula for one in found] == ["Au", "Cu2", "Cu"] and [one.above_lowest for one in found[:2]] == [0, 0]


def test_the_order_given_does_not_matter():
    relaxed = relax(crystals(), EMT(), processes=1)
    there, back = polymorphs(relaxed), polymorphs(relaxed[::-1])
    assert [one.spacegroup for one in there] == [one.spacegroup for one in back]
    assert [one.found for one in there] == [one.found for one in back]


def test_what_did_not_converge_is_not_the_same_as_what_did():
    good = relax(bulk("Cu", a=3.7), EMT())
    poor = relax(bulk("Cu", a=3.59), EMT(), steps=1, fmax=1e-9, smax=1e-9)
    assert not poor.converged
    assert sorted(one.relaxed.converged for one in polymorphs([poor, good])) == [False, True]


def test_energies_of_different_potentials_are_not_ranked():
    pair = [relax(bulk("Cu"), EMT()), relax(bulk("Cu", a=4.0), LennardJones(sigma=2.4, rc=7.0))]
    with pytest.raises(StabilityError, match="different potentials cannot be ranked"):
        polymorphs(pair)


def test_nothing_is_nothing():
    assert polymorphs([]) == [] and polymorphs(relax(crystals()[-1:], EMT(), processes=1)) == []


THREE = [result("fcc", -3.0, probability=0.05), result("bcc", -2.98, probability=0.5), result("sc", -2.94, probability=0.45)]


def test_probability_and_energy_together_decide():
    found = polymorphs(THREE)
    assert kinds(found) == ["bcc", "fcc", "sc"]
    weights = [p * math.exp(-e / 0.025) for p, e in ((0.5, 0.02), (0.05, 0.0), (0.45, 0.06))]
    assert [one.probability for one in found] == pytest.approx([w / sum(weights) for w in weights])
    # the lowest is the zero of the energies wherever it stands
    assert [one.above_lowest for one in found] == pytest.approx([0.02, 0.0, 0.06])
    assert [one.prior for one in found] == pytest.approx([0.5, 0.05, 0.45])
    assert all(one.trusted and one.reason is None for one in found)


def test_softness_says_how_much_an_energy_weighs():
    assert kinds(polymorphs(THREE, softness=0.1)) == ["bcc", "sc", "fcc"]
    assert kinds(polymorphs(THREE, softness=0.001)) == kinds(polymorphs(THREE, order="energy")) == ["fcc", "bcc", "sc"]


@pytest.mark.parametrize("wrong", [{"order": "stable"}, {"softness": 0.0}, {"softness": -1.0}, {"softness": math.inf}])
def test_impossible_orders_are_refused(wrong):
    with pytest.raises(StabilityError, match=next(iter(wrong))):
        polymorphs(THREE, **wrong)


def test_probabilities_of_what_became_the_same_add_up():
    twice = [result("fcc", -3.0, probability=0.2), result("bcc", -3.0, probability=0.35), result("fcc", -2.9999, probability=0.3)]
    found = polymorphs(twice)
    assert kinds(found) == ["fcc", "bcc"] and found[0].members == (0, 2) and found[0].prior == pytest.approx(0.5)
    weight = 0.35 / 0.5
    assert found[1].probability == pytest.approx(weight / (1 + weight))


@pytest.mark.parametrize("nothing", [{}, {"probability": 0.0}, {"probability": math.inf}, {"probability": "unknown"}])
def test_crystals_without_a_probability_have_the_least_of_their_formula(nothing):
    gold = result("fcc", -3.0, element="Au", probability=1e-9)
    found = polymorphs([result("fcc", -3.0, **nothing), result("bcc", -2.96, probability=0.3), result("sc", -2.9, probability=0.1), gold])
    assert [one.prior for one in found] == pytest.approx([0.1, 0.3, 0.1, 1e-9])
    assert kinds(found)[:3] == ["fcc", "bcc", "sc"]
    assert sum(one.probability for one in found[:3]) == pytest.approx(1) and found[3].probability == pytest.approx(1)


def test_crystals_of_foreign_origin_are_ordered_by_energy():
    # however often one was found
    gold = result("fcc", -3.0, element="Au", probability=0.5)
    found = polymorphs([result("bcc", -2.99), result("bcc", -2.99), result("fcc", -3.0), gold])
    assert kinds(found) == ["fcc", "bcc", "fcc"] and [one.prior for one in found] == [None, None, 0.5]
    assert [one.probability for one in found] == [None, None, 1.0]


def test_what_did_not_converge_comes_last_and_is_no_reference():
    words = "not converged within 300 calls of the potential"
    poor = result("fcc", -3.1, converged=False, reason=words, probability=0.9)
    for order in ("probability", "energy"):
        found = polymorphs([poor, *THREE[1:]], order=order)
        assert kinds(found) == ["bcc", "sc", "fcc"]
        assert [one.trusted for one in found] == [True, True, False] and found[2].reason == words
        assert [one.above_lowest for one in found] == pytest.approx([0.0, 0.04, -0.12])
        assert found[2].probability is None and sum(one.probability for one in found[:2]) == pytest.approx(1)


def test_where_nothing_converged_the_lowest_is_the_reference():
    found = polymorphs([result("fcc", -3.0, converged=False, probability=0.1), result("bcc", -3.2, converged=False, probability=0.1)])
    assert kinds(found) == ["bcc", "fcc"] and [one.above_lowest for one in found] == pytest.approx([0.0, 0.2])
    assert all(not one.trusted and one.reason and one.probability is None for one in found)


def deep(by, **info):
    return result("diamond", -3.0 - by, **info)


@pytest.mark.parametrize("order", ["probability", "energy"])
def test_a_hole_of_the_potential_comes_last_and_is_no_reference(order):
    found = polymorphs([deep(HOLE + 0.01, probability=0.04), *THREE], order=order)
    assert kinds(found)[3] == "diamond" and [one.trusted for one in found] == [True, True, True, False]
    assert "0.31 eV/atom below all others" in found[3].reason and "made up" in found[3].reason
    assert found[3].above_lowest == pytest.approx(-0.31) and found[3].probability is None
    assert min(one.above_lowest for one in found[:3]) == 0 and sum(one.probability for one in found[:3]) == pytest.approx(1)


@pytest.mark.parametrize(
    "others, lowest",
    [
        (THREE, deep(HOLE - 0.01, probability=0.04)),
        (THREE, deep(1.0, probability=0.04, known=True)),
        # rocksalt MgO lies 0.75 eV/atom below the CsCl structure: poor others make no hole of what was expected
        (THREE, deep(1.0, probability=0.5)),
        ([result("fcc", -3.0)], deep(1.0)),
    ],
    ids=["shallow", "known", "expected", "one of two unknown ones"],
)
def test_what_is_no_hole(others, lowest):
    found = polymorphs([*others, lowest])
    assert all(one.trusted for one in found) and found[0].relaxed is lowest and found[0].above_lowest == 0


def test_a_hole_among_crystals_of_foreign_origin():
    found = polymorphs([deep(1.0), result("fcc", -3.0), result("bcc", -2.9)])
    assert kinds(found) == ["fcc", "bcc", "diamond"] and not found[2].trusted
    # another formula is no other of its formula
    assert polymorphs([deep(1.0), result("fcc", -3.0), result("bcc", -2.9, element="Au")])[0].trusted


def test_log_probabilities_do_not_underflow():
    found = log_probabilities([-5.0, 995.0], [1e-300, 0.5])
    assert np.isfinite(found).all() and found[0] == pytest.approx(0) and log_probabilities([], []).shape == (0,)


PROTOTYPE = {"prototype": "Fm-3m Cu:4a", "start": "prototype", "seed": 7, "rank": 2}
HULL = {"e_above_hull": 0.031, "e_above_hull_source": "computed", "known": True, "handbook": True, "material_id": "mp-30"}


@pytest.fixture
def listed(monkeypatch, tmp_path):
    """What the command makes of a hole, a refusal, a loss and two good results."""
    results = [
        deep(0.8, probability=0.01),
        result("bcc", None, reason="Cu0 and Cu1 are 0.30 Å apart", probability=0.2, **PROTOTYPE),
        result("fcc", -3.0, probability=0.1, **PROTOTYPE, **HULL),
        None,
        result("sc", -2.98, probability=0.6),
    ]
    # where a relaxation was stopped is not where it began
    results[1].atoms.set_cell([9, 9, 9])
    given = [one.start.copy() if one is not None else bulk("Cu", "hcp", a=2.6, c=4.2) for one in results]
    # a run that goes on reads them from its file, with the numbers that ASE makes
    given[1].info.update(seed=np.int64(7), probability=np.float64(0.2))
    told = [{"reason": None if one is None else one.reason} for one in results]
    told[3]["reason"] = "its process died"
    for one in results:
        if one is not None:  # as files.labelled leaves them
            one.atoms.info.setdefault("material_id", "#1")
    monkeypatch.setattr(command, "relax_file", lambda *args, **options: (told, results))
    return given, *command.relax_generated(given, "made up", tmp_path, False, 1, None), tmp_path


def test_nothing_that_was_generated_is_lost(listed):
    given, found, rows, _, _ = listed
    assert len(found) == 3 and [row["position"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["members"] for row in rows] == [[4], [2], [0], [1], [3]]
    assert [row["relaxed"] for row in rows] == [True, True, True, False, False]
    assert [row["trusted"] for row in rows] == [True, True, False, False, False]
    assert [row["reason"] for row in rows[:2]] == [None, None] and "below all others" in rows[2]["reason"]
    assert [row["reason"] for row in rows[3:]] == ["Cu0 and Cu1 are 0.30 Å apart", "its process died"]
    for row, start in ((rows[3], given[1]), (rows[4], given[3])):
        assert row["energy_per_atom"] is None and row["above_lowest"] is None and row["probability"] is None
        assert row["displacement"] is None and row["volume_change"] is None
        assert np.allclose(row["cell"], start.cell.array)
    assert [row["spacegroup"] for row in rows] == [221, 225, 227, 229, 194]
    assert json.loads(json.dumps(rows)) == rows


def test_rows_say_where_crystals_come_from(listed):
    _, found, rows, _, _ = listed
    assert {key: rows[1][key] for key in {**PROTOTYPE, **HULL}} == {**PROTOTYPE, **HULL}
    assert rows[1]["prior"] == 0.1 and rows[1]["probability"] == found[1].probability != 0.1
    assert rows[3]["prior"] == 0.2 and rows[3]["prototype"] == "Fm-3m Cu:4a" and "material_id" not in rows[3]


def test_the_file_holds_all_of_them(listed):
    _, _, rows, _, folder = listed
    written = ase.io.read(folder / "polymorphs.extxyz", index=":")
    assert [bool(a.info["relaxed"]) for a in written] == [row["relaxed"] for row in rows]
    assert [bool(a.info["trusted"]) for a in written] == [row["trusted"] for row in rows]
    assert [a.info.get("reason") for a in written] == [row["reason"] for row in rows]
    assert [a.calc is not None for a in written] == [True, True, True, False, False]
    assert all(np.allclose(a.cell.array, row["cell"]) for a, row in zip(written, rows, strict=True))
    assert [a.info.get("material_id") for a in written] == [None, "mp-30", None, None, None]
    assert [a.info.get("probability") for a in written] == pytest.approx([row["probability"] for row in rows])


def test_the_table_shows_energy_probability_group_and_origin(listed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    _, found, rows, results, folder = listed
    command.print_polymorphs(found, rows, results, folder)
    lines = capsys.readouterr().out.splitlines()
    body = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    first, second = rows[0]["probability"], rows[1]["probability"]
    assert body[0] == ["0", "Cu", "20.0", f"{first:.3f}", "Pm-3m (221)", "-"]
    assert body[1] == ["1", "Cu", "0.0", f"{second:.3f}", "Fm-3m (225)", "Fm-3m Cu:4a"]
    assert body[2][2:5] == ["-800.0", "-", "Fd-3m (227)"] and "below all others" in body[3][5]
    assert body[4] == ["3", "Cu", "-", "-", "Im-3m (229)", "Fm-3m Cu:4a"] and body[5][5] == "Cu0 and Cu1 are 0.30 Å apart"
    after = lines[max(i for i, line in enumerate(lines) if line.startswith("└")) + 1 :]
    assert "τ = 25 meV/atom" in after[0] and after[1].startswith("1 not trusted") and after[2].startswith("2 could not be relaxed")


def test_a_run_in_which_nothing_could_be_relaxed_is_listed(tmp_path, capsys):
    given = [Atoms("Cu", cell=[15] * 3, pbc=True, info={"prototype": "P1 Cu:1a"})]
    listed = command.relax_generated(given, EMT(), tmp_path, False, 1, None)
    command.print_polymorphs(*listed, tmp_path)
    shown = capsys.readouterr().out
    assert listed[0] == [] and "0 polymorphs" in shown and "1 could not be relaxed" in shown
    (written,) = ase.io.read(tmp_path / "polymorphs.extxyz", index=":")
    assert not written.info["relaxed"] and "vacuum" in written.info["reason"]
    assert written.cell[0, 0] == 15


def test_how_many_became_the_same_is_shown(tmp_path, capsys):
    command.print_polymorphs(*command.relax_generated([bulk("Cu", a=3.5), bulk("Cu", a=3.7)], EMT(), None, False, 1, None), None)
    shown = capsys.readouterr().out
    assert "1 polymorph," in shown and "and 1 more" in shown and "came without probabilities" in shown
