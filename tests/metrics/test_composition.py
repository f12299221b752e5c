import itertools
import random
import time

import numpy as np
import pytest
import smact
from ase.data import atomic_numbers, chemical_symbols
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition
from smact.screening import smact_validity

from asegen.errors import FormulaError
from asegen.metrics.composition import OxidationCheck, composition_tables, oxidation_valid

KEYWORDS = {"smact14": {"oxidation_states_set": "smact14"}, "smact": {}}
RULES = tuple(KEYWORDS)
# few elements that are metals, so that most compositions reach the oxidation states
IONIC = "H Li B C N O F Na Mg Si P S Cl K Ti Mn Fe Zn As Se Br Zr Te I Xe".split()


def live(formula, rule):
    return bool(smact_validity(Composition(formula), **KEYWORDS[rule]))


def differences(formulas, rule):
    return [formula for formula in formulas if live(formula, rule) != oxidation_valid(formula, rule).valid]


@pytest.mark.parametrize("rule", RULES)
def test_every_element_alone_and_every_pair_is_judged_as_by_smact(rule):
    symbols = smact.ordered_elements(1, 103)
    draw = random.Random(1)
    pairs = [f"{a}{draw.randint(1, 4)}{b}{draw.randint(1, 4)}" for a, b in itertools.combinations(symbols, 2)]
    assert differences(symbols + pairs, rule) == []


@pytest.mark.parametrize("rule", RULES)
def test_random_compositions_are_judged_as_by_smact(rule):
    draw = random.Random(2)
    formulas = []
    for size, count in ((3, 700), (4, 400), (5, 100), (6, 20)):
        for _ in range(count):
            chosen = draw.sample(IONIC, size)
            formulas.append("".join(f"{symbol}{draw.randint(1, 9)}" for symbol in chosen))
    assert differences(formulas, rule) == []
    # the sample is worth something: many pass, and each way to fail occurs
    reasons = [oxidation_valid(formula, rule).reason for formula in formulas]
    assert reasons.count("neutral and Pauling-ordered") > 300
    assert reasons.count("no neutral combination") > 30
    assert reasons.count("neutral only against the Pauling order") > 100


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(smact.ordered_elements(1, 103)), st.integers(1, 20), min_size=1, max_size=4), st.sampled_from(RULES))
def test_any_composition_is_judged_as_by_smact(counts, rule):
    assert oxidation_valid(counts, rule).valid == live(counts, rule)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from(IONIC), st.integers(1, 9), min_size=1, max_size=5),
    st.integers(2, 7),
    st.sampled_from(RULES),
    st.randoms(),
)
def test_only_ratios_matter_and_no_order(counts, factor, rule, draw):
    once = oxidation_valid(counts, rule)
    numbers = [atomic_numbers[symbol] for symbol, count in counts.items() for _ in range(count * factor)]
    draw.shuffle(numbers)
    assert oxidation_valid(np.array(numbers), rule) == once
    assert oxidation_valid(numbers, rule) == once
    assert oxidation_valid({atomic_numbers[symbol]: count * factor for symbol, count in counts.items()}, rule) == once
    assert oxidation_valid("".join(f"{symbol}{count}" for symbol, count in counts.items()), rule) == once


@pytest.mark.parametrize(
    ("formula", "valid", "reason"),
    [
        ("SrTiO3", True, "neutral and Pauling-ordered"),
        ("Xe", True, "one element"),
        ("Rf3", True, "one element"),
        ("NiTi", True, "metals only"),
        ("LiF2", False, "no neutral combination"),
        ("ZrC", True, "neutral and Pauling-ordered"),
        ("SeBr2", True, "neutral and Pauling-ordered"),
        ("SeC", False, "neutral only against the Pauling order"),  # both have 2.55: neither is the cation
        ("HeO", False, "no oxidation states for He"),
        ("PmCl3", False, "no electronegativity of Pm"),
        ("RfO2", False, "SMACT does not know Rf"),
    ],
)
def test_the_reason_is_given(formula, valid, reason):
    assert oxidation_valid(formula) == OxidationCheck(valid, reason)
    assert bool(oxidation_valid(formula)) is valid


def test_the_two_rules_differ_where_the_sets_of_states_do():
    # Y4+ is in the set of 2024 only, ions of At in that of 2014 only
    assert not oxidation_valid("YF4", "smact14") and oxidation_valid("YF4", "smact")
    assert oxidation_valid("AtF", "smact14") and not oxidation_valid("AtF", "smact")


def test_twelve_elements_take_milliseconds():
    # SMACT would try 10^10 choices of states
    formula = "Mn7Fe5Cr3V9Tc2Ru11Os3Ir7Pt2S13Cl5N20"
    for formula_now in (formula, formula.replace("N20", "F1"), "H7C5N3P9S2Se11As3Br7Cl2I13Te5O20"):
        oxidation_valid(formula_now)
        start = time.perf_counter()
        oxidation_valid(formula_now)
        assert time.perf_counter() - start < 0.05


def test_what_is_no_atomic_number_is_not_valid():
    for number in (0, -1, 119, 500):
        assert oxidation_valid([number, 8]) == OxidationCheck(False, f"{number} is no atomic number")
        assert not oxidation_valid([number])


@pytest.mark.parametrize("composition", [[], {}, "", "Xx2", {"Xx": 1}, {"O": 0}, {"O": 1.5}, {"Li": 2_000_002, "O": 3}])
def test_what_is_no_composition_is_refused(composition):
    with pytest.raises(FormulaError):
        oxidation_valid(composition)


def test_an_unknown_rule_is_refused():
    with pytest.raises(FormulaError, match="smact14"):
        oxidation_valid("NaCl", "smact23")


def test_the_table_is_that_of_the_installed_smact():
    tables = composition_tables()
    assert set(tables["metals"]) == set(smact.metals)
    assert list(tables["oxidation"]) == smact.ordered_elements(1, 103)
    for symbol, (electronegativity, states, _) in tables["oxidation"].items():
        element = smact.Element(symbol)
        assert (electronegativity, states) == (element.pauling_eneg, element.oxidation_states_smact14 or [])
    # the search takes an ion for a cation or an anion
    assert all(0 not in row[1] + row[2] for row in tables["oxidation"].values())
    assert all(symbol in chemical_symbols for symbol in tables["metals"])
