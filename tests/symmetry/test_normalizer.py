from itertools import combinations

import moyopy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from asegen.symmetry import (
    SitesError,
    canonical_sites,
    count_sites,
    crystal_from_sites,
    distinct_sites,
    draw_distinct_sites,
    draw_sites,
    enumerate_sites,
    parse_sites,
    space_group,
    symmetric_crystal,
)
from asegen.symmetry.lattices import DIMENSIONS, conventional_cell
from asegen.symmetry.normalizer import closure, letter_exchanges

numbers = st.integers(1, 230)
# the cell too has no free parameter but its volume and c/a, so that equal sites are equal crystals
FIXED = (81, 83, 111, 115, 121, 123, 139, 147, 162, 164, 187, 191, 194, 200, 207, 215, 216, 221, 225, 227, 229)


def crystal(number: int, sites, parameters=None):
    """The crystal of some sites in a cell of no special shape."""
    group = space_group(number)
    shape = np.array([0.21, 0.13, 0.05, 0.07, 0.03])[: DIMENSIONS[group.lattice_system] - 1]
    size = 40.0 * sum(group.position(label).multiplicity for _, label in sites)
    cell = conventional_cell(group.lattice_system, size, shape)
    own = parameters or [()] * len(sites)
    return crystal_from_sites(number, [(*site, p) for site, p in zip(sites, own, strict=True)], cell)[0]


def test_the_example():
    assert canonical_sites(221, "Sr:1b Ti:1a O:3d") == canonical_sites("Pm-3m", "Sr:1a Ti:1b O:3c")
    assert canonical_sites(221, "Sr:1a Ti:1b O:3d") == canonical_sites(221, "Ti:1a Sr:1b O:3c")
    assert canonical_sites(221, "Sr:1a Ti:1b O:3d") != canonical_sites(221, "Sr:1b Ti:1a O:3d")
    assert canonical_sites(221, "Sr:1b Ti:1a O:3d") == (221, (("O", "3c"), ("Sr", "1a"), ("Ti", "1b")))
    one_each = list(distinct_sites("SrTiO3", 221))
    assert {canonical_sites(221, s) for s in enumerate_sites("SrTiO3", 221)} == {canonical_sites(221, s) for s in one_each}
    assert len(one_each) == 2 and count_sites("SrTiO3", 221) == 4
    # three axes of Pmmm, free parameters on the way
    assert canonical_sites(47, "O:2i,2i") == canonical_sites(47, "O:2q,2q") != canonical_sites(47, "O:2i,2j")
    with pytest.raises(SitesError, match="no Wyckoff position"):
        canonical_sites(221, "Sr:1z")


@pytest.mark.parametrize("number", range(1, 231))
def test_letters_are_those_of_moyopy_and_so_are_the_exchanges(number):
    """An atom on every position, in a crystal with no other symmetry: moyopy's letter is ours, up to the normalizer.

    moyopy finds the exchanges too, but for the axes of orthorhombic groups and the choice of cell of C2/c.
    """
    group, random = space_group(number), np.random.default_rng(number)
    general = group.positions[-1].label
    for position in group.positions:
        sites = [("Na", general), ("Cl", general), ("Cu", position.label)]
        atoms = crystal(number, sites, [(0.0713, 0.1277, 0.2139), (0.4179, 0.3451, 0.0523), random.random(position.dof)])
        cell = moyopy.Cell(atoms.cell.array.tolist(), atoms.get_scaled_positions().tolist(), atoms.numbers.tolist())
        data = moyopy.MoyoDataset(cell, symprec=1e-4, setting=moyopy.Setting.standard())
        assert (data.number, data.hall_number) == (number, group.hall_number)
        (letter,) = {data.wyckoffs[k] for k in np.flatnonzero(atoms.numbers == 29)}
        assert canonical_sites(group, [("Cu", letter)]) == canonical_sites(group, [("Cu", position.letter)])
        found = data.normalizer_wyckoff_positions()
        own = [w.letter for w in found.wyckoffs]
        theirs = {tuple(w.letter for w in sequence) for _, sequence in found.coset_representatives}
        ours = {tuple(word[group.letters.index(x)] for x in own) for word in letter_exchanges(number)}
        assert theirs == ours if number != 15 and group.crystal_system != "orthorhombic" else theirs <= ours


@pytest.mark.parametrize("number", FIXED)
def test_equal_keys_are_equal_crystals(number):
    """Sites without free parameters, some at random and their images under the exchanges: as StructureMatcher says."""
    group, random = space_group(number), np.random.default_rng(number)
    fixed = [p.label for p in group.positions if p.dof == 0]
    exchanges = letter_exchanges(number)
    choices: dict = {}
    for _ in range(6):
        labels = random.choice(fixed, min(3, len(fixed)), replace=False)
        word = exchanges[random.integers(len(exchanges))]
        renamed = [group.position(word[group.letters.index(label[-1])]).label for label in labels]
        for own in (labels, renamed):
            choices[tuple(zip(("Sr", "Ti", "O"), map(str, own), strict=False))] = None
    matcher = StructureMatcher(ltol=0.02, stol=0.02, angle_tol=0.5, scale=False, primitive_cell=True)
    assert len({canonical_sites(group, sites) for sites in choices}) < len(choices) or len(exchanges) == 1
    built = {sites: AseAtomsAdaptor.get_structure(crystal(number, sites)) for sites in choices}
    for a, b in combinations(choices, 2):
        assert (canonical_sites(group, a) == canonical_sites(group, b)) == bool(matcher.fit(built[a], built[b])), (a, b)


def test_crystals_of_more_symmetry_may_be_equal_with_different_keys():
    """These fill P4/mbm so that it is P4/mmm of half the cell: an origin shift of P4/mmm makes them equal, none of P4/mbm does."""
    a, b = "Sr:2b Ti:2c O:2a", "Sr:2d Ti:2a O:2c"
    built = [AseAtomsAdaptor.get_structure(crystal(127, parse_sites(text, 127))) for text in (a, b)]
    assert StructureMatcher().fit(*built) and canonical_sites(127, a) != canonical_sites(127, b)


@pytest.mark.parametrize("number", [16, 47, 48, 65, 69, 70, 71])
def test_orthorhombic_axes_are_exchanged(number):
    """In a cubic cell the exchange of axes is a rotation, so that crystals with equal keys are equal there."""
    group = space_group(number)
    fixed = [p.label for p in group.positions if p.dof == 0]
    matcher = StructureMatcher(ltol=0.02, stol=0.02, angle_tol=0.5, scale=False, primitive_cell=True)
    for word in letter_exchanges(number):
        pair = []
        for labels in (fixed[:3], [group.position(word[group.letters.index(label[-1])]).label for label in fixed[:3]]):
            sites = [(e, label, ()) for e, label in zip(("Sr", "Ti", "O"), labels, strict=False)]
            pair.append(AseAtomsAdaptor.get_structure(crystal_from_sites(number, sites, 9.0 * np.eye(3))[0]))
        assert matcher.fit(*pair)


@given(numbers, st.integers(0, 10**6))
def test_the_exchanges_are_a_group_that_keeps_what_positions_are(number, seed):
    group, random = space_group(number), np.random.default_rng(seed)
    words = letter_exchanges(number)
    assert words[0] == group.letters and len(set(words)) == len(words)
    first, second = (words[k] for k in random.integers(len(words), size=2))
    assert first.translate(str.maketrans(group.letters, second)) in words
    for letter, other in zip(group.letters, first, strict=True):
        a, b = group.position(letter), group.position(other)
        assert a.multiplicity == b.multiplicity and a.dof == b.dof


@given(numbers, st.integers(0, 10**6))
def test_a_key_is_a_choice_of_its_own_class_whatever_the_order(number, seed):
    group, random = space_group(number), np.random.default_rng(seed)
    most = group.positions[-1].multiplicity_primitive
    counts = {"Fe": most * int(random.integers(1, 3)), "O": most * int(random.integers(1, 4))}
    sites = draw_sites(counts, group, random)
    number, key = canonical_sites(group, sites)
    assert number == group.number and sorted(parse_sites(key, group, counts)) == sorted(key)
    assert canonical_sites(group, key) == (number, key)
    word = letter_exchanges(number)[random.integers(len(letter_exchanges(number)))]
    renamed = [(e, group.position(word[group.letters.index(label[-1])]).label) for e, label in sites]
    assert canonical_sites(group, [renamed[k] for k in random.permutation(len(renamed))]) == (number, key)
    assert canonical_sites(group, [("Fe" if e == "O" else "O", label) for e, label in sites])[1] != key or len(set(counts.values())) == 1


def test_closure_of_a_cycle():
    assert closure("abc", []) == ("abc",)
    assert set(closure("abc", ["bca"])) == {"abc", "bca", "cab"} and len(closure("abcd", ["bacd", "bcda"])) == 24


def test_draws_that_avoid_what_has_been():
    seen: set = set()
    every = {canonical_sites(123, s) for s in enumerate_sites("SrTiO3", 123)}
    assert len(every) == len(list(distinct_sites("SrTiO3", 123))) < count_sites("SrTiO3", 123)
    for seed in range(12):
        atoms = symmetric_crystal("SrTiO3", 123, seed=seed, avoid=seen)
        key = canonical_sites(123, atoms.info["sites"])
        assert key not in seen
        seen.add(key)
    assert seen <= every
    # nothing left: any, but rather one whose crystals can differ
    random = np.random.default_rng(0)
    last = draw_distinct_sites("SrTiO3", 123, random, every)
    assert any(space_group(123).position(label).dof for _, label in last)
    assert draw_distinct_sites("NaCl", 225, random, {canonical_sites(225, "Na:a Cl:b")}) in set(enumerate_sites("NaCl", 225))


def test_without_anything_to_avoid_the_draw_is_the_plain_one():
    for seed in range(5):
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        assert draw_distinct_sites("Sr2Ti2O6", 99, one) == draw_sites("Sr2Ti2O6", 99, other) and one.random() == other.random()


def test_distinct_sites_come_one_by_one():
    counts = {"Ca": 24, "Al": 16, "Si": 24, "O": 96}
    first = list(distinct_sites(counts, "P2/m", limit=3))
    assert len({canonical_sites("P2/m", s) for s in first}) == 3 and first[0] == next(enumerate_sites(counts, "P2/m"))
