"""Coverage, diversity, Fréchet distance, distributions, space groups against closed forms and brute force."""

import numpy as np
import pytest
from ase.build import bulk
from gallery_of_crystals import odd, rattled, sane
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist
from scipy.stats import wasserstein_distance

from asegen.errors import DataError
from asegen.metrics import Cache, coverage, crystal_set, distributions, diversity, fingerprints, frechet, space_groups, validity
from asegen.metrics.properties import densities
from asegen.metrics.sets import cutoffs_of, frechet_distance


@pytest.fixture(scope="module")
def sets():
    """A generated and a reference set with their fingerprints."""
    generated = crystal_set([rattled(a, i, 0.1) for i, a in enumerate(sane()[:9])] + [odd()["NaN"]])
    reference = crystal_set(sane()[3:])
    return generated, reference, fingerprints(generated, processes=1), fingerprints(reference, processes=1)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_frechet_distance_is_the_textbook_s(dimension, seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((50, dimension)) @ rng.standard_normal((dimension, dimension))
    b = 1.0 + rng.standard_normal((40, dimension))
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    if dimension == 1:
        expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-7)


def test_frechet_distance_of_shifted_copies_is_the_squared_shift():
    a = np.random.default_rng(0).standard_normal((30, 61))  # fewer samples than dimensions
    assert frechet_distance(a, a + 0.5) == pytest.approx(61 * 0.25)
    assert frechet_distance(a[:1], a) is None


def test_coverage_by_brute_force(sets):
    generated, reference, ours, theirs = sets
    found = coverage(generated, reference, (0.3, 6.0), prints=ours, reference_prints=theirs)
    good = ours.good
    assert good.sum() == 9 and found.without_fingerprint == 1
    structure, composition = cdist(ours.structure[good], theirs.structure), cdist(ours.composition[good], theirs.composition)
    recall = np.mean((structure.min(0) <= 0.3) & (composition.min(0) <= 6))
    precision = np.sum((structure.min(1) <= 0.3) & (composition.min(1) <= 6)) / 10
    assert found.recall == pytest.approx(recall) and found.precision == pytest.approx(precision)
    assert 0 < found.recall < 1 and 0 < found.precision < 1
    assert found.structure_recall == pytest.approx(structure.min(0).mean())
    assert found.composition_precision == pytest.approx(composition.min(1).mean())


def test_a_set_covers_itself(sets):
    _, reference, _, theirs = sets
    found = coverage(reference, reference, "perov-5", prints=theirs, reference_prints=theirs)
    assert found.recall == found.precision == 1.0
    assert found.structure_recall == 0.0


def test_nothing_covers_nothing():
    broken = crystal_set([odd()["NaN"]])
    found = coverage(broken, [bulk("Cu")])
    assert found.recall == found.precision == 0.0
    assert coverage([], [bulk("Cu")]).recall is None
    assert coverage([bulk("Cu")], []).precision is None


def test_cutoffs_of_the_data_sets():
    assert cutoffs_of("mp20") == (0.4, 10.0)
    assert cutoffs_of("perov-5") == cutoffs_of("carbon-24") == (0.2, 4.0)
    with pytest.raises(ValueError, match="mp20"):
        cutoffs_of("oqmd")


def test_diversity_is_the_mean_pairwise_distance(sets):
    generated, _, ours, _ = sets
    mask = validity(generated).valid_rows & ours.good
    found = diversity(generated, prints=ours)
    assert found.n == mask.sum() > 2
    assert found.structure == pytest.approx(pdist(ours.structure[mask]).mean())
    assert found.composition == pytest.approx(pdist(ours.composition[mask]).mean())
    assert diversity([bulk("Cu")]).structure is None
    assert diversity([bulk("Cu")] * 3).structure == 0.0


def test_density_is_pymatgen_s():
    from pymatgen.core import Lattice, Structure

    for atoms in sane():
        structure = Structure(Lattice(atoms.cell.array), atoms.numbers, atoms.get_scaled_positions())
        assert densities(crystal_set([atoms]))[0] == pytest.approx(structure.density, rel=1e-6)


def test_distributions(sets):
    generated, reference, _, _ = sets
    found = distributions(generated, reference)
    valid = validity(generated).valid_rows
    chosen = generated.subset(np.nonzero(valid)[0])
    assert found.n == valid.sum()
    assert found.density == pytest.approx(wasserstein_distance(densities(chosen), densities(reference)))
    counts = [[len(set(row.numbers.tolist())) for row in s] for s in (chosen, reference)]
    assert found.n_elements == pytest.approx(wasserstein_distance(*counts))
    assert found.energy is not None and found.energy > 0
    same = distributions(reference, reference, valid_only=False)
    assert same.density == same.energy == same.n_atoms == 0.0


def test_energies_from_a_column():
    crystals = [bulk("Cu"), bulk("Si")]
    others = [bulk("Cu"), bulk("Si")]
    for atoms, energy in zip(crystals, (-1.0, -2.0), strict=True):
        atoms.info["e"] = energy
    for atoms, energy in zip(others, (-1.5, -2.5), strict=True):
        atoms.info["e"] = energy
    assert distributions(crystals, others, energy="e").energy == pytest.approx(0.5)
    with pytest.raises(DataError, match="named 'e'"):
        distributions(crystals, [bulk("Cu")], energy="e")
    with pytest.raises(ValueError, match="whole cell"):
        distributions(crystals, others, energy="energy")


def test_frechet_uses_both_features(sets):
    generated, reference, ours, theirs = sets
    found = frechet(generated, reference, prints=ours, reference_prints=theirs)
    good = np.isfinite(ours.structure).all(axis=1)
    assert found.crystalnn == pytest.approx(frechet_distance(ours.structure[good], theirs.structure))
    assert found.learned is not None and found.learned > 0
    same = frechet(reference, reference, prints=theirs, reference_prints=theirs)
    assert same.crystalnn == pytest.approx(0, abs=1e-6) and same.learned == pytest.approx(0, abs=1e-4)


def test_space_groups():
    crystals = [bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6), odd()["NaN"], rattled(sane()[-1] * (2, 1, 1), 0, 0.3)]
    found = space_groups(crystals, [bulk("Cu")])
    assert found.numbers.tolist() == [225, 225, 0, 1]
    assert found.share_p1 == pytest.approx(1 / 3) and found.not_found == 1
    assert found.total_variation == pytest.approx(1 / 3)
    assert space_groups([]).share_p1 is None
    assert space_groups(crystals).distance is None


def test_odd_crystals_never_crash_a_metric():
    strange = list(odd().values())
    reference = sane()[:4]
    given_set = crystal_set(strange)
    prints = fingerprints(given_set, processes=2)
    assert [bool(reason) for reason in prints.reasons] == (~np.isfinite(prints.structure).all(axis=1)).tolist()
    assert prints.reasons[list(odd()).index("NaN")].startswith("no crystal")
    assert np.isfinite(prints.composition).all()
    for function in (coverage, frechet, distributions, space_groups):
        assert function(given_set, reference).n <= len(strange)
    assert diversity(given_set).n >= 3
    checked = validity(given_set)
    assert not checked.structure_rows[[list(odd()).index(name) for name in ("NaN", "no volume", "overlapping", "close")]].any()
    assert checked.structure_rows[[list(odd()).index(name) for name in ("one atom", "500 atoms", "molecule in a box")]].all()


def test_fingerprints_of_coverage_and_diversity_are_kept(tmp_path, monkeypatch):
    crystals = sane()[:4]
    first = coverage(crystals, crystals, cache=Cache(tmp_path), processes=1)

    def never(*args, **kwargs):
        raise AssertionError("a worker was started")

    monkeypatch.setattr("asegen.metrics.workers._Worker.__init__", never)
    assert coverage(crystals, crystals, cache=Cache(tmp_path)) == first
    assert diversity(crystals, cache=Cache(tmp_path)).n == 4
