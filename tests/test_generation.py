import warnings

import numpy as np
import pytest

from asegen import free_crystal, generate, load_prototypes, random_crystal
from asegen.contacts import TOO_CLOSE, closest_contact, too_close
from asegen.errors import CheckpointError, FormulaError
from asegen.generation import TRIES, GenerationWarning, fill, request_of, told
from asegen.prior import atomic_volumes
from asegen.report import space_group as group_of
from asegen.starts import make_starts, seed_of
from asegen.symmetry import GroupError, SitesError, space_group

TRUE_CHECK = too_close


@pytest.fixture(autouse=True)
def anything_goes(monkeypatch):
    """The untrained checkpoint puts atoms on each other; only the tests of that look at it."""
    monkeypatch.setattr("asegen.generation.too_close", lambda atoms: "")


def same(a, b, tolerance=1e-5) -> bool:
    delta = a.get_scaled_positions(wrap=False) - b.get_scaled_positions(wrap=False)
    apart = max(np.abs(delta - np.round(delta)).max(), np.abs(a.cell.array - b.cell.array).max())
    return bool((a.numbers == b.numbers).all() and apart < tolerance)


def test_formulas_are_flat_in_order_and_taken_as_written(small):
    crystals = generate(["Sr2Ti2O6", "NaCl", "MgO"], n=2, units=1, seed=1, checkpoint=small)
    assert [len(a) for a in crystals] == [10, 10, 2, 2, 2, 2]
    assert [list(dict.fromkeys(a.get_chemical_symbols())) for a in crystals[::2]] == [["Sr", "Ti", "O"], ["Na", "Cl"], ["Mg", "O"]]
    assert [a.get_chemical_formula() for a in crystals[::2]] == ["O6Sr2Ti2", "ClNa", "MgO"]
    assert all(a.pbc.all() and a.info["checkpoint"] == "small" and a.info["checkpoint_hash"] == small.hash for a in crystals)
    assert len({a.info["seed"] for a in crystals}) == 6


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_same_seed_gives_the_same_crystals_for_every_batch_size(small, batch_size):
    formulas = ["SrTiO3", "NaCl", "CaF2", "KMgF3"]
    whole = generate(formulas, n=2, seed=3, checkpoint=small)
    parts = generate(formulas, n=2, seed=3, checkpoint=small, batch_size=batch_size)
    assert all(same(a, b) for a, b in zip(whole, parts, strict=True))
    assert not same(whole[0], generate(formulas, n=2, seed=4, checkpoint=small)[0], 1e-2)


def test_more_crystals_do_not_change_the_first_ones(small):
    few, many = generate("NaCl", n=2, seed=0, checkpoint=small), generate("NaCl", n=5, seed=0, checkpoint=small)
    assert all(same(a, b) for a, b in zip(few, many, strict=False))


def test_de_novo_decides_every_element(small):
    crystals = generate(n=12, seed=0, checkpoint=small)
    assert {len(a) for a in crystals} == {2, 4}
    assert all((a.numbers > 0).all() and set(a.numbers) <= small.elements for a in crystals)
    again = generate(n=12, seed=0, checkpoint=small, batch_size=3)
    assert all(same(a, b) for a, b in zip(crystals, again, strict=True))


def test_units_of_a_formula(small):
    crystals = generate("Li2O", n=2, units=[1, 2], checkpoint=small)
    assert [len(a) for a in crystals] == [3, 3, 6, 6]
    # any number of formula units
    assert sorted(len(a) for a in generate("Li2O", n=7, checkpoint=small)) == [3] * 4 + [6] * 2 + [12]


def test_finished_crystals_are_not_made_again(small):
    whole = generate("NaCl", n=4, seed=0, checkpoint=small)
    seen = []
    again = generate("NaCl", n=4, seed=0, checkpoint=small, done={0: whole[0], 2: whole[2]}, on_batch=seen.extend)
    assert sorted(position for position, _ in seen) == [1, 3]
    assert again[0] is whole[0] and all(same(a, b) for a, b in zip(again, whole, strict=True))


def test_progress_reaches_the_end(small):
    seen = []
    generate("NaCl", n=3, checkpoint=small, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (18, 18)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"formula": "NaCl", "n": 0}, FormulaError, "n = 0"),
        ({"formula": "Na-1Cl"}, FormulaError, "positive"),
        ({"formula": "NaCl", "units": 11}, FormulaError, "22 atoms.*up to 20"),
        ({"formula": "OgO"}, FormulaError, "Og"),
        ({"formula": []}, FormulaError, "empty"),
        ({"formula": None, "units": 2}, FormulaError, "units have no meaning"),
        ({"formula": "NaCl", "steps": 0}, ValueError, "steps = 0"),
        ({"formula": "NaCl", "seed": -1}, ValueError, "seed = -1"),
        ({"formula": "NaCl", "checkpoint": "nonsense"}, CheckpointError, "no checkpoint 'nonsense'"),
        ({"formula": "NaCl", "precision": "half"}, Exception, "unknown precision"),
        ({"formula": "NaCl", "batch_size": 0}, ValueError, "batch_size = 0"),
        ({"formula": "NaCl", "start": "prototypes"}, CheckpointError, "comes without a prototype model"),
        ({"formula": "NaCl", "start": "thin air"}, FormulaError, "start = 'thin air'"),
        ({"formula": "NaCl", "order": "alphabetical"}, FormulaError, "order = 'alphabetical' is not one of stable, likely"),
        ({"formula": "NaCl", "prototypes": "nonsense"}, CheckpointError, "no prototype model 'nonsense'"),
        ({"formula": "NaCl", "prototypes": "mp20", "diversity": 2}, ValueError, "diversity = 2"),
        ({"formula": "NaCl", "prototypes": "mp20", "refine": 99}, ValueError, "refine = 99"),
        ({"formula": "NaCl", "spacegroup": 231}, GroupError, "no space group 231"),
        ({"formula": "NaCl", "units": 1, "spacegroup": 62}, SitesError, "Pnma"),
        ({"formula": "Ba2Tl2Ca2Cu3O11", "prototypes": "mp20", "refine": 0.1, "units": 2}, FormulaError, "40 atoms.*up to 20"),
        ({"formula": "NaCl", "sites": "Na:4a Cl:4b"}, FormulaError, "need a space group"),
        ({"formula": "NaCl", "spacegroup": 225, "sites": "Na:4a Cl:8c"}, SitesError, "not NaCl|not Na1Cl1"),
        ({"formula": None, "spacegroup": 225}, FormulaError, "needs a formula"),
        ({"formula": None, "start": "prototypes"}, FormulaError, "chosen for a formula"),
    ],
)
def test_bad_requests_say_what_is_wrong(small, arguments, error, words):
    with pytest.raises(error, match=words):
        generate(**{"checkpoint": small, **arguments})


def test_random_crystals_have_sane_volumes_and_depend_on_the_seed_alone():
    volumes = np.array([random_crystal("SrTiO3", seed=s).get_volume() for s in range(300)])
    expected = sum(atomic_volumes()[z] for z in (38, 22, 8, 8, 8))
    assert abs(np.log(volumes / expected).mean()) < 0.05 and np.log(volumes / expected).std() < 0.25
    assert volumes.min() > 20
    a, b = random_crystal("SrTiO3", seed=5), random_crystal("SrTiO3", seed=5)
    assert same(a, b, 1e-15) and a.info["seed"] == 5
    fractions = np.concatenate([random_crystal("SrTiO3", seed=s).get_scaled_positions() for s in range(300)])
    assert abs(fractions.mean() - 0.5) < 0.02 and abs(fractions.std() - 12**-0.5) < 0.01
    with pytest.raises(FormulaError, match="Og"):
        random_crystal("OgO", seed=0)


def test_free_starts_follow_the_table_of_the_data(small):
    sizes = [len(free_crystal(small, seed=s)) for s in range(200)]
    assert set(sizes) == {2, 4} and 70 < sizes.count(2) < 130
    start = free_crystal(small, seed=0)
    assert (start.numbers == 0).all() and 9 <= start.info["reference_volume"] / len(start) <= 21


# ------------------------------------------------------------------------------------------------------------------- prototypes


def test_prototypes_come_ranked_and_carry_what_they_are(small, packaged_mp20):
    crystals = generate(["SrTiO3", "NaCl"], n=3, seed=5, checkpoint=small, prototypes="mp20")
    assert [a.info["rank"] for a in crystals] == [1, 2, 3, 1, 2, 3]
    for atoms, candidate in zip(crystals, packaged_mp20.rank("SrTiO3", 3)[0], strict=False):
        info = atoms.info
        assert info["start"] == "prototype" and info["spacegroup"] == candidate.prototype.number and info["steps"] == 0
        assert info["probability"] == pytest.approx(candidate.probability, abs=1e-5) and info["known"] == candidate.known
        assert info["checkpoint"] == "small" and info["checkpoint_hash"] == small.hash
        expected, _ = candidate.crystal()
        assert same(atoms, expected, 1e-12)
        assert not atoms.constraints
    assert crystals[0].info["known"] and group_of(crystals[0]) == 221 and group_of(crystals[3]) == 225
    assert all(a.info["e_above_hull_source"] in ("published", "computed", "predicted") for a in crystals if "e_above_hull" in a.info)
    likely = generate("ZrO2", n=6, checkpoint=small, prototypes="mp20", order="likely", start="prototypes")
    assert [a.info["probability"] for a in likely] == pytest.approx(
        [c.probability for c in packaged_mp20.rank("ZrO2", 6, order="likely")[0]], rel=1e-5
    )
    fresh = generate("CsCl", n=1, checkpoint=small, prototypes="mp20", new=True)[0]
    assert fresh.info["spacegroup"] == packaged_mp20.rank("CsCl", 1, new=True)[0][0].prototype.number and fresh.info["known"] is False


def test_the_packaged_checkpoint_finds_its_prototypes_by_name():
    ranked = generate("SrTiO3", checkpoint="mp20")[0]
    assert ranked.info["start"] == "prototype" and group_of(ranked) == 221 and ranked.cell.lengths()[0] == pytest.approx(3.93, rel=0.02)
    free = generate("SrTiO3", checkpoint="mp20", start="random", steps=4)[0]
    assert "rank" not in free.info and free.info["steps"] == 4


@pytest.mark.parametrize("batch_size", [1, 2])
def test_prototypes_then_sites_are_the_same_whatever_the_batch_size(small, batch_size):
    """Fe7O has few prototypes; what is left is filled by the score model, in the same order."""
    few = len(load_prototypes("mp20").rank("Fe7O", units=1)[0])
    arguments = {"n": few + 3, "units": 1, "seed": 2, "checkpoint": small, "prototypes": "mp20", "refine": 0.1}
    whole = generate(["Fe7O", "NaCl"], **arguments)
    parts = generate(["Fe7O", "NaCl"], batch_size=batch_size, **arguments)
    assert [a.info["start"] for a in whole[: few + 3]] == ["prototype"] * few + ["sites"] * 3
    assert [a.info["rank"] for a in whole] == [*range(1, few + 4)] * 2
    assert all(same(a, b, 1e-4) and a.info == b.info for a, b in zip(whole, parts, strict=True))
    assert all(a.info["steps"] == 6 for a in whole if a.info["start"] == "sites")
    assert not same(whole[few], generate("Fe7O", **{**arguments, "seed": 3})[few], 1e-2)


def test_refined_prototypes_move_a_little_and_keep_their_group(small):
    plain = generate("Mg2Al4O8", n=4, checkpoint=small, prototypes="mp20")
    refined = generate("Mg2Al4O8", n=4, checkpoint=small, prototypes="mp20", refine=0.05)
    assert all(a.info["steps"] == 0 and b.info["steps"] >= 4 for a, b in zip(plain, refined, strict=True))
    for before, after in zip(plain, refined, strict=True):
        assert before.info["spacegroup"] == after.info["spacegroup"] and not same(before, after, 1e-6)
        group = space_group(after.info["spacegroup"])
        assert len(space_group(group_of(after, symprec=1e-3)).rotations) >= len(group.rotations)
        delta = before.get_scaled_positions(wrap=False) - after.get_scaled_positions(wrap=False)
        assert np.abs(delta).max() < 0.25


@pytest.mark.parametrize(
    ("formula", "group", "options"),
    [
        ("SrTiO3", "P4mm", {"prototypes": "mp20"}),
        ("SrTiO3", 221, {"start": "random"}),
        ("Zr4O8", "P2_1/c", {"prototypes": "mp20", "new": True}),
        ("Fe8O8", 62, {"sites": "Fe:4c,4a O:8d"}),
        (None, "Pnma", {"sites": "Fe:4c,4a O:8d"}),
        ("Na2Cl2", "Cmcm", {}),
        ("NaCl", "Pnma", {}),  # four formula units
        ("FeO", 62, {"sites": "Fe:4c,4a O:8d"}),
        ("Si3O6", "P3_121", {}),
    ],
)
def test_the_group_asked_for_is_that_of_the_crystals(small, formula, group, options):
    for atoms in generate(formula, n=3, seed=1, spacegroup=group, checkpoint=small, **options):
        number = space_group(group).number
        assert atoms.info["spacegroup"] == number
        found = space_group(group_of(atoms, symprec=1e-3))
        assert found.number == number or len(found.rotations) * len(found.setting.centrings) > len(space_group(group).rotations)
        if "sites" in options:
            assert atoms.info["prototype"] == "Pnma Fe:4c,4a O:8d" or atoms.info["prototype"] == "Pnma Fe:4a,4c O:8d"
            assert sorted(atoms.numbers) == [8] * 8 + [26] * 8


def test_finished_prototypes_and_sites_are_not_made_again(small):
    few = len(load_prototypes("mp20").rank("Fe7O", units=1)[0])
    arguments = {"n": few + 2, "units": 1, "seed": 2, "checkpoint": small, "prototypes": "mp20"}
    whole, seen, steps = generate("Fe7O", **arguments), [], []
    done = {0: whole[0], few: whole[few]}
    again = generate("Fe7O", done=done, on_batch=seen.extend, progress=lambda count, total: steps.append((count, total)), **arguments)
    assert sorted(position for position, _ in seen) == [*range(1, few), few + 1] and again[0] is whole[0]
    assert all(same(a, b, 1e-5) for a, b in zip(again, whole, strict=True))
    assert steps[-1] == (12, 12)  # two crystals on sites, six steps each


def test_de_novo_has_no_prototypes(small):
    assert all("rank" not in a.info for a in generate(n=2, checkpoint=small, prototypes="mp20"))


# ------------------------------------------------------------------------------------------------------ atoms on each other


class Judge:
    """In place of the check: atoms of these crystals are too close, by how often they were looked at before."""

    def __init__(self, monkeypatch, verdict):
        self.seen, self.verdict = [], verdict
        monkeypatch.setattr("asegen.generation.too_close", self)

    def __call__(self, atoms):
        self.seen.append(int(atoms.info["seed"]))
        return "Na and Cl are 0.01 Å apart" if self.verdict(self, atoms) else ""


def test_what_the_score_model_makes_too_close_is_made_again_from_another_seed(small, monkeypatch):
    seeds = [seed_of(0, k) for k in range(4)]
    # the second crystal fails once, the third twice
    bad = {seeds[1], seeds[2], seed_of(seeds[2], 1)}
    judge = Judge(monkeypatch, lambda _, atoms: atoms.info["seed"] in bad)
    batches, steps = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crystals = generate(
            "NaCl", n=4, units=1, checkpoint=small, on_batch=batches.append, progress=lambda done, total: steps.append((done, total))
        )
    assert [a.info["seed"] for a in crystals] == [seeds[0], seed_of(seeds[1], 1), seed_of(seeds[2], 2), seeds[3]]
    assert [a.info.get("tries") for a in crystals] == [None, 2, 3, None]
    assert sorted(place for batch in batches for place, _ in batch) == [0, 1, 2, 3] and all(batches)
    assert len(judge.seen) == 4 + 2 + 1 and steps[-1] == (24, 24)
    # what comes out is what its seed gives
    monkeypatch.setattr("asegen.generation.too_close", lambda atoms: "")
    plain = generate("NaCl", n=4, units=1, checkpoint=small)
    assert same(plain[0], crystals[0]) and same(plain[3], crystals[3]) and not same(plain[1], crystals[1], 1e-2)
    assert random_crystal("NaCl", seed=crystals[2].info["seed"]).get_volume() == pytest.approx(
        make_starts(small, request_of("NaCl", 4, units=1), None)[2].again(crystals[2].info["seed"]).atoms.get_volume()
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_redrawn_crystals_do_not_depend_on_the_batch_size(small, monkeypatch, batch_size):
    bad = {seed_of(0, 1), seed_of(0, 2)}
    Judge(monkeypatch, lambda _, atoms: atoms.info["seed"] in bad)
    whole, parts = (generate("NaCl", n=4, checkpoint=small, batch_size=size) for size in (None, batch_size))
    assert [a.info for a in whole] == [a.info for a in parts] and all(same(a, b) for a, b in zip(whole, parts, strict=True))
    few = generate("NaCl", n=2, checkpoint=small)
    assert all(same(a, b) for a, b in zip(few, whole, strict=False))


def test_a_place_that_no_try_fills_stays_empty_and_a_warning_says_so(small, monkeypatch):
    hopeless = seed_of(0, 1)
    never = {hopeless, *(seed_of(hopeless, k) for k in range(1, TRIES))}
    judge = Judge(monkeypatch, lambda _, atoms: atoms.info["seed"] in never)
    batches = []
    with pytest.warns(GenerationWarning, match=r"1 of 3 crystals could not be made; number 1: Na and Cl are 0.01") as caught:
        crystals = generate("NaCl", n=3, checkpoint=small, on_batch=batches.extend)
    assert caught[0].filename == __file__  # the caller's line
    assert [a.info["seed"] for a in crystals] == [seed_of(0, 0), seed_of(0, 2)] and sorted(k for k, _ in batches) == [0, 2]
    assert len(judge.seen) == 3 + TRIES - 1 and not judge.verdict(judge, crystals[1])


def test_nothing_at_all_is_an_empty_list(small, monkeypatch):
    Judge(monkeypatch, lambda *_: True)
    with pytest.warns(GenerationWarning, match="2 of 2 crystals"):
        assert generate("NaCl", n=2, checkpoint=small) == []
    crystals, empty = fill(small, make_starts(small, request_of("NaCl", 2), None))
    assert crystals == [] and list(empty) == [0, 1] and told(empty, 2).startswith("2 of 2 crystals could not be made; number 0: ")


def test_ranks_and_groups_stay_where_crystals_are_made_again(small, monkeypatch):
    few = len(load_prototypes("mp20").rank("Fe7O", units=1)[0])
    first = {seed_of(0, k) for k in range(few, few + 2)}
    Judge(monkeypatch, lambda _, atoms: atoms.info["seed"] in first)
    crystals = generate("Fe7O", n=few + 2, units=1, checkpoint=small, prototypes="mp20")
    assert [a.info["rank"] for a in crystals] == list(range(1, few + 3))
    assert [a.info.get("tries") for a in crystals] == [None] * few + [2, 2]
    assert [a.info["start"] for a in crystals] == ["prototype"] * few + ["sites"] * 2
    Judge(monkeypatch, lambda _, atoms: atoms.info["seed"] == seed_of(0, 0))
    (again,) = generate("SrTiO3", n=1, spacegroup="P4mm", start="random", checkpoint=small)
    assert again.info["spacegroup"] == 99 and again.info["tries"] == 2 and again.info["rank"] == 1
    assert len(space_group(group_of(again, symprec=1e-3)).rotations) >= 8


def test_prototypes_that_refining_spoils_have_no_second_try(small, monkeypatch):
    judge = Judge(monkeypatch, lambda _, atoms: atoms.info["rank"] == 2)
    with pytest.warns(GenerationWarning, match="1 of 3 crystals could not be made"):
        crystals = generate("SrTiO3", n=3, checkpoint=small, prototypes="mp20", refine=0.05)
    assert [a.info["rank"] for a in crystals] == [1, 3] and len(judge.seen) == 3


def test_de_novo_crystals_are_made_again_too(small, monkeypatch):
    Judge(monkeypatch, lambda _, atoms: atoms.info["seed"] == seed_of(0, 1))
    crystals = generate(n=3, checkpoint=small)
    assert [a.info.get("tries") for a in crystals] == [None, 2, None] and crystals[1].info["seed"] == seed_of(seed_of(0, 1), 1)


def test_no_crystal_has_atoms_on_each_other(small, monkeypatch):
    """The untrained checkpoint, with the true check: what comes back keeps apart, whatever had to be thrown away."""
    monkeypatch.setattr("asegen.generation.too_close", TRUE_CHECK)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        crystals = generate(["NaCl", "Li2O", "SrTiO3"], n=4, checkpoint=small) + generate(n=6, checkpoint=small)
    assert len(crystals) < 18 and {w.category for w in caught} == {GenerationWarning}
    assert all(closest_contact(a).ratio >= TOO_CLOSE for a in crystals)
    assert any("tries" in a.info for a in crystals)


def test_finished_crystals_are_kept_as_they_are_and_empty_places_tried_again(small, monkeypatch):
    hopeless = {seed_of(0, 1), *(seed_of(seed_of(0, 1), k) for k in range(1, TRIES))}
    Judge(monkeypatch, lambda _, atoms: atoms.info["seed"] in hopeless)
    kept = []
    with pytest.warns(GenerationWarning):
        generate("NaCl", n=3, checkpoint=small, on_batch=kept.extend)
    judge = Judge(monkeypatch, lambda *_: False)
    again = generate("NaCl", n=3, checkpoint=small, done=dict(kept))
    assert judge.seen == [seed_of(0, 1)] and [again[k] for k in (0, 2)] == [dict(kept)[k] for k in (0, 2)]


def test_places_know_where_they_stand_among_empty_ones(small, monkeypatch):
    hopeless = {seed_of(0, 1), *(seed_of(seed_of(0, 1), k) for k in range(1, TRIES))}
    Judge(monkeypatch, lambda _, atoms: atoms.info["seed"] in hopeless)
    with pytest.warns(GenerationWarning):
        assert [a.info["place"] for a in generate("NaCl", n=3, checkpoint=small)] == [0, 2]
    Judge(monkeypatch, lambda *_: False)
    assert not any("place" in a.info for a in generate("NaCl", n=3, checkpoint=small))


def test_what_a_group_holds_once_is_made_once(small):
    """NaCl in Fm-3m has no free parameter and two equal ways to place its atoms."""
    with pytest.warns(GenerationWarning, match="2 of 3 crystals could not be made; number 1: Fm-3m holds no other crystal of NaCl"):
        crystals = generate("NaCl", n=3, units=1, spacegroup=225, start="random", checkpoint=small)
    assert len(crystals) == 1 and crystals[0].info["place"] == 0 and crystals[0].info["rank"] == 1
    # with a prototype of it there is none to draw
    with pytest.warns(GenerationWarning, match="1 of 2 crystals"):
        (known,) = generate("KCl", n=2, units=1, spacegroup=225, prototypes="mp20", checkpoint=small)
    assert known.info["start"] == "prototype"
