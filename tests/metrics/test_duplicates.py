"""Uniqueness, novelty and S.U.N. against pymatgen's own grouping and hand-made sets."""

import sqlite3
import time

import numpy as np
import pytest
from ase.build import bulk
from gallery_of_crystals import odd, rattled, sane
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from asegen.errors import DataError
from asegen.metrics import Cache, crystal_set, novelty, sun, uniqueness
from asegen.metrics.pairs import Comparer


def to_pymatgen(atoms):
    return Structure(Lattice(atoms.cell.array), atoms.numbers, atoms.get_scaled_positions())


@pytest.fixture(scope="module")
def mixed():
    """Crystals, and repetitions of some in other settings, in a shuffled order."""
    found = sane() + [rattled(a, seed) for seed, a in enumerate(sane()[:7])] + [a * (1, 1, 2) for a in sane()[::3]]
    return [found[i] for i in np.random.default_rng(3).permutation(len(found))]


def test_groups_are_those_of_pymatgen(mixed):
    found = uniqueness(mixed, processes=2)
    groups = StructureMatcher().group_structures([to_pymatgen(a) for a in mixed])
    assert (found.repeats == -1).sum() == len(groups) == len(sane())
    assert found.share == pytest.approx(len(groups) / len(mixed))
    assert found.compared == found.n == len(mixed) and found.late == found.failed == 0
    for i, first in enumerate(found.repeats):
        if first >= 0:
            assert first < i and found.repeats[first] == -1
            assert StructureMatcher().fit(to_pymatgen(mixed[first]), to_pymatgen(mixed[i]))


def test_novelty_against_every_pair(mixed):
    train = [rattled(a, 50 + i, 0.05) for i, a in enumerate(sane()[::2])]
    found = novelty(mixed, train, processes=2)
    matcher = StructureMatcher()
    expected = [not any(matcher.fit(to_pymatgen(a), to_pymatgen(t)) for t in train) for a in mixed]
    assert (found.matches == -1).tolist() == expected
    assert found.share == pytest.approx(np.mean(expected))
    assert 0 < found.share < 1
    for i, j in enumerate(found.matches):
        if j >= 0:
            assert matcher.fit(to_pymatgen(mixed[i]), to_pymatgen(train[j]))
    formulas = {t.get_chemical_formula(empirical=True) for t in train}
    assert found.new_formula == pytest.approx(np.mean([a.get_chemical_formula(empirical=True) not in formulas for a in mixed]))


def test_a_second_run_takes_answers_from_the_disk(mixed, tmp_path, monkeypatch):
    first = uniqueness(mixed, cache=Cache(tmp_path), processes=1)

    def never(*args, **kwargs):
        raise AssertionError("a worker was started")

    monkeypatch.setattr("asegen.metrics.workers._Worker.__init__", never)
    second = uniqueness(mixed, cache=Cache(tmp_path), processes=1)
    assert second.repeats.tolist() == first.repeats.tolist()


def test_broken_crystals_are_counted_not_dropped():
    crystals = [*odd().values(), bulk("Cu"), bulk("Cu")]
    found = uniqueness(crystals, processes=1)
    assert found.n == len(crystals)
    assert found.compared == len(crystals) - 2  # NaN, no volume
    assert (found.repeats == -2).sum() == 2
    copper = [i for i, a in enumerate(crystals) if a.get_chemical_formula(empirical=True) == "Cu"]
    assert [found.repeats[i] for i in copper] == [-1, copper[0], copper[0]]  # 500 atoms are the same crystal


def test_nothing_to_compare():
    assert uniqueness([]).share is None
    assert novelty([], [bulk("Cu")]).share is None
    assert novelty([bulk("Cu")], []).share == 1.0


def test_a_pair_that_is_late_is_tried_twice_and_again_only_with_more_time(monkeypatch, tmp_path):
    def slow(item):
        with (tmp_path / "tries").open("a") as stream:
            stream.write("x")
        time.sleep(0.6)
        return 1.0

    monkeypatch.setattr("asegen.metrics.pairs._fit", slow)
    crystals = [bulk("Cu"), bulk("Cu", a=3.7)]
    late = uniqueness(crystals, time_limit=0.2, processes=1, cache=Cache(tmp_path))
    assert late.late == 1 and late.share == 1.0
    again = uniqueness(crystals, time_limit=0.2, processes=1, cache=Cache(tmp_path))
    assert again.late == 1 and (tmp_path / "tries").read_text() == "xx"
    patient = uniqueness(crystals, time_limit=5, processes=1, cache=Cache(tmp_path))
    assert patient.late == 0 and patient.share == 0.5


def test_a_pair_that_is_late_once_is_not_late(monkeypatch, tmp_path):
    def slow_at_first(item):
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            time.sleep(5)
        return 1.0

    monkeypatch.setattr("asegen.metrics.pairs._fit", slow_at_first)
    found = uniqueness([bulk("Cu"), bulk("Cu", a=3.7)], time_limit=0.5, processes=1)
    assert found.late == 0 and found.share == 0.5


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_is_a_number_above_zero(limit, tmp_path):
    for compute in (uniqueness, lambda crystals, **options: novelty(crystals, crystals, **options)):
        with pytest.raises(ValueError, match="above 0"):
            compute([bulk("Cu")], time_limit=limit, cache=Cache(tmp_path))


def test_a_pair_that_fails_is_counted(monkeypatch):
    def failing(item):
        raise RuntimeError("no")

    monkeypatch.setattr("asegen.metrics.pairs._fit", failing)
    found = uniqueness([bulk("Cu"), bulk("Cu", a=3.7)], processes=1)
    assert found.failed == 1 and found.share == 1.0


def test_reduced_cells_are_those_of_the_matcher():
    crystals = crystal_set([a * (2, 1, 1) for a in sane()])
    reduced = Comparer(Cache(keep=False), 1).reduced(crystals, range(len(crystals)))
    for i, atoms in enumerate(crystals.atoms):
        ours, theirs = reduced[i], StructureMatcher()._get_reduced_structure(to_pymatgen(atoms))
        assert np.allclose(ours[0], theirs.lattice.matrix)
        assert np.allclose(ours[2], theirs.frac_coords)
        assert ours[1].tolist() == [site.specie.Z for site in theirs]


def test_sun_takes_the_lowest_of_equal_crystals():
    copper, silicon, iron = bulk("Cu"), bulk("Si"), bulk("Fe")
    crystals = [copper, rattled(silicon, 1), silicon, iron, bulk("Mg")]
    found = sun(crystals, [iron], [0.0, 0.3, -0.01, 0.0, np.nan])
    assert found.stable == pytest.approx(3 / 5)
    assert found.sun == pytest.approx(2 / 5)  # copper, and the lower of the two silicons; iron is known, magnesium has no energy
    assert found.without_energy == 1
    by_function = sun(crystals, [iron], lambda atoms: 0.05)
    assert by_function.sun == 0.0 and by_function.metastable_sun == pytest.approx(3 / 5)
    for atoms, energy in zip(crystals, (0.0, 0.3, 0.2, 0.0, 0.0), strict=True):
        atoms.info["ehull"] = energy
    assert sun(crystals, [iron], "ehull").sun == pytest.approx(2 / 5)
    with pytest.raises(DataError, match="ehull"):
        sun(crystals, [iron], "e_above_hull")
    with pytest.raises(DataError, match="one for each of the 5"):
        sun(crystals, [iron], [0.0])


def test_equal_crystals_are_repetitions_even_where_nothing_can_be_compared(monkeypatch):
    """Reductions that fail must not take crystals out of the denominator unnoticed."""

    def failing(item):
        raise RuntimeError("no")

    monkeypatch.setattr("asegen.metrics.pairs._reduce", failing)
    crystals = [bulk("Cu"), bulk("Cu", a=3.7), bulk("Cu"), bulk("Si")]
    found = uniqueness(crystals, processes=1)
    assert found.repeats.tolist() == [-2, -2, 0, -1]
    assert found.compared == 2 and found.share == 0.5 and found.share_of_all == 0.25 and found.failed == 2
    known = novelty(crystals, [bulk("Fe"), bulk("Cu"), bulk("Cu")], processes=1)
    assert known.matches.tolist() == [1, -2, 1, -1]
    assert known.share == pytest.approx(1 / 3) and known.share_of_all == 0.25


def test_equal_crystals_are_never_compared(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a worker was started")

    monkeypatch.setattr("asegen.metrics.workers._Worker.__init__", never)
    assert uniqueness([bulk("Cu")] * 5 + [bulk("Fe")]).repeats.tolist() == [-1, 0, 0, 0, 0, -1]
    assert novelty([bulk("Cu")] * 3, [bulk("Cu")]).share == 0.0


def test_pairs_are_listed_in_slices(mixed, monkeypatch):
    train = [rattled(a, 50 + i, 0.05) for i, a in enumerate(sane()[::2])]
    whole = novelty(mixed, train, processes=1)
    monkeypatch.setattr("asegen.metrics.duplicates._MOST_CANDIDATES", 2)
    assert novelty(mixed, train, processes=1).matches.tolist() == whole.matches.tolist()


def test_protocol_of_sun_has_all_tolerances():
    assert "StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)" in sun([bulk("Cu")], [bulk("Si")], [0.0]).protocol


def test_answers_are_stored_at_once_when_time_has_passed_and_when_it_is_stopped(monkeypatch, tmp_path):
    crystals = [bulk("Cu", a=3.6 + 0.01 * i) for i in range(4)]

    def stop(what, done, total):
        if "repetitions" in what and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        uniqueness(crystals, cache=Cache(tmp_path), processes=1, progress=stop)
    monkeypatch.setattr("asegen.metrics.pairs.FLUSH", 0.0)
    counts = []

    def count(what, done, total):
        if "repetitions" in what:
            counts.append((total, sqlite3.connect(tmp_path / "metrics.sqlite").execute("SELECT count(*) FROM results").fetchone()[0]))

    uniqueness(crystals, cache=Cache(tmp_path), processes=1, progress=count)
    assert counts == [(1, 4 + 3)]  # four cells, three pairs, of which two were there
