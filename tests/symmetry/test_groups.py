import numpy as np
import pytest
import spglib

from asegen.errors import AsegenError
from asegen.symmetry.errors import GroupError, SitesError
from asegen.symmetry.groups import multiplicities, space_group
from asegen.symmetry.lattices import conventional_cell
from asegen.symmetry.settings import halls_of, unique_modulo

ALL = [space_group(number) for number in range(1, 231)]
GENERAL = (np.array([0.0713, 0.1277, 0.2139]), np.array([0.4179, 0.3451, 0.0523]))
GENERIC = np.array([0.1731, 0.2917, 0.3853])


def orbit(group, point):
    rotations, translations = group.setting.operations(primitive=False)
    return unique_modulo(rotations @ point + translations)


def test_there_are_1731_positions_and_the_general_one_comes_last():
    assert sum(len(group.positions) for group in ALL) == 1731
    for group in ALL:
        last = group.positions[-1]
        assert last.dof == 3 and last.site_symmetry == "1"
        assert last.multiplicity_primitive == len(group.rotations)
        assert all(before.multiplicity <= after.multiplicity for before, after in zip(group.positions, group.positions[1:], strict=False))
        assert "".join(p.letter for p in group.positions) == "abcdefghijklmnopqrstuvwxyzA"[: len(group.positions)]


def test_orbit_times_site_symmetry_is_the_group():
    random = np.random.default_rng(0)
    for group in ALL:
        assert multiplicities(group.number) == tuple((p.letter, p.multiplicity_primitive, p.dof) for p in group.positions)
        for position in group.positions:
            rotations, _ = position.stabilizer(primitive=False)
            assert len(rotations) * position.multiplicity_primitive == len(group.rotations)
            assert round(np.trace(rotations.mean(0)), 9) == position.dof
            point = position.point(random.random(position.dof))
            for primitive, count in ((False, position.multiplicity), (True, position.multiplicity_primitive)):
                place = point @ np.linalg.inv(group.primitive) if primitive else point
                operations = position.orbit_operations(primitive)
                images = operations[0] @ place + operations[1]
                assert len(images) == len(unique_modulo(images)) == count
                assert np.allclose(images[0], place)
                for rotation, translation in zip(*position.stabilizer(primitive), strict=True):
                    assert np.allclose(rotation @ place + translation, place, atol=1e-12)


def test_letters_multiplicities_and_site_symmetries_are_those_of_spglib():
    random = np.random.default_rng(1)
    for group in ALL:
        cell = conventional_cell(group.lattice_system, volume=600.0, shape=random.normal(size=6) * 0.2)
        for position in group.positions:
            point = position.point(GENERIC[: position.dof])
            # the general position, filled twice, leaves no more symmetry than the group
            orbits = [orbit(group, p) for p in (*GENERAL, point)]
            numbers = np.repeat([1, 2, 3], [len(o) for o in orbits])
            data = spglib.get_symmetry_dataset((cell, np.concatenate(orbits), numbers), symprec=1e-5, hall_number=group.hall_number)
            assert data.number == group.number and len(orbits[2]) == position.multiplicity
            # spglib chooses among equivalent origins: its letter is that of the point where it has moved the atom to
            moved = data.transformation_matrix @ point + data.origin_shift
            found = group.position(data.wyckoffs[-1])
            assert found.parameters_of(moved) is not None
            assert found.multiplicity == position.multiplicity and found.dof == position.dof
            assert data.site_symmetry_symbols[-1].replace(".", "") == found.site_symmetry.replace(".", "")
            for other in group.positions:
                if other.dof < found.dof or (other.dof == found.dof and other is not found):
                    assert other.parameters_of(moved) is None, (group, found, other)


def test_parameters_of_finds_the_parameters_of_any_atom_of_the_orbit():
    random = np.random.default_rng(2)
    for group in ALL[::7]:
        for position in group.positions:
            rotations, translations = position.orbit_operations(primitive=False)
            pick = random.integers(len(rotations))
            point = rotations[pick] @ position.point(random.random(position.dof)) + translations[pick] + random.integers(-2, 3, 3)
            again = position.parameters_of(point)
            images = orbit(group, position.point(again))
            assert np.abs((images - point) - np.rint(images - point)).max(1).min() < 1e-9


def test_the_primitive_cell_is_that_of_spglib():
    random = np.random.default_rng(3)
    for group in ALL:
        cell = conventional_cell(group.lattice_system, volume=600.0, shape=random.normal(size=6) * 0.2)
        orbits = [orbit(group, p) for p in GENERAL]
        numbers = np.repeat([1, 2], [len(o) for o in orbits])
        data = spglib.get_symmetry_dataset((cell, np.concatenate(orbits), numbers), symprec=1e-5, hall_number=group.hall_number)
        primitive = spglib.standardize_cell(
            (data.std_lattice, data.std_positions, data.std_types), to_primitive=True, no_idealize=True, symprec=1e-5
        )
        assert np.allclose(primitive[0], group.primitive @ data.std_lattice, atol=1e-6), group
        rotations, _ = group.setting.operations(primitive=True)
        metric = group.primitive @ cell @ cell.T @ group.primitive.T
        assert np.allclose(rotations.transpose(0, 2, 1) @ metric @ rotations, metric)


@pytest.mark.parametrize(
    ("name", "number"),
    [("Pm-3m", 221), ("P m -3 m", 221), ("221", 221), (np.int64(62), 62), ("p21/c", 14), ("P 1 2_1/c 1", 14), ("Pbnm", 62),
     ("Cmca", 64), ("Fd-3m:2", 227), ("R-3m:H", 166), ("P2_1/c:b", 14), ("F 4_1/d -3 2/m", 227)],
)  # fmt: skip
def test_spellings_of_a_group(name, number):
    group = space_group(name)
    assert group.number == number and space_group(group) is group


def test_what_a_group_says_about_itself():
    group = space_group("Fd-3m")
    assert (group.symbol, group.crystal_system, group.lattice_system, group.centring, group.hall_number) == (
        "Fd-3m",
        "cubic",
        "cubic",
        "F",
        526,
    )
    assert repr(group) == "Group(227, Fd-3m)" and len(group.rotations) == 48
    assert space_group(166).lattice_system == "rhombohedral" and space_group(164).lattice_system == "hexagonal"
    assert group.position("a").coordinates == "1/8,1/8,1/8" and group.position("16c").multiplicity_primitive == 4
    assert repr(space_group(62).position("c")) == "WyckoffPosition(4c: x,1/4,z; .m.)"
    assert [len(halls_of(n)) for n in (1, 62, 227)] == [1, 6, 2]


@pytest.mark.parametrize(
    ("name", "says"),
    [(0, "run from 1"), (231, "no space group 231"), ("-3", "run from 1"), ("", "not a space group"), (True, "not a space group"),
     (2.0, "not a space group"), ("Pm3mm", "did you mean"), ("Fm-3mm", "Fm-3m"), ("???", "look like"), ("Fd-3m:1", "leave out")],
)  # fmt: skip
def test_groups_that_do_not_exist(name, says):
    with pytest.raises(GroupError, match=says) as error:
        space_group(name)
    assert isinstance(error.value, AsegenError)


def test_letters_that_do_not_exist():
    with pytest.raises(SitesError, match="has no Wyckoff position 'e'; it has 4a, 4b, 4c, 8d"):
        space_group("Pnma").position("e")
    with pytest.raises(SitesError, match="is 4c, not 8c"):
        space_group("Pnma").position("8c")
