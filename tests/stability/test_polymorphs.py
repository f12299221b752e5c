"""Which relaxed crystals are the same, and in what order they come."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from asegen.errors import StabilityError
from asegen.stability import polymorphs, relax


def crystals():
    fcc = bulk("Cu", a=3.7)
    turned = bulk("Cu", a=3.5, cubic=True)
    turned.rotate(31, [1, 2, 3], rotate_cell=True)
    return [Atoms("Cu", cell=[2.4] * 3, pbc=True), fcc, bulk("Cu", "hcp", a=2.6, c=4.2), turned, Atoms("Au", cell=[15] * 3, pbc=True)]


def test_each_structure_once_lowest_first():
    found = polymorphs(relax(crystals(), EMT(), processes=1))
    members = {one.spacegroup: one.members for one in found}
    assert members == {225: (1, 3), 194: (2,), 221: (0,)} and found[2].spacegroup == 221
    assert found[0].above_lowest == 0 and np.all(np.diff([one.above_lowest for one in found]) > 0)
    assert found[0].atoms.get_potential_energy() == found[0].relaxed.energy
    assert found[2].above_lowest == pytest.approx(found[2].relaxed.energy_per_atom - found[0].relaxed.energy_per_atom)


def test_formulas_keep_their_order_and_are_not_compared():
    gold = relax([bulk("Au"), *crystals()[1:3]], EMT(), processes=1)
    found = polymorphs(gold)
    assert [one.relaxed.formula for one in found] == ["Au", "Cu2", "Cu"] and [one.above_lowest for one in found[:2]] == [0, 0]


def test_the_order_given_does_not_matter():
    relaxed = relax(crystals(), EMT(), processes=1)
    there, back = polymorphs(relaxed), polymorphs(relaxed[::-1])
    assert [one.spacegroup for one in there] == [one.spacegroup for one in back]
    assert [one.found for one in there] == [one.found for one in back]


def test_what_did_not_converge_is_not_the_same_as_what_did():
    good = relax(bulk("Cu", a=3.7), EMT())
    poor = relax(bulk("Cu", a=3.59), EMT(), steps=1, fmax=1e-9, smax=1e-9)
    assert not poor.converged
    assert sorted(one.relaxed.converged for one in polymorphs([poor, good])) == [False, True]


def test_energies_of_different_potentials_are_not_ranked():
    pair = [relax(bulk("Cu"), EMT()), relax(bulk("Cu", a=4.0), LennardJones(sigma=2.4, rc=7.0))]
    with pytest.raises(StabilityError, match="different potentials cannot be ranked"):
        polymorphs(pair)


def test_nothing_is_nothing():
    assert polymorphs([]) == [] and polymorphs(relax(crystals()[-1:], EMT(), processes=1)) == []
