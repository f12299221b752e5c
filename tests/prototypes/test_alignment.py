import numpy as np
import pytest
from ase import Atoms
from gallery import KINDS, build, cluster_of, rewritten, same_crystal, standard
from hypothesis import given
from hypothesis import strategies as st

from asegen.prototypes.alignment import POSITION_TOLERANCE, Cluster, align, gather, polar_projection, strains
from asegen.symmetry import crystal_from_sites, space_group
from asegen.symmetry.lattices import conventional_cell


def made(number, sites, volume, shape=()) -> Atoms:
    return crystal_from_sites(number, sites, conventional_cell(space_group(number).lattice_system, volume, np.array(shape)))[0]


def crystal_of(cluster, member) -> Atoms:
    """The crystal of an aligned member, from what the alignment says alone."""
    cell = np.linalg.cholesky(member.metric) * member.volume ** (1 / 3)
    return Atoms(numbers=np.array(member.elements)[cluster.slot], scaled_positions=member.frac, cell=cell, pbc=True)


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 10**6))
def test_a_crystal_aligns_with_itself_however_it_is_written(kind, seed):
    cluster = Cluster.of(standard(build(kind)), 0)
    crystal = rewritten(build(kind), seed)
    found = align(cluster, standard(crystal), 7)
    assert found is not None and found.source == 7
    assert found.distance < 1e-6
    assert np.abs(found.frac - cluster.frac).max() < 2e-3  # next to the prototype's atoms, not in another image
    assert sorted(found.elements) == sorted(set(crystal.numbers.tolist()))
    assert found.volume == pytest.approx(crystal.get_volume(), rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "number", "sites", "volume", "shape"),
    [
        ("spinel", 227, [("Zn", "8a", ()), ("Fe", "16d", ()), ("S", "32e", (0.248,))], 600.0, ()),
        ("rutile", 136, [("Sn", "2a", ()), ("F", "4f", (0.29,))], 70.0, (-0.30,)),
        (
            "Pnma perovskite",
            62,
            [("Gd", "4c", (0.06, 0.984)), ("Fe", "4b", ()), ("O", "4c", (0.467, 0.1)), ("O", "8d", (0.301, 0.051, 0.695))],
            230.0,
            (0.2, 0.035),
        ),
        ("tetragonal PbTiO3", 99, [("Bi", "1a", (0.2,)), ("Co", "1b", (0.76,)), ("O", "1b", (0.35,)), ("O", "2c", (0.84,))], 65.0, (0.1,)),
    ],
)
def test_crystals_of_a_prototype_align_slot_by_slot(kind, number, sites, volume, shape):
    """Other elements, parameters and axial ratio, other setting: still every element comes into the slot that plays its part."""
    cluster = Cluster.of(standard(build(kind)), 0)
    other = made(number, sites, volume, shape)
    found = align(cluster, standard(rewritten(other, 5)), 1)
    assert found is not None and 1e-6 < found.distance < 0.02
    first = [element for element, *_ in KINDS[kind][1]]
    role = dict(zip(first, [element for element, *_ in sites], strict=True))
    symbols = [Atoms([z]).get_chemical_formula() for z in cluster.members[0].elements]
    assert [Atoms([z]).get_chemical_formula() for z in found.elements] == [role[s] for s in symbols]
    assert same_crystal(crystal_of(cluster, found), other, 3e-3)
    assert np.abs(found.frac - cluster.frac).max() < 0.12


def test_other_prototypes_do_not_align():
    octahedra = made(164, [("Cd", "1a", ()), ("I", "2d", (0.25,))], 122.0, (0.4,))
    cluster = Cluster.of(standard(octahedra), 0)
    moved = made(164, [("Cd", "1a", ()), ("I", "2d", (0.42,))], 122.0, (0.4,))
    flat = made(164, [("Cd", "1a", ()), ("I", "2d", (0.25,))], 122.0, (-0.2,))
    assert standard(moved).key == standard(flat).key == cluster.key
    assert align(cluster, standard(moved)) is None and align(cluster, standard(flat)) is None
    near = made(164, [("Mg", "1a", ()), ("Br", "2d", (0.26,))], 100.0, (0.35,))
    found = gather([(3, standard(octahedra)), (5, standard(moved)), (8, standard(near)), (9, standard(flat))])
    assert [[member.source for member in c.members] for c in found] == [[3, 8], [5], [9]]
    assert standard(build("rocksalt")).key != standard(build("zincblende")).key != standard(build("CsCl")).key


def test_atoms_may_be_off_by_the_tolerance_and_not_by_more():
    """Root mean square over all atoms, in units of (V/N)^(1/3); two of three atoms move along c."""
    start = made(164, [("Cd", "1a", ()), ("I", "2d", (0.25,))], 122.0, (0.4,))
    height = start.cell.lengths()[2] / (start.get_volume() / 3) ** (1 / 3)
    for factor, joins in ((0.97, True), (1.03, False)):
        z = 0.25 + factor * POSITION_TOLERANCE / height * 1.5**0.5
        found = align(Cluster.of(standard(start), 0), standard(made(164, [("Cd", "1a", ()), ("I", "2d", (z,))], 122.0, (0.4,))))
        assert (found is not None) == joins
        if found is not None:
            assert found.distance == pytest.approx((factor * POSITION_TOLERANCE) ** 2, rel=0.01)


def test_each_crystal_joins_the_closest_prototype():
    def layered(z):
        return standard(made(164, [("Cd", "1a", ()), ("I", "2d", (z,))], 122.0, (0.4,)))

    found = gather([(0, layered(0.20)), (1, layered(0.30)), (2, layered(0.24)), (3, layered(0.26))])
    assert [[member.source for member in c.members] for c in found] == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rocksalt", [(1, 0)]),
        ("CsCl", [(1, 0)]),
        ("zincblende", [(1, 0)]),
        ("wurtzite", [(1, 0)]),
        ("perovskite", []),
        ("fluorite", []),
        ("Pnma perovskite", []),
        ("ilmenite", []),
        ("tetragonal PbTiO3", []),
    ],
)
def test_exchanges_that_leave_a_prototype_as_it_is(kind, expected):
    assert Cluster.of(standard(rewritten(build(kind), 2)), 0).swaps == expected


def test_three_equal_sublattices_can_be_exchanged_in_all_ways():
    half_heusler = made(216, [("Mg", "4a", ()), ("Ag", "4c", ()), ("As", "4b", ())], 240.0)
    assert Cluster.of(standard(half_heusler), 0).swaps in ([(2, 1, 0)], [(1, 0, 2)], [(0, 2, 1)])  # the middle one is special
    line = made(65, [("Na", "2a", ()), ("K", "2b", ()), ("Rb", "2c", ()), ("Cs", "2d", ())], 160.0, (0.1, 0.1))
    swaps = Cluster.of(standard(line), 0).swaps
    assert len(swaps) == 3 and all(tuple(swap[k] for k in swap) == (0, 1, 2, 3) for swap in swaps)


def test_the_origin_of_a_polar_group_is_free():
    assert polar_projection(221) is None and polar_projection(62) is None
    assert np.allclose(polar_projection(99), np.diag([0, 0, 1]))
    assert np.allclose(polar_projection(4), np.diag([0, 1, 0]))
    assert np.allclose(polar_projection(1), np.eye(3))
    mirror = polar_projection(8)  # Cm: two free directions
    assert np.allclose(mirror @ mirror, mirror) and round(float(np.trace(mirror))) == 2
    # aligned members have their mean where the prototype has it
    cluster = cluster_of([build("wurtzite"), made(186, [("Ga", "2b", (0.3,)), ("N", "2b", (0.677,))], 45.0, (0.40,))])
    assert np.abs((cluster.members[1].frac - cluster.frac).mean(0)).max() < 1e-9


def test_strains_are_logarithms_of_stretches():
    random = np.random.default_rng(0)
    cell = np.eye(3) + 0.2 * random.normal(size=(3, 3))
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    stretched = cell @ turn @ np.diag(np.exp([0.3, -0.1, 0.05])) @ turn.T
    found = strains(cell @ cell.T, np.array([stretched @ stretched.T, cell @ cell.T]))
    assert np.allclose(np.linalg.eigvalsh(found[0]), [-0.1, 0.05, 0.3])
    assert np.abs(found[1]).max() < 1e-10
