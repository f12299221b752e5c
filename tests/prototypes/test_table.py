from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from gallery import KINDS, build, cluster_of, rewritten, rutile

from asegen.prototypes.fit import Known, prototype_of
from asegen.prototypes.packing import pack_table, unpack_table
from asegen.prototypes.ranking import Candidate
from asegen.prototypes.table import SHELLS, PrototypeTable, composition, environment_of, orders_of, unit_of


@pytest.fixture(scope="module")
def table() -> PrototypeTable:
    return PrototypeTable([prototype_of(cluster_of([rewritten(build(kind), 3)])) for kind in KINDS])


def test_what_was_packed_comes_back(table):
    again = unpack_table(pack_table(table))
    assert len(again) == len(table) == len(KINDS)
    for a, b in zip(table.prototypes, again.prototypes, strict=True):
        assert (a.number, a.counts, a.swaps, a.sites) == (b.number, b.counts, b.swaps, b.sites)
        assert (a.geometry.letters, a.geometry.slots) == (b.geometry.letters, b.geometry.slots)
        assert (a.examples == b.examples).all() and a.examples.shape == b.examples.shape
        assert np.abs(b.geometry.mean - a.geometry.mean).max() < 1e-4
        for name in ("slope", "centre", "spread"):
            assert (getattr(b.geometry, name) == getattr(a.geometry, name).astype(np.float16)).all()
        assert b.environment.shape == a.environment.shape
        # square roots are kept in steps of 1/40, and the second triangle is the first one times a ratio of counts
        assert (np.abs(b.environment - a.environment) < 0.002 + 0.06 * np.sqrt(a.environment)).all()
    for name, value in pack_table(again).items():
        assert np.allclose(value, pack_table(table)[name], rtol=1e-12) and value.dtype == pack_table(table)[name].dtype


def test_known_crystals_come_back_with_their_own_numbers_and_energies():
    atoms = [rutile(metal, "O") for metal in ("Ti", "Sn", "Mn")]
    known = Known(np.array([0.0, 0.0316, np.nan]), np.array([True, False, False]), np.array([2657, 856, -7]))
    table = PrototypeTable([prototype_of(cluster_of(atoms), known)])
    (again,) = unpack_table(pack_table(table)).prototypes
    assert again.hull[:2].tolist() == [0.0, 0.032] and np.isnan(again.hull[2])  # meV
    assert again.published.tolist() == [True, False, False] and again.material.tolist() == [2657, 856, -7]
    assert again.own.shape == (3, 3) and np.abs(again.own - table.prototypes[0].own).max() < 1e-4
    assert not np.allclose(again.own, again.geometry.mean, atol=1e-3)
    # each with the elements it belongs to
    volumes = [a.get_volume() for a in atoms]
    for elements, own in zip(again.examples, again.own, strict=True):
        candidate = Candidate(again, tuple(int(z) for z in elements), 1.0, True, own)
        metal = next(z for z in elements if z != 8)
        assert candidate.volume == pytest.approx(volumes[[22, 50, 25].index(metal)], rel=1e-3)


def test_a_table_of_format_1_keeps_no_crystals(table):
    packed = {name: value for name, value in pack_table(table).items() if name not in ("own", "hull", "published", "material")}
    again = unpack_table(packed)
    assert all(len(p.own) == 0 and len(p.hull) == 0 for p in again.prototypes)
    assert again.family((1, 1)).hull.isnan().all()
    assert set(pack_table(again)) == set(packed)


def test_prototypes_are_made_only_when_they_are_asked_for(table):
    again = unpack_table(pack_table(table))
    assert not again.prototypes._made and again.counts == table.counts and (again.groups == table.groups).all()
    again.family((3, 1, 1))
    assert len(again.prototypes._made) == 4
    assert again.prototypes[-1].number == table.prototypes[-1].number and len(again.prototypes[1:3]) == 2
    with pytest.raises(IndexError):
        again.prototypes[len(again)]


def test_a_fitted_geometry_comes_back_too(packaged_mp20):
    packed = pack_table(packaged_mp20.table)
    again = pack_table(unpack_table(packed))
    assert packed["fitted"].sum() > 100
    assert all(np.allclose(packed[name], again[name], rtol=1e-12) for name in packed)


def test_arrays_that_do_not_fit_together_are_named(table):
    packed = pack_table(table)
    for name in ("counts", "letters", "mean", "elements", "environment", "swap_slots"):
        with pytest.raises(ValueError, match=name):
            unpack_table({**packed, name: packed[name][:-1] if len(packed[name]) else np.zeros(3, np.uint8)})
    with pytest.raises(KeyError):
        unpack_table({key: value for key, value in packed.items() if key != "mean"})


def test_sites_in_words(table):
    found = {kind: prototype.sites for kind, prototype in zip(KINDS, table.prototypes, strict=True)}
    assert found["perovskite"] in {"A:3c B:1a C:1b", "A:3c B:1b C:1a", "A:3d B:1a C:1b", "A:3d B:1b C:1a"}
    assert found["Pnma perovskite"].startswith("A:4c,8d B:4")


def test_families_hold_prototypes_of_one_anonymous_formula_whatever_the_size_of_the_cell(table):
    assert table.family((2, 1)) is not None and table.family((7, 1)) is None
    binary = table.family((1, 1))
    kinds = ("rocksalt", "zincblende", "CsCl", "wurtzite")
    assert [KINDS[kind][0] for kind in kinds] == [table.prototypes[k].number for k in binary.members]
    assert table.family((1, 1)) is binary and table.family((2, 2)) is binary and unit_of((12, 4, 4)) == (3, 1, 1)
    assert binary.owner.tolist() == [0, 1, 2, 3] and binary.units.tolist() == [1, 1, 1, 2]
    assert sorted(binary.examples[0].tolist()) == [11, 17]
    assert sum(len(table.family(counts).members) for counts in table.counts) == len(table)
    ternary = table.family((3, 1, 1))
    kinds = ("perovskite", "tetragonal PbTiO3", "Pnma perovskite")
    assert {(KINDS[kind][0], n) for kind, n in zip(kinds, (1, 1, 4), strict=True)} <= set(
        zip([table.prototypes[k].number for k in ternary.members], ternary.units.tolist(), strict=True)
    )
    assert ternary.first.tolist() == [0, 1, 2, 3] and ternary.hull.isnan().all()


def test_equal_orders_are_one_candidate(table):
    binary, ternary = table.family((1, 1)), table.family((3, 1, 1))
    assert binary.orders.tolist() == [[0, 1], [1, 0]] and binary.same.tolist() == [[0, 0]] * 4
    assert ternary.orders.tolist() == [[0, 1, 2], [0, 2, 1]] and ternary.same.tolist() == [[0, 1]] * 4
    # every pair of order and example supports the candidate of its owner with the first equal order
    assert ternary.candidate.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]] and binary.candidate.tolist() == [[0, 2, 4, 6]] * 2
    prototype, order = ternary.split(torch.tensor([3, 2]))
    assert prototype.tolist() == [1, 1] and order.tolist() == [1, 0]


def test_swaps_make_whole_groups():
    """Two exchanges generate a group of six; all its orders fall together."""
    line = prototype_of(cluster_of([build("P1")]))
    table = PrototypeTable([replace(line, swaps=((1, 0, 2), (0, 2, 1)))])
    assert table.family((1, 1, 1)).same.tolist() == [[0] * 6]
    cyclic = PrototypeTable([replace(line, swaps=((1, 2, 0),))]).family((1, 1, 1))
    orders = [tuple(order) for order in cyclic.orders.tolist()]
    even = {(0, 1, 2), (1, 2, 0), (2, 0, 1)}
    assert {order for order, first in zip(orders, cyclic.same[0].tolist(), strict=True) if first == cyclic.same[0, 0]} == even


def test_orders_exchange_elements_with_equal_counts_only():
    assert orders_of((3, 1)) == [(0, 1)]
    assert set(orders_of((2, 2, 1, 1))) == {a + b for a in permutations((0, 1)) for b in permutations((2, 3))}
    elements, counts = composition(np.array([8, 38, 8, 22, 8]))
    assert counts == (3, 1, 1) and elements.tolist() == [8, 22, 38]


def test_environments_count_neighbours():
    """In rock salt every atom has six of the other kind at half the conventional edge; shells do not depend on the setting."""
    found = {}
    for kind in ("rocksalt", "CsCl", "Pnma perovskite"):
        for seed in (0, 1):
            cluster = cluster_of([rewritten(build(kind), seed)])
            environment = environment_of(cluster.slot, cluster.frac, cluster.metric)
            found.setdefault(kind, []).append(environment)
        if kind != "Pnma perovskite":  # its two elements with equal counts are in either order
            assert np.abs(found[kind][0] - found[kind][1]).max() < 1e-3
    salt = found["rocksalt"][0]
    # eight atoms in the conventional cell: its edge is 2 in units of (V/N)^(1/3)

    def shells(*neighbours):
        return sum(count * np.exp(-(((length - SHELLS) / 0.14) ** 2)) for count, length in neighbours)

    expected = shells((6, 1.0), (8, 3**0.5), (24, 5**0.5))
    assert np.allclose(salt[0, 1], expected, atol=1e-2)
    same = shells((12, 2**0.5), (6, 2.0), (24, 6**0.5))
    assert np.allclose(salt[0, 0], same, atol=1e-2) and np.allclose(salt[0, 0], salt[1, 1]) and np.allclose(salt[0, 1], salt[1, 0])
    assert not np.allclose(salt[0, 1], found["CsCl"][0][0, 1], atol=1)
    # mean numbers: atoms of slot t around s, times the atoms of s, is symmetric
    counts = np.bincount(cluster.slot)
    total = found["Pnma perovskite"][1] * counts[:, None, None]
    assert np.allclose(total, total.swapaxes(0, 1), atol=1e-9)
