import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from gallery import KINDS, build, rewritten, same_crystal, standard
from hypothesis import given
from hypothesis import strategies as st

from asegen.errors import MissingPackageError
from asegen.prototypes.standard import standard_crystal
from asegen.symmetry import space_group


@pytest.mark.parametrize("kind", KINDS)
def test_group_and_letters_are_those_it_was_built_from_up_to_the_normalizer(kind):
    atoms, (number, sites, _, _) = build(kind), KINDS[kind]
    found = standard(atoms)
    assert found.number == number
    group = space_group(number)
    expected = {}
    for element, label, _ in sites:
        expected.setdefault(element, []).append(group.position(label).multiplicity_primitive)
    counts = sorted(-sum(own) for own in expected.values())
    assert [entry[0] for entry in found.key[1]] == counts
    multiplicities = sorted(group.position(letter).multiplicity_primitive for entry in found.key[1] for letter in entry[1])
    assert multiplicities == sorted(m for own in expected.values() for m in own)
    assert found.volume == pytest.approx(atoms.get_volume(), rel=1e-4)
    assert round(abs(np.linalg.det(found.conventional))) == len(group.setting.centrings)


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 10**6))
def test_the_key_does_not_depend_on_how_the_crystal_is_written(kind, seed):
    atoms = build(kind)
    assert standard(rewritten(atoms, seed)).key == standard(atoms).key


@pytest.mark.parametrize("kind", KINDS)
def test_every_description_is_the_crystal(kind):
    """Distances in each description are those of the crystal, element by element."""
    atoms = build(kind)
    found = standard(rewritten(atoms, 1))
    for k in np.unique(np.linspace(0, len(found.frac) - 1, 6).astype(int)):
        cell = np.linalg.cholesky(found.metric[k]) * found.volume ** (1 / 3)
        assert same_crystal(Atoms(numbers=found.numbers, scaled_positions=found.frac[k], cell=cell, pbc=True), atoms, 2e-3), k
        # and the letters are true: every atom lies on the position that is named
        group, conventional = space_group(found.number), np.linalg.inv(found.conventional)
        for letter, place in zip(found.letters[k], found.frac[k] @ conventional, strict=True):
            rotations, translations = group.setting.operations(primitive=False)
            images = rotations @ place + translations
            position = group.position(str(letter))
            assert any(position.parameters_of(image) is not None for image in images), (k, letter)


def test_elements_with_equal_entries_stand_in_every_order():
    found = standard(build("tetragonal PbTiO3"))
    assert all(sorted(order) == [8, 22, 82] for orders in found.orders for order in orders)
    salt = standard(build("rocksalt"))
    assert {tuple(order) for orders in salt.orders for order in orders} == {(11, 17), (17, 11)}
    three = standard(build("P1"))
    assert len(three.orders[0]) == 6  # all on 1a


def test_a_supercell_is_the_crystal_of_its_primitive_cell():
    """The conventional cell of fcc copper once cost the model all fcc elements."""
    for times in ((2, 1, 1), (2, 2, 2)):
        found, alone = standard(build("rocksalt").repeat(times)), standard(build("rocksalt"))
        assert found.key == alone.key and len(found.numbers) == 2
        assert found.volume == pytest.approx(alone.volume) and np.allclose(found.metric[0], alone.metric[0])
    copper = bulk("Cu", cubic=True)
    assert len(copper) == 4 and standard(copper).number == 225 and len(standard(copper).numbers) == 1


def test_a_slightly_distorted_crystal_is_taken_as_the_ideal_one():
    atoms = build("perovskite")
    atoms.rattle(0.005, seed=0)
    assert standard(atoms).number == 221
    atoms.rattle(0.3, seed=0)
    assert standard(atoms).number != 221


def test_without_moyopy_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "moyopy", None)
    atoms = build("rocksalt")
    with pytest.raises(MissingPackageError, match=r"pip install 'asegen\[train\]'"):
        standard_crystal(atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
