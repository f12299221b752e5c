from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asegen.symmetry.errors import SitesError
from asegen.symmetry.groups import space_group
from asegen.symmetry.sites import (
    check_formula,
    count_sites,
    describe_groups,
    draw_sites,
    enumerate_sites,
    format_sites,
    groups_that_hold,
    parse_sites,
)

ELEMENTS = ("Sr", "Ti", "O")
small_counts = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(lambda c: dict(zip(ELEMENTS, c, strict=False)))
numbers = st.integers(1, 230)


def brute_force(counts, group):
    """Every multiset of positions for every element, filtered: slow and plain."""
    positions = group.positions

    def multisets(rest, start):
        if rest == 0:
            yield ()
        for i in range(start, len(positions)):
            if positions[i].multiplicity_primitive <= rest:
                for more in multisets(rest - positions[i].multiplicity_primitive, i):
                    yield (i, *more)

    found = [()]
    for count in counts.values():
        found = [(*before, own) for before in found for own in multisets(count, 0)]
    for combination in found:
        used = Counter(i for own in combination for i in own)
        if all(n == 1 or positions[i].dof for i, n in used.items()):
            yield tuple((e, positions[i].label) for e, own in zip(counts, combination, strict=True) for i in own)


@given(small_counts, st.integers(75, 230))
def test_enumeration_is_that_of_brute_force_in_order_and_the_count_agrees(counts, number):
    group = space_group(number)
    expected = list(brute_force(counts, group))
    assert list(enumerate_sites(counts, group)) == expected
    assert count_sites(counts, group) == len(expected)


@given(small_counts, numbers)
def test_what_is_enumerated_adds_up_and_survives_text(counts, number):
    group = space_group(number)
    for sites in enumerate_sites(counts, group, limit=20):
        held = Counter()
        for element, label in sites:
            held[element] += group.position(label).multiplicity_primitive
        assert held == counts
        assert parse_sites(format_sites(sites), group, counts) == sites


def test_known_numbers():
    assert list(enumerate_sites("SrTiO3", 221, limit=1)) == [(("Sr", "1a"), ("Ti", "1b"), ("O", "3c"))]
    assert count_sites("SrTiO3", 221) == 4  # Sr and Ti on a and b, O on c or d
    assert count_sites("H", 1) == 1 and count_sites("NaCl", 225) == 2
    assert count_sites("H3", "P-1") == 8 * 7 * 6 // 6 + 8  # three inversion centres, or one and a pair


def test_a_count_beyond_enumeration_is_exact_and_the_first_ones_come_at_once():
    counts = {"Ca": 24, "Al": 16, "Si": 24, "O": 96}
    assert count_sites(counts, "P2/m") > 10**12
    assert len(list(enumerate_sites(counts, "P2/m", limit=5))) == 5


def test_draws_are_uniform_over_the_combinations():
    counts = {"Ti": 2, "O": 3}
    every = list(enumerate_sites(counts, 221))
    random = np.random.default_rng(0)
    seen = Counter(draw_sites(counts, 221, random) for _ in range(200 * len(every)))
    assert set(seen) == set(every)
    deviation = np.array([seen[s] for s in every]) / 200 - 1
    assert np.abs(deviation).max() < 5 * 200**-0.5
    assert draw_sites(counts, 221, np.random.default_rng(5)) == draw_sites(counts, 221, np.random.default_rng(5))


def test_groups_that_hold_a_formula():
    held = groups_that_hold("SrTiO3")
    assert 221 in held and 227 not in held and 1 in held
    assert all(next(enumerate_sites("SrTiO3", n), None) is not None for n in held)
    assert all(next(brute_force({"Sr": 1, "Ti": 1, "O": 3}, space_group(n)), None) is None for n in range(1, 231) if n not in held)
    assert describe_groups([1, 2, 195, 200, 201, 221]) == "cubic 195, 200–201, 221; triclinic 1–2"


def test_a_formula_that_the_group_cannot_hold():
    with pytest.raises(SitesError, match=r"Fd-3m \(227\) holds SrTiO3 in the primitive cell; groups that do: cubic .*221"):
        check_formula("SrTiO3", "Fd-3m")
    check_formula("SrTiO3", "Pm-3m")
    with pytest.raises(SitesError, match="groups that do"):
        draw_sites("SrTiO3", "Fd-3m", np.random.default_rng(0))


def test_reading_sites():
    assert parse_sites("Fe:4c, 4a  O:8d", "Pnma") == (("Fe", "4a"), ("Fe", "4c"), ("O", "8d"))
    assert parse_sites("O:d Fe:c,a", "Pnma", "Fe8O8") == (("Fe", "4a"), ("Fe", "4c"), ("O", "8d"))
    assert parse_sites([("Na", "4a"), ("Cl", "b")], 225, {"Na": 1, "Cl": 1}) == (("Na", "4a"), ("Cl", "4b"))
    assert parse_sites("O:8d,8d", "Pnma") == (("O", "8d"), ("O", "8d"))


@pytest.mark.parametrize(
    ("text", "counts", "says"),
    [("Fe:4e", None, "no Wyckoff position '4e'; it has 4a, 4b, 4c, 8d"), ("Fe:8c", None, "is 4c, not 8c"),
     ("Fe:4a,4a", None, r"used twice \(by Fe\)"), ("Fe:4a O:4a", None, r"by Fe and O\); it has no free parameter"), ("", None, "no sites"),
     ("Fe 4a", None, "cannot read 'Fe'"), ("Fe2:4a", None, "cannot read"), ("Fe:4a", "Fe8", "hold Fe4 in the primitive cell, not Fe8"),
     ("Fe:4a O:8d", "Fe4", "hold Fe4O8")],
)  # fmt: skip
def test_sites_that_cannot_be(text, counts, says):
    with pytest.raises(SitesError, match=says):
        parse_sites(text, "Pnma", counts)
