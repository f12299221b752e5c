import math

import numpy as np
import pytest

from asegen.errors import AsegenError, MetricError
from asegen.metrics.discovery import (
    formation_energy_difference,
    hull_counts,
    search_success,
    share_p1,
    space_group_distance,
    sun_shares,
)

NAN = float("nan")
A = {"NaCl": [-2.0, -1.5, NAN], "TiO2": [-3.0], "LiF": [NAN, math.inf], "Fe2O3": [-1.0]}
B = {"NaCl": [-1.8, -2.1], "TiO2": [-2.5, NAN], "LiF": [-3.0], "MgO": [-3.0], "ZnO": [NAN]}


def test_the_lowest_crystals_of_a_composition_are_compared():
    found = formation_energy_difference(A, B)
    # NaCl: -2.0 + 2.1 = 0.1; TiO2: -3.0 + 2.5 = -0.5
    assert found.difference == pytest.approx(-0.2)
    assert found.reduction_rate == 0.5
    assert (found.pairs, found.compositions) == (2, 2)
    assert (found.only_a, found.only_b, found.without_energy) == (1, 2, 1)
    assert (found.failed_a, found.failed_b) == (3, 2)


def test_all_pairs_as_the_paper_prints_it():
    found = formation_energy_difference(A, B, pairs="all")
    # NaCl: -0.2, 0.1, 0.3, 0.6; TiO2: -0.5
    assert found.difference == pytest.approx(0.06)
    assert found.reduction_rate == pytest.approx(2 / 5)
    assert (found.pairs, found.compositions) == (5, 2)


def test_exchanging_the_sets_changes_the_sign():
    there, back = formation_energy_difference(A, B), formation_energy_difference(B, A)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.only_a, there.failed_a) == (back.only_b, back.failed_b)


def test_nothing_in_common_is_nan_and_equal_energies_are_no_reduction():
    found = formation_energy_difference({"NaCl": [-1.0]}, {"KCl": [-1.0]})
    assert math.isnan(found.difference) and math.isnan(found.reduction_rate) and found.pairs == 0
    assert math.isnan(formation_energy_difference({}, {}).difference)
    assert formation_energy_difference({"NaCl": [-1.0]}, {"NaCl": [-1.0]}).reduction_rate == 0


def test_hull_counts():
    found = hull_counts([-0.01, 0.0, 0.01, 0.025, 0.3, NAN, -math.inf, -0.2])
    assert found.total == 8 and found.missing == 2
    assert found.limits == (0.0, 0.025)
    assert found.counts == (2, 4)
    assert found.shares == (0.25, 0.5)
    assert hull_counts([0.05, 0.2], limits=[0.1]).counts == (1,)
    assert math.isnan(hull_counts([]).shares[0])


def test_stable_unique_novel():
    energies = [-0.1, 0.0, 0.05, 0.1, 0.2, NAN, 0.0, -math.inf]
    unique = [1, 1, 1, 1, 1, 1, 0, 1]
    novel = [1, 0, 1, 1, 1, 1, 1, 1]
    found = sun_shares(energies, unique, novel)
    assert (found.total, found.missing) == (8, 2)
    assert (found.stable, found.metastable) == (3 / 8, 5 / 8)
    assert (found.unique, found.novel) == (7 / 8, 7 / 8)
    assert (found.sun, found.metastable_sun) == (1 / 8, 3 / 8)
    assert sun_shares(energies, unique, novel, stable_below=0.1).sun == 3 / 8
    assert math.isnan(sun_shares([], [], []).sun)


def test_space_groups():
    found = space_group_distance([1, 1, 225, 225, 0], [225, 225, 225, 62])
    # shares 1/2 1/2 0 and 0 3/4 1/4
    assert found.total_variation == pytest.approx(0.5)
    mixture = [0.25, 0.625, 0.125]
    divergence = sum(
        0.5 * p * math.log2(p / m) for row in ([0.5, 0.5, 0], [0, 0.75, 0.25]) for p, m in zip(row, mixture, strict=True) if p
    )
    assert found.jensen_shannon == pytest.approx(math.sqrt(divergence))
    assert (found.missing_a, found.missing_b) == (1, 0)
    assert (found.share_p1_a, found.share_p1_b) == (0.5, 0.0)


def test_equal_and_disjoint_space_groups():
    same = space_group_distance([2, 14, 14], np.array([14, 2, 14, 14, 2, 14]))
    assert same.total_variation == pytest.approx(0) and same.jensen_shannon == pytest.approx(0, abs=1e-7)
    apart = space_group_distance([1], [230])
    assert apart.total_variation == pytest.approx(1) and apart.jensen_shannon == pytest.approx(1)
    empty = space_group_distance([0, 0], [1])
    assert math.isnan(empty.total_variation) and math.isnan(empty.jensen_shannon) and empty.missing_a == 2
    assert math.isnan(share_p1([])) and share_p1([1, 0, 2, 1]) == pytest.approx(2 / 3)


def test_search_success():
    found = search_success({"NaCl": [False, True], "TiO2": [False, False], "LiF": [], "MgO": [True]})
    assert (found.formulas, found.solved, found.share) == (4, 2, 0.5)
    assert found.converged == pytest.approx(2 / 5)
    assert math.isnan(search_success({}).share)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sun_shares([0.0], [True, False], [True]),
        lambda: sun_shares([0.0], [True], [True], stable_below=0.2),
        lambda: hull_counts([[0.1, 0.2]]),
        lambda: space_group_distance([231], [1]),
        lambda: space_group_distance([-1], [1]),
        lambda: space_group_distance([1.5], [1]),
        lambda: formation_energy_difference({}, {}, pairs="some"),
        lambda: formation_energy_difference({"NaCl": [[1.0]]}, {}),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(MetricError) as caught:
        call()
    assert isinstance(caught.value, AsegenError)
