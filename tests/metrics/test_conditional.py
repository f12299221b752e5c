import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from asegen.errors import MetricError
from asegen.metrics.conditional import (
    CDVAE_THRESHOLDS,
    GAP_ENERGY_CLASSES,
    crystal_system,
    gap_energy_classes,
    hit_rate_class,
    hit_rate_crystal_system,
    hit_rate_gap_energy,
    hit_rate_value,
    success_rates,
)

NAN = float("nan")
# three steps of five optimisations
VALUES = np.array(
    [
        [-3.0, -1.0, NAN, 4.0, NAN],
        [-1.0, -4.0, NAN, 9.0, 7.0],
        [NAN, 0.0, math.inf, 5.0, -math.inf],
    ]
)


def test_success_rates_by_percentiles_of_the_data():
    # percentiles 5, 10, 15 of 0, 1, …, 100 are 5, 10, 15
    found = success_rates(VALUES, np.append(np.arange(101.0), NAN))
    assert found.thresholds == (5.0, 10.0, 15.0)
    np.testing.assert_allclose(found.best, [-3, -4, NAN, 4, 7])
    assert found.rates == (3 / 5, 4 / 5, 4 / 5)
    assert (found.invalid, found.failed) == (6, 1)


def test_success_rates_of_a_maximisation():
    found = success_rates(VALUES, np.arange(101.0) / 10, percentiles=(20, 50), minimize=False)
    assert found.thresholds == pytest.approx((8.0, 5.0))
    np.testing.assert_allclose(found.best, [-1, 0, NAN, 9, 7])
    assert found.rates == (1 / 5, 2 / 5)


def test_thresholds_are_reached_by_what_equals_them():
    found = success_rates(VALUES, thresholds=(-4.0, -3.5, -3.0))
    assert found.rates == (1 / 5, 1 / 5, 2 / 5)
    mp20 = success_rates(np.array([[-3.2, -2.9, -2.6, -1.0]]), thresholds=CDVAE_THRESHOLDS["mp20"])
    assert mp20.rates == (0.25, 0.5, 0.75)
    assert all(len(row) == 3 and list(row) == sorted(row) for row in CDVAE_THRESHOLDS.values())


def test_no_valid_crystal_is_no_success():
    found = success_rates(np.full((2, 3), NAN), thresholds=(0.0,))
    assert found.rates == (0.0,) and found.failed == 3 and np.isnan(found.best).all()
    assert math.isnan(success_rates(np.zeros((2, 0)), thresholds=(0.0,)).rates[0])


def test_hit_rate_of_a_value():
    found = hit_rate_value([3.0, 3.5, 2.4, NAN, math.inf], target=3.0, tolerance=0.5)
    assert (found.hits, found.total, found.missing, found.rate) == (2, 5, 2, 0.4)
    assert math.isnan(hit_rate_value([], 0.0, 0.1).rate)


def test_hit_rate_of_a_class():
    assert hit_rate_class(["cubic", None, "cubic", "trigonal"], "cubic").rate == 0.5
    found = hit_rate_class([225, NAN, 221, 225], 225)
    assert (found.hits, found.total, found.missing) == (2, 4, 1)


def crystals():
    orthorhombic = Atoms("Po", cell=[3.0, 4.0, 5.0], pbc=True)
    places, skewed = [[0, 0, 0], [0.2, 0.3, 0.4], [0.5, 0.1, 0.7]], [[5, 0, 0], [1, 6, 0], [0.5, 1.3, 7]]
    triclinic = Atoms("PoTe2", scaled_positions=places, cell=skewed, pbc=True)
    overlapping = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]], cell=[4, 4, 4], pbc=True)
    return [bulk("NaCl", "rocksalt", a=5.64), bulk("Mg"), bulk("Sn", "bct", a=5.8, c=3.2), orthorhombic, triclinic, overlapping]


def test_crystal_systems():
    assert [crystal_system(atoms) for atoms in crystals()] == ["cubic", "hexagonal", "tetragonal", "orthorhombic", "triclinic", None]


def test_the_tolerance_of_the_paper_forgives_small_displacements():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.03, seed=0)
    assert crystal_system(atoms) == "cubic"
    assert crystal_system(atoms, symprec=0.001) == "triclinic"


def test_hit_rate_of_crystal_systems():
    found = hit_rate_crystal_system(crystals(), "cubic")
    assert (found.hits, found.total, found.missing) == (1, 6, 1)


def test_combinations_of_gap_and_formation_energy():
    gaps, energies = [0.0, 0.0, 1.5, 2.0, NAN, 0.05], [-0.9, -0.5, -0.91, 0.0, 0.0, NAN]
    classes = gap_energy_classes(gaps, energies)
    # -0.9 itself is low
    assert classes == ["zero low", "zero high", "non-zero low", "non-zero high", None, None]
    for target in GAP_ENERGY_CLASSES:
        found = hit_rate_gap_energy(gaps, energies, target)
        assert (found.hits, found.total, found.missing) == (1, 6, 2)
    assert gap_energy_classes([0.05], [0.0], zero_gap=0.1) == ["zero high"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: success_rates(np.zeros(3), thresholds=(0.0,)),
        lambda: success_rates(np.zeros((1, 3))),
        lambda: success_rates(np.zeros((1, 3)), [1.0], thresholds=(0.0,)),
        lambda: success_rates(np.zeros((1, 3)), [NAN]),
        lambda: hit_rate_value([1.0], 1.0, -0.1),
        lambda: hit_rate_value([1.0], 1.0, NAN),
        lambda: hit_rate_crystal_system([], "rhombohedral"),
        lambda: hit_rate_gap_energy([], [], "zero"),
        lambda: gap_energy_classes([1.0], [1.0, 2.0]),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(MetricError):
        call()
