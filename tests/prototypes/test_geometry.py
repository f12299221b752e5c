import numpy as np
import pytest
from ase.data import atomic_numbers
from gallery import KINDS, build, cluster_of, rewritten, rutile, same_crystal, truth
from hypothesis import given
from hypothesis import strategies as st

from asegen.prototypes import geometry as module
from asegen.prototypes.fit import prototype_of
from asegen.prototypes.geometry import fit_geometry, locate
from asegen.prototypes.ranking import Candidate
from asegen.symmetry import space_group


def candidate_of(cluster, elements) -> Candidate:
    prototype = prototype_of(cluster)
    return Candidate(prototype, tuple(elements), 1.0, True, prototype.geometry.predict(np.array(elements)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_prototype_seen_once_gives_its_crystal_back(kind):
    """From a crystal in any setting to sites, parameters, shape and volume, and from these to the crystal again."""
    atoms = build(kind)
    for seed in (0, 1):
        cluster = cluster_of([rewritten(atoms, seed)])
        made, symmetry = candidate_of(cluster, cluster.members[0].elements).crystal()
        assert same_crystal(made, atoms, 2e-4)
        assert len(symmetry.site) == len(atoms) and symmetry.num_sites == len(KINDS[kind][1])
        assert int(symmetry.dof[0]) == sum(len(parameters) for *_, parameters in KINDS[kind][1])


METALS = "Ti V Cr Mn Fe Co Ni Ge Sn Pb Zr Nb Mo Ru Rh Pd Hf Ta W Re Os Ir Pt Mg Zn".split()
HELD_OUT = "Si Te Tc".split()


@pytest.fixture(scope="module")
def rutiles():
    crystals = [rewritten(rutile(m, a), k) for k, (m, a) in enumerate((m, a) for m in METALS for a in ("O", "F", "Cl", "S"))]
    return cluster_of(crystals)


def errors(cluster) -> np.ndarray:
    """Predictions for elements that no example holds, minus the truth."""
    geometry, _ = fit_geometry(cluster)
    assert geometry.letters == "af" or geometry.letters == "fa"
    rows = []
    for metal in HELD_OUT:
        for anion in ("O", "F", "S"):
            elements = {2: atomic_numbers[anion], 1: atomic_numbers[metal]}
            found = geometry.predict(np.array([elements[2], elements[1]]))  # slots: the anion is first, there are more of it
            x, shape, ratio = truth(metal, anion)
            # 4f has copies of the same crystal at ±x and half a lattice vector on
            copies = [2 * (found[0] - x), 2 * (found[0] + x)]
            off = min(abs(copy - round(copy)) / 2 for copy in copies)
            rows.append([off, found[1] - shape, found[2] - ratio])
    return np.array(rows)


def test_numbers_linear_in_the_features_are_recovered(rutiles, monkeypatch):
    with_penalty = np.sqrt((errors(rutiles) ** 2).mean(0))
    assert (with_penalty < [0.002, 0.007, 0.015]).all()  # the spread of the truth is 0.007, 0.02, 0.05
    monkeypatch.setattr(module, "PENALTY", 1e-9)
    assert np.abs(errors(rutiles)).max() < 1e-4  # exact, to the tolerance with which symmetry is found


def test_elements_come_into_their_slots(rutiles):
    cluster = rutiles
    assert {tuple(m.elements[:1]) for m in cluster.members} == {(8,), (9,), (17,), (16,)}  # the anion, four atoms, is slot 0
    made, _ = candidate_of(cluster, (8, atomic_numbers["Ti"])).crystal()
    assert made.get_chemical_formula() == "O4Ti2"
    assert same_crystal(made, rutile("Ti", "O"), 0.02)


def test_spread_is_the_error_of_an_example_left_out(rutiles):
    geometry, _ = fit_geometry(rutiles)
    assert geometry.spread.shape == (3,) and (geometry.spread > 0).all() and (geometry.spread < 0.02).all()
    again = [k for k, m in enumerate(rutiles.members) if m.source % 7 == 0]
    left = []
    kept = rutiles.members
    for k in again:
        rutiles.members = [m for i, m in enumerate(kept) if i != k]
        predicted = fit_geometry(rutiles)[0].predict(np.array(kept[k].elements))
        rutiles.members = [kept[k]]
        left.append(predicted[-1] - fit_geometry(rutiles)[0].mean[-1])
    rutiles.members = kept
    # the hat matrix' shortcut is exact but for the mean, which it takes as known
    assert geometry.spread[2] == pytest.approx(np.sqrt(np.mean(np.square(left))), rel=0.35)


def test_few_examples_keep_their_mean(rutiles):
    kept = rutiles.members
    rutiles.members = kept[:2]
    geometry, _ = fit_geometry(rutiles)
    rutiles.members = kept
    assert len(geometry.slope) == 0 and (geometry.predict(np.array([9, 26])) == geometry.mean).all()
    rutiles.members = kept[:1]
    alone, _ = fit_geometry(rutiles)
    rutiles.members = kept
    assert (alone.spread == [0.03, 0.03, 0.05]).all()


@given(st.integers(1, 230), st.integers(0, 10**6))
def test_a_point_of_an_orbit_is_found_on_its_position(number, seed):
    """Any image of a point on a Wyckoff position, moved by lattice vectors, gives parameters of the same orbit, and their derivative."""
    random = np.random.default_rng(seed)
    group = space_group(number)
    position = group.positions[random.integers(len(group.positions))]
    rotations, translations = group.setting.operations(primitive=False)
    k = random.integers(len(rotations))
    point = rotations[k] @ position.point(random.random(position.dof)) + translations[k] + random.integers(-2, 3, 3)
    parameters, turn, away = locate(position, point)
    assert away < 1e-9 and len(parameters) == position.dof
    images = rotations @ position.point(parameters) + translations - point
    assert np.abs(images - np.rint(images)).max(-1).min() < 1e-9
    for direction in position.basis.T if position.dof else []:
        step = 1e-4 * rotations[k] @ direction
        there, _, _ = locate(position, point + step)
        assert np.allclose(there - parameters, turn @ step, atol=1e-9)
