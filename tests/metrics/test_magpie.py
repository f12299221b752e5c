import random
import time

import numpy as np
import pytest
from ase.data import atomic_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from matminer.featurizers.composition import ElementProperty
from pymatgen.core import Composition

from asegen.errors import FormulaError
from asegen.formulas import parse_formula
from asegen.metrics.composition import composition_tables
from asegen.metrics.magpie import FEATURES, magpie_fingerprints, scaled_magpie

FEATURIZER = ElementProperty.from_preset("magpie", impute_nan=False)


def numbers_of(formula):
    counts = parse_formula(formula)
    return np.repeat([atomic_numbers[symbol] for symbol in counts], list(counts.values()))


def assert_as_matminer(compositions):
    """`compositions` are dictionaries of atomic number to count."""
    ours = magpie_fingerprints([np.repeat(list(counts), list(counts.values())) for counts in compositions])
    theirs = np.array([FEATURIZER.featurize(Composition(counts)) for counts in compositions], dtype=float)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_the_features_are_named_as_in_matminer():
    assert list(FEATURES) == FEATURIZER.feature_labels()


def test_every_element_alone():
    assert_as_matminer([{number: 2} for number in range(1, 119)])


def test_pairs_of_all_elements_with_and_without_ties():
    draw = random.Random(0)
    pairs = [draw.sample(range(1, 119), 2) for _ in range(400)]
    assert_as_matminer([{a: 1 + i % 3, b: 1 + i % 2} for i, (a, b) in enumerate(pairs)])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(1, 103), st.integers(1, 30), min_size=1, max_size=8))
def test_any_composition(counts):
    assert_as_matminer([counts])


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(1, 118), st.integers(1, 6), min_size=1, max_size=5), st.integers(2, 9), st.randoms())
def test_only_ratios_matter_and_no_order(counts, factor, draw):
    numbers = np.repeat(list(counts), list(counts.values()))
    many = np.repeat(numbers, factor).tolist()
    draw.shuffle(many)
    once, more = magpie_fingerprints([numbers, np.array(many)])
    np.testing.assert_allclose(once, more, rtol=1e-12, atol=1e-9, equal_nan=True)


def test_numbers_by_hand():
    # NaCl and Na2Cl: atomic numbers 11 and 17
    columns = [FEATURES.index(f"MagpieData {name} Number") for name in ("minimum", "maximum", "range", "mean", "avg_dev", "mode")]
    found = magpie_fingerprints([numbers_of("NaCl"), numbers_of("NaCl2")])[:, columns]
    np.testing.assert_allclose(found, [[11, 17, 6, 14, 3, 11], [11, 17, 6, 15, 8 / 3, 17]])


def test_an_element_without_a_value_gives_nan_there_only():
    melting = FEATURES.index("MagpieData mean MeltingT")
    radius = FEATURES.index("MagpieData mean CovalentRadius")
    row = magpie_fingerprints([numbers_of("HeO2")])[0]
    assert np.isnan(row[melting]) and np.isfinite(row[radius])
    # the mode looks at oxygen only
    assert np.isfinite(row[FEATURES.index("MagpieData mode MeltingT")])


def test_what_is_no_element_has_no_values_and_does_no_harm():
    rows = magpie_fingerprints([np.array([119, 500, 0, -3]), numbers_of("NaCl"), np.array([11, 999])])
    assert np.isnan(rows[0]).all()
    np.testing.assert_array_equal(rows[1], magpie_fingerprints([numbers_of("NaCl")])[0])
    assert np.isnan(rows[2][FEATURES.index("MagpieData mean Number")])
    assert np.isfinite(scaled_magpie(rows)).all()


def test_no_compositions_and_empty_ones():
    assert magpie_fingerprints([]).shape == (0, 132)
    with pytest.raises(FormulaError, match="composition 1"):
        magpie_fingerprints([numbers_of("NaCl"), np.array([], dtype=int)])


def test_scaling():
    mean, spread = np.array([21.194441759304013, 58.20212663122281]), np.array([16.35781741152948, 20.189540126474725])
    row = np.full(132, np.nan)
    row[:2] = mean + 2 * spread
    scaled = scaled_magpie(row)
    np.testing.assert_allclose(scaled[:2], 2)
    assert (scaled[2:] == 0).all()


def test_the_numbers_of_cdvae_belong_together():
    scaler = composition_tables()["scaler"]
    mean, spread = np.array(scaler["mean"]).reshape(22, 6), np.array(scaler["std"]).reshape(22, 6)
    # the mean of the range is that of the maximum less that of the minimum
    np.testing.assert_allclose(mean[:, 2], mean[:, 1] - mean[:, 0], rtol=1e-9)
    assert (mean[:, 0] <= mean[:, 3]).all() and (mean[:, 3] <= mean[:, 1]).all() and (mean[:, 4] <= mean[:, 2]).all()
    assert (spread > 0).all()


def test_ten_thousand_a_second():
    numbers = [numbers_of("Sr2FeMoO6")] * 5000
    magpie_fingerprints(numbers[:10])
    start = time.perf_counter()
    magpie_fingerprints(numbers)
    assert time.perf_counter() - start < 0.5
