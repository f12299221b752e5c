"""From a composition to a list: which crystals come, in which order, with which probabilities."""

from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers
from gallery import build, same_crystal, standard
from hypothesis import given
from hypothesis import strategies as st

from asegen import load_prototypes
from asegen.errors import FormulaError
from asegen.formulas import numbers_of
from asegen.prototypes.alignment import gather
from asegen.prototypes.fit import Known, prototype_of
from asegen.prototypes.ranker import Ranker
from asegen.prototypes.ranking import KNOWN_SHARE, OBSERVED, Candidate, composition_key, rank
from asegen.prototypes.table import PrototypeTable
from asegen.symmetry import GroupError

NAN = float("nan")


def crystal(kind, elements, scale=1.0):
    """A well-known crystal with other elements, given in the order of the gallery's."""
    atoms = build(kind)
    swap = dict(zip(dict.fromkeys(atoms.numbers.tolist()), [atomic_numbers[e] for e in elements.split()], strict=True))
    atoms.numbers = [swap[z] for z in atoms.numbers.tolist()]
    atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    return atoms


#: What every table holds beside what a test is about: no crystal of Na and Cl, Mg and O, Ti and O, or Sr, Ti and O.
OTHERS = [
    *(("rocksalt", e, 0.0) for e in ("K Br", "Li F", "Ca O", "Ag Cl", "Rb I")),
    *(("CsCl", e, 0.0) for e in ("Cs Br", "Tl I", "Ni Al")),
    *(("zincblende", e, 0.01) for e in ("Zn Se", "Cd Te", "Ga As")),
    *(("wurtzite", e, 0.02) for e in ("Zn O", "Cd S")),
    *(("rutile", e, 0.0) for e in ("Sn O", "Mg F", "Pb O")),
    *(("fluorite", e, 0.0) for e in ("Ca F", "Ce O", "Ba Cl")),
    *(("baddeleyite", e, 0.0) for e in ("Zr O", "Hf O")),
    *(("perovskite", e, 0.0) for e in ("Ba Zr O", "K Mg F", "Ca Sn O")),
    *(("Pnma perovskite", e, 0.0) for e in ("Ca Zr O", "La Fe O")),
    *(("ilmenite", e, 0.03) for e in ("Mg Ge O", "Mn Sn O")),
]


@cache
def _standard(kind, elements, scale):
    return standard(crystal(kind, elements, scale))


def table_of(*known, plain=False):
    """Prototypes of OTHERS and of crystals: kind, elements, eV/atom above the hull, and where wanted number, published, scale."""
    rows = [(*row, *(0, True, 1.0)[len(row) - 3 :]) for row in [*OTHERS, *known]]
    by_key = {}
    for k, (kind, elements, _, _, _, scale) in enumerate(rows):
        found = _standard(kind, elements, scale)
        by_key.setdefault(found.key, []).append((k, found))
    clusters = [cluster for _, members in sorted(by_key.items()) for cluster in gather(members)]
    hull, material, published = (np.array([row[k] for row in rows]) for k in (2, 3, 4))
    return PrototypeTable([prototype_of(c, None if plain else Known(hull, published, material)) for c in clusters])


@pytest.fixture(scope="module")
def ranker():
    torch.manual_seed(0)
    return Ranker(networks=2).eval()


SALTS = [("rocksalt", "Na Cl", 0.002), ("CsCl", "Na Cl", 0.06, 0, False), ("zincblende", "Na Cl", 0.03, 123456), ("wurtzite", "Na Cl", NAN)]


def known_of(candidates):
    return [(c.prototype.number, c.hull if c.hull_source else None) for c in candidates if c.known]


# ------------------------------------------------------------------------------------------------------------- the order of energies


def test_known_crystals_come_by_energy_with_their_own_cells_and_what_is_known_of_them(ranker):
    table = table_of(*[(*row, *(0, True)[len(row) - 3 :], 1.03) for row in SALTS])
    candidates, _ = rank(table, ranker, "NaCl")
    known = [c for c in candidates if c.known]
    assert candidates[: len(known)] == known and len(known) == 4
    # nobody knows the energy of the wurtzite: it stands where the votes of like crystals put it
    assert [c.prototype.number for c in known if c.hull_source] == [225, 216, 221]
    assert [c.hull for c in known if c.hull_source] == [0.002, 0.03, 0.06]
    by_group = {c.prototype.number: c for c in known}
    assert [by_group[n].hull_source for n in (225, 216, 221, 186)] == ["published", "published", "computed", ""]
    assert np.isnan(by_group[186].hull)
    assert [by_group[n].material_id for n in (225, 216)] == ["", "mp-123456"]
    for kind, number in (("rocksalt", 225), ("CsCl", 221), ("zincblende", 216), ("wurtzite", 186)):
        assert same_crystal(by_group[number].crystal()[0], crystal(kind, "Na Cl", 1.03), 1e-4), kind
        assert by_group[number].volume == pytest.approx(crystal(kind, "Na Cl", 1.03).get_volume(), rel=1e-6)
    for candidate in candidates[len(known) :]:
        assert candidate.hull_source == "predicted" and np.isfinite(candidate.hull) and not candidate.material
    assert not any(c.handbook for c in candidates)


def test_energies_enter_probabilities_and_leave_room_for_what_may_lie_lower(ranker):
    def shares(first, second):
        candidates, _ = rank(table_of(("rocksalt", "Na Cl", first), ("CsCl", "Na Cl", second)), ranker, "NaCl")
        return [c.probability for c in candidates if c.known]

    low = shares(0.0, 0.03)
    assert sum(low) == pytest.approx(KNOWN_SHARE) and low[0] / low[1] == pytest.approx(np.e, rel=1e-6)
    assert sum(shares(0.05, 0.08)) == pytest.approx(KNOWN_SHARE / np.e)
    equal = shares(0.01, 0.01)
    assert equal[0] == pytest.approx(equal[1])
    assert sum(shares(-0.01, 0.01)) == pytest.approx(KNOWN_SHARE)  # a hull that has sunk since


def test_a_crystal_that_is_there_twice_comes_once(ranker):
    def found(*rows):
        return [(c.prototype.number, c.hull) for c in rank(table_of(*rows), ranker, "NaCl")[0] if c.known]

    salt = ("rocksalt", "Na Cl", 0.02, 0, True, 1.0)
    assert found(salt, (*salt[:2], 0.001, 0, True, 1.002)) == [(225, 0.001)]  # the one lower in energy
    assert found(salt, (*salt[:2], 0.001, 0, True, 1.05)) == [(225, 0.001), (225, 0.02)]  # another volume is another crystal


@pytest.mark.parametrize(("ids", "bonus"), OBSERVED)
def test_an_observed_crystal_takes_the_first_place_if_energies_do_not_speak_against_it(ranker, ids, bonus):
    def order(above, number):
        rows = [("rocksalt", "Na Cl", 0.001), ("CsCl", "Na Cl", 0.001 + above, number), ("zincblende", "Na Cl", 0.0015)]
        candidates = [c for c in rank(table_of(*rows), ranker, "NaCl")[0] if c.known]
        chances = [c.probability for c in candidates]
        assert chances == sorted(chances, reverse=True) and candidates[0].probability > candidates[1].probability
        return [c.prototype.number for c in candidates]

    for number in (ids.start, ids.stop - 1):
        assert order(bonus - 0.002, number) == [221, 225, 216]
        assert order(bonus + 0.002, number) == [225, 216, 221]
    assert order(bonus - 0.002, 123_456) == [225, 216, 221]
    assert order(bonus - 0.002, -ids.start) == [225, 216, 221]  # mvc- ids are of none that was observed


def test_an_observed_crystal_far_above_the_hull_stays_likely(ranker):
    share = {}
    for number in (0, 1234):
        candidates, _ = rank(table_of(("rocksalt", "Na Cl", 0.1, number)), ranker, "NaCl")
        share[number] = sum(c.probability for c in candidates if c.known)
    assert share[0] == pytest.approx(KNOWN_SHARE * np.exp(-2)) and share[1234] == pytest.approx(KNOWN_SHARE * np.exp(-0.2))


# ------------------------------------------------------------------------------------------------------------------- the handbook


def test_the_crystal_of_the_handbook_stands_first(ranker):
    table = table_of(*SALTS)
    plain, new = rank(table, ranker, "NaCl")
    candidates, same = rank(table, ranker, "NaCl", handbook={"ClNa": [221]})
    first = candidates[0]
    assert first.prototype.number == 221 and first.known and first.handbook and not any(c.handbook for c in candidates[1:])
    assert first.probability >= 0.5 * sum(c.probability for c in candidates) and same == new
    assert first.hull == 0.06 and first.hull_source == "computed"
    # the others keep their order
    assert [c.prototype.number for c in candidates[1:]] == [c.prototype.number for c in plain if c.prototype.number != 221]
    # two groups: the one named first; a crystal that is first anyway keeps what it has
    assert rank(table, ranker, "NaCl", handbook={"ClNa": [221, 216]})[0][0].prototype.number == 221
    assert rank(table, ranker, "NaCl", handbook={"ClNa": [216, 221]})[0][0].prototype.number == 216
    already = rank(table, ranker, "NaCl", handbook={"ClNa": [225]})[0]
    assert already[0].handbook and already[0].probability >= plain[0].probability
    # of another composition
    assert rank(table, ranker, "NaCl", handbook={"ClK": [221]})[0][0].prototype.number == 225


def test_a_group_of_the_handbook_that_no_known_crystal_has_is_predicted(ranker):
    table = table_of(("rocksalt", "Na Cl", 0.0))
    for number in (221, 186):
        plain, novelty = rank(table, ranker, "NaCl")
        candidates, _ = rank(table, ranker, "Na2Cl2", handbook={"ClNa": [number]})
        first = candidates[0]
        assert first.prototype.number == number and first.handbook and not first.known and first.hull_source == "predicted"
        assert candidates[1].known and sum(c.probability for c in candidates) + novelty == pytest.approx(1)
        assert len(candidates) == len(plain) and first.crystal()[0].get_volume() > 20
    # no prototype of the group there is: as if the handbook said nothing
    assert rank(table, ranker, "NaCl", handbook={"ClNa": [230]})[0] == rank(table, ranker, "NaCl")[0]
    narrowed = rank(table, ranker, "NaCl", units=1, handbook={"ClNa": [186]})[0]  # wurtzite has two formula units
    assert not any(c.handbook for c in narrowed) and narrowed[0].known


def test_a_group_of_the_handbook_beyond_the_candidates_looked_at_is_found(packaged_mp20):
    table, ranker = packaged_mp20.table, packaged_mp20.ranker
    plain = rank(table, ranker, "NaCl")[0]
    family = table.family((1, 1))
    seen = {c.prototype.number for c in plain}
    number = next(n for k in family.members.tolist() if (n := table.prototypes[k].number) not in seen)
    candidates, novelty = rank(table, ranker, "NaCl", handbook={"ClNa": [number]})
    assert candidates[0].prototype.number == number and candidates[0].handbook and len(candidates) == len(plain) + 1
    chances = [c.probability for c in candidates]
    assert chances == sorted(chances, reverse=True) and sum(chances) + novelty == pytest.approx(1)
    for n in (1, 2, 7):
        assert [told(c) for c in rank(table, ranker, "NaCl", n, handbook={"ClNa": [number]})[0]] == [told(c) for c in candidates[:n]]


def test_the_handbook_is_about_what_is_stable(ranker):
    table = table_of(*SALTS)
    for options in ({"order": "likely"}, {"new": True}):
        with_it, without = (rank(table, ranker, "NaCl", handbook=h, **options)[0] for h in ({"ClNa": [221]}, {}))
        assert [told(c) for c in with_it] == [told(c) for c in without] and not any(c.handbook for c in with_it)


@pytest.mark.parametrize(("formula", "key"), [("TiO2", "O2Ti"), ("Ti4O8", "O2Ti"), ("O2Ti", "O2Ti"), ("Si8", "Si"), ("SrTiO3", "O3SrTi")])
def test_compositions_are_named_by_their_reduced_formula(formula, key):
    assert composition_key(numbers_of(formula)) == key


def test_the_packaged_handbook_is_of_known_groups():
    handbook = load_prototypes("default").header.get("handbook", {})
    assert all(key == composition_key(numbers_of(key)) for key in handbook)
    assert all(groups and all(1 <= number <= 230 for number in groups) for groups in handbook.values())


# ------------------------------------------------------------------------------------------------------------------------- units


def test_a_formula_means_its_composition_unless_units_are_given(packaged_mp20):
    everything = packaged_mp20.rank("TiO2")
    assert len({c.units for c in everything[0]}) > 2
    for written in ("Ti2O4", "Ti4O8", numbers_of("Ti3O6")):
        same = packaged_mp20.rank(written)
        assert [told(c) for c in same[0]] == [told(c) for c in everything[0]] and same[1] == everything[1]


UNITS = [("TiO2", 1, 3), ("TiO2", 2, 6), ("Ti2O4", 1, 6), ("Ti2O4", 2, 12), ("Ti4O8", 1, 12)]


@pytest.mark.parametrize(("formula", "units", "atoms"), UNITS)
def test_units_count_the_formula_as_written(packaged_mp20, formula, units, atoms):
    for option in (units, [units], np.int64(units)):
        candidates, new = packaged_mp20.rank(formula, units=option)
        assert candidates and {len(c.crystal()[0]) for c in candidates[:9]} == {atoms} == {sum(c.prototype.counts) for c in candidates}
        assert sum(c.probability for c in candidates) + new == pytest.approx(1)


def test_several_units_stand_for_one_election(packaged_mp20):
    candidates, new = packaged_mp20.rank("TiO2", units=[2, 4])
    assert {c.units for c in candidates} == {2, 4} and sum(c.probability for c in candidates) + new == pytest.approx(1)
    assert {c.units for c in packaged_mp20.rank("Ti2O4", units=[1, 2])[0]} == {2, 4}
    assert packaged_mp20.rank("TiO2", units=[]) == ([], 1.0) and packaged_mp20.rank("TiO2", units=997) == ([], 1.0)
    assert packaged_mp20.rank("Ti7O14", units=13) == ([], 1.0)


def test_known_crystals_of_all_sizes_are_compared(ranker):
    table = table_of(("fluorite", "Ti O", 0.05), ("baddeleyite", "Ti O", 0.001), ("rutile", "Ti O", 0.02))
    assert known_of(rank(table, ranker, "TiO2")[0]) == [(14, 0.001), (136, 0.02), (225, 0.05)]
    assert known_of(rank(table, ranker, "TiO2", units=[1, 2])[0]) == [(136, 0.02), (225, 0.05)]
    assert known_of(rank(table, ranker, "TiO2", units=1)[0]) == [(225, 0.05)]
    assert known_of(rank(table, ranker, "TiO2", spacegroup=136)[0]) == [(136, 0.02)]
    assert known_of(rank(table, ranker, "TiO2", spacegroup="P2_1/c", units=4)[0]) == [(14, 0.001)]
    assert rank(table, ranker, "TiO2", spacegroup="P2_1/c", units=2) == ([], 1.0)


# ------------------------------------------------------------------------------------------------------------------- probabilities


def told(candidate: Candidate):
    return id(candidate.prototype), candidate.elements, candidate.known, candidate.handbook, candidate.probability, candidate.hull_source


FORMULAS = "NaCl SrTiO3 TiO2 Ti4O8 CsCl Si C MgAl2O4 YBa2Cu3O7 Li2FeO2 Fe7O MnAlCu2 O2 LiFePO4 Li3Bi7O5".split()


@given(
    st.sampled_from(FORMULAS),
    st.sampled_from([None, 1, 2, [1, 2, 4]]),
    st.sampled_from(["stable", "likely"]),
    st.booleans(),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from([None, 1, 47, 62, 221, 225]),
    st.sampled_from([1, 3, 20]),
    st.sampled_from([(), (225,), (62, 14), (221,), (1,)]),
)
def test_probabilities_never_rise_and_sum_to_one(packaged_mp20, formula, units, order, new, diversity, group, n, expected):
    options = {"units": units, "order": order, "new": new, "diversity": diversity, "spacegroup": group}
    handbook = {composition_key(numbers_of(formula)): list(expected)} if expected else {}
    candidates, novelty = rank(packaged_mp20.table, packaged_mp20.ranker, formula, handbook=handbook, **options)
    chances = [c.probability for c in candidates]
    assert sum(chances) + novelty == pytest.approx(1, abs=1e-6) and 0 <= novelty <= 1 and min(chances, default=0) >= 0
    assert all(a >= b for a, b in pairwise(chances))
    few, same = rank(packaged_mp20.table, packaged_mp20.ranker, formula, n, handbook=handbook, **options)
    assert [told(c)[:4] for c in few] == [told(c)[:4] for c in candidates[:n]] and same == novelty
    assert [c.probability for c in few] == pytest.approx(chances[:n], rel=1e-9)
    written = len(numbers_of(formula))
    for c in candidates:
        assert group in (None, c.prototype.number) and not (new and c.known)
        assert units is None or sum(c.prototype.counts) in [written * u for u in np.atleast_1d(units)]
    assert sum(c.handbook for c in candidates) <= (1 if order == "stable" and not new else 0)
    # nothing twice: a prototype with the same elements only as several known crystals
    predicted = [(id(c.prototype), c.elements) for c in candidates if not c.known]
    assert len(set(predicted)) == len(predicted)


def test_of_an_election_in_which_all_are_known_nothing_new_is_left(ranker):
    table = table_of(("fluorite", "Ti O", 0.0))
    candidates, novelty = rank(table, ranker, "TiO2", spacegroup=225)
    assert len(candidates) == 1 and candidates[0].known and candidates[0].probability + novelty == pytest.approx(1)
    assert rank(table, ranker, "TiO2", spacegroup=225, new=True) == ([], 1.0)


def test_orders_and_groups_that_do_not_exist(packaged_mp20):
    with pytest.raises(FormulaError, match=r"order = 'best' is not one of stable, likely"):
        packaged_mp20.rank("NaCl", order="best")
    with pytest.raises(GroupError, match="no space group 231"):
        packaged_mp20.rank("NaCl", spacegroup=231)


# --------------------------------------------------------------------------------------------------------------- likely, and new


def test_the_likely_order_gives_each_known_prototype_one_place(ranker):
    rows = [("rocksalt", "Na Cl", 0.3), ("rocksalt", "Na Cl", 0.0, 5, True, 1.1), ("CsCl", "Na Cl", 0.0)]
    table = table_of(*rows)
    candidates, _ = rank(table, ranker, "NaCl", order="likely")
    known = [c for c in candidates if c.known]
    assert sorted(c.prototype.number for c in known) == [221, 225] and sum(c.probability for c in known) == pytest.approx(KNOWN_SHARE)
    assert candidates[:2] == known
    # of two examples of a prototype the lower one
    assert next(c for c in known if c.prototype.number == 225).material_id == "mp-5"
    assert known_of(rank(table, ranker, "NaCl")[0]) == [(225, 0.0), (221, 0.0), (225, 0.3)]


def test_the_likely_order_does_not_ask_for_energies(packaged_mp20):
    """Among known crystals the learned ranking decides."""
    against = 0
    for formula in ("CsCl", "TiO2", "ZrO2", "Li2FeO2", "Si"):
        known = [c for c in packaged_mp20.rank(formula, order="likely")[0] if c.known]
        energies = [c.hull for c in known]
        against += energies != sorted(energies)
    assert against


@pytest.mark.parametrize("order", ["stable", "likely"])
def test_new_leaves_out_what_is_known(packaged_mp20, order):
    for formula in ("NaCl", "CsCl", "GaN", "MgAl2O4", "ZrO2"):
        everything = packaged_mp20.rank(formula, order=order)[0]
        candidates, _ = packaged_mp20.rank(formula, order=order, new=True)
        assert any(c.known for c in everything) and candidates and not any(c.known for c in candidates)
        for c in candidates if order == "stable" else ():  # a database may hold another entry of a known prototype
            rows = {tuple(row) for row in c.prototype.examples.tolist()}
            swaps = [range(len(c.elements)), *c.prototype.swaps]
            assert not any(tuple(c.elements[k] for k in swap) in rows for swap in swaps)


def test_new_leaves_out_what_is_nearly_the_same_too(ranker):
    """A tetragonal perovskite that is hardly tetragonal is no new one where the cubic one is known."""
    cubic = crystal("perovskite", "Sr Ti O")
    table = table_of(("perovskite", "Sr Ti O", 0.0))
    fresh = rank(table, ranker, "SrTiO3", new=True)[0]
    assert fresh and not any(same_crystal(c.crystal()[0], cubic, 0.3) for c in fresh if len(c.crystal()[0]) == 5)


# --------------------------------------------------------------------------------------------------------------------- what is typed


@pytest.mark.parametrize("formula", ["SrTiO3", "O3TiSr", "TiO3Sr", "Al2MgO4", "O4Al2Mg", "O2Zr", "FeLi2O2"])
def test_atoms_and_sites_stand_in_the_order_of_the_typed_elements(packaged_mp20, formula):
    typed = list(dict.fromkeys(numbers_of(formula).tolist()))
    for option in (formula, numbers_of(formula)):
        for candidate in packaged_mp20.rank(option, 12)[0]:
            atoms, symmetry = candidate.crystal()
            assert list(dict.fromkeys(atoms.numbers.tolist())) == typed
            places = [typed.index(z) for z in atoms.numbers.tolist()]
            assert places == sorted(places)
            sites = [typed.index(atomic_numbers[element]) for element, _ in candidate.sites]
            assert sites == sorted(sites) and len(symmetry.site) == len(atoms)


def test_the_order_of_typing_changes_nothing_else(packaged_mp20):
    for orders in (("SrTiO3", "O3TiSr"), ("MgAl2O4", "O4MgAl2")):
        (one, new), (other, same) = (packaged_mp20.rank(formula) for formula in orders)
        assert new == pytest.approx(same, rel=1e-6) and len(one) == len(other)
        for a, b in zip(one[:8], other, strict=False):
            assert a.prototype is b.prototype and a.probability == pytest.approx(b.probability, rel=1e-5)
            assert same_crystal(a.crystal()[0], b.crystal()[0], 1e-6)


# ---------------------------------------------------------------------------------------------------------------- without energies


def test_a_table_without_energies_ranks_and_predicts_none(ranker):
    table = table_of(("rocksalt", "Na Cl", 0.0), ("CsCl", "Na Cl", 0.0), plain=True)
    for order, new in product(("stable", "likely"), (False, True)):
        candidates, novelty = rank(table, ranker, "NaCl", order=order, new=new)
        assert candidates and not any(c.hull_source or c.material for c in candidates) and all(np.isnan(c.hull) for c in candidates)
        assert sum(c.known for c in candidates) == (0 if new else 2)
        assert sum(c.probability for c in candidates) + novelty == pytest.approx(1)


def test_files_of_format_1_are_read_and_keep_no_crystals():
    model = load_prototypes("perov-5")
    assert model.header["format"] == 1 and not model.table.prototypes.keeps_crystals
    candidates, novelty = model.rank("SrTiO3")
    assert any(c.known for c in candidates) and not any(c.hull_source or c.material_id for c in candidates)
    assert sum(c.probability for c in candidates) + novelty == pytest.approx(1)
    known = next(c for c in candidates if c.known)
    assigned = np.array(known.elements)
    assert np.allclose(known.values, known.prototype.geometry.predict(assigned))


def test_a_potential_does_not_put_its_own_energies_below_all_published_ones(ranker):
    """7net-0 finds solid hydrogen's atoms below its molecules."""
    mixed = table_of(("rocksalt", "Na Cl", 0.0), ("CsCl", "Na Cl", -0.03, 0, False))
    candidates = [c for c in rank(mixed, ranker, "NaCl")[0] if c.known]
    assert [(c.prototype.number, c.hull_source) for c in candidates] == [(225, "published"), (221, "computed")]
    assert candidates[1].hull == -0.03  # told as it is
    computed = table_of(("rocksalt", "Na Cl", 0.0, 0, False), ("CsCl", "Na Cl", -0.03, 0, False))
    assert rank(computed, ranker, "NaCl")[0][0].prototype.number == 221
