"""Row-by-row matching against the matcher itself and by hand."""

import time

import numpy as np
import pytest
from ase.build import bulk
from gallery_of_crystals import odd, rattled, sane
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from asegen.datasets.rows import Row
from asegen.errors import DataError
from asegen.metrics import CrystalSet, match


def to_pymatgen(atoms):
    return Structure(Lattice(atoms.cell.array), atoms.numbers, atoms.get_scaled_positions())


def test_every_number_is_the_matcher_s():
    truth = sane()
    answers = [rattled(a, i, 0.02 * i) for i, a in enumerate(truth)]
    found = match(answers, truth, processes=2)
    matcher = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    expected = [matcher.get_rms_dist(to_pymatgen(a), to_pymatgen(t)) for a, t in zip(answers, truth, strict=True)]
    expected = np.array([np.nan if e is None else e[0] for e in expected])
    assert np.allclose(found.row_rms, expected, equal_nan=True)
    assert found.rate == pytest.approx(np.mean(~np.isnan(expected)))
    assert found.rms == pytest.approx(np.nanmean(expected))
    assert found.strict_01 == pytest.approx(np.mean(expected < 0.1))
    assert found.strict_02 == pytest.approx(np.mean(expected < 0.2))
    assert found.n == len(truth) and found.best_of == 1


def test_best_of_k_flat_and_as_evaluations():
    truth = [bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6)]
    wrong = bulk("NaCl", "cesiumchloride", a=3.5)
    flat = [bulk("Cu"), bulk("Fe"), wrong, truth[1]]  # two answers to each row
    assert match(flat, truth).rate == 1.0
    assert match(flat, truth, best_of=1).rate == 0.5
    rows = [flat[0], flat[2], flat[1], flat[3]]  # whole evaluations one after the other
    given = CrystalSet(
        tuple(Row(str(i), a.cell.array, a.get_scaled_positions(), a.numbers, sample=i // 2) for i, a in enumerate(rows)),
        "x",
    )
    assert match(given, truth).rate == 1.0
    assert match(given, truth, best_of=1).rate == 0.5


def test_validity_as_cdvae_and_diffcsp_count_it():
    salt = bulk("NaCl", "rocksalt", a=5.6)
    charged = bulk("NaAr", "rocksalt", a=5.0)  # argon takes no charge
    both = match([salt, charged], [salt, charged])
    assert both.rate == 1.0
    assert both.rate_valid == both.rate_both_valid == 0.5
    shifted = rattled(charged, 1, 0.1)
    found = match([salt, shifted], [salt, charged])
    assert found.rms > 0.01 and found.rms_valid == found.rms_both_valid == pytest.approx(0.0, abs=1e-6)
    none = match([charged], [charged])
    assert none.rate == 1.0 and none.rms_valid is None and none.rms_both_valid is None


def test_a_crystal_without_fingerprint_is_not_valid():
    """Berkelium has no covalent radius, so CrystalNN has no fingerprint, and CDVAE takes the crystal for invalid."""
    oxide = bulk("BkO", "rocksalt", a=5.0)
    found = match([oxide], [oxide])
    assert found.rate == 1.0 and found.rate_valid == 0.0


def test_pairs_of_polymorphs_are_counted_before_they_are_listed():
    n = 3000  # nine million pairs
    started = time.monotonic()
    found = match([bulk("Cu")] * n, [bulk("Cu")] * n)
    assert found.metre is None and "9000000 comparisons" in found.notes[0] and time.monotonic() - started < 30


def test_best_of_more_than_there_are():
    for best_of in (0, -1, 3):
        with pytest.raises(DataError, match=f"best of {best_of}"):
            match([bulk("Cu")] * 2, [bulk("Cu")], best_of=best_of)
    assert "best of 2 answers" in match([bulk("Cu")] * 2, [bulk("Cu")]).protocol
    assert "one answer" in match([bulk("Cu")] * 2, [bulk("Cu")], best_of=1).protocol


def test_polymorphs_count_wherever_they_are_answered():
    rocksalt, dense = bulk("MgO", "rocksalt", a=4.2), bulk("MgO", "cesiumchloride", a=2.7)
    swapped = match([dense, rocksalt], [rocksalt, dense])
    assert swapped.rate == 0.0 and swapped.rms is None
    assert swapped.metre == 1.0 and swapped.crmse == pytest.approx(0.0, abs=1e-6)
    one = match([rocksalt, rocksalt], [rocksalt, dense])
    assert one.rate == one.metre == 0.5 and one.crmse == pytest.approx(0.25, abs=1e-6)
    without = match([rocksalt], [rocksalt], polymorphs=False)
    assert without.metre is None
    few = match([rocksalt] * 2, [rocksalt] * 2, most_pairs=3)
    assert few.metre is None and "4 comparisons" in few.notes[0] and few.rate == 1.0


def test_broken_answers_are_no_match():
    strange = odd()
    truth = [bulk("NaCl", "rocksalt", a=5.6)] * 3
    found = match([strange["NaN"], strange["no volume"], truth[0]], truth)
    assert found.rate == pytest.approx(1 / 3)


def test_numbers_of_rows_that_do_not_fit():
    with pytest.raises(DataError, match="2 crystals and the reference"):
        match([bulk("Cu")] * 2, [bulk("Cu")] * 3)
    with pytest.raises(DataError, match="holds no crystals"):
        match([bulk("Cu")], [])
    with pytest.raises(DataError, match="holds 0 crystals"):
        match([], [bulk("Cu")])
    with pytest.raises(DataError, match="not finite"):
        match([bulk("Cu")], [odd()["NaN"]])
