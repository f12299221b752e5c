from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from gallery import KINDS, build, cluster_of, rewritten

from asegen.prototypes.fit import prototype_of
from asegen.prototypes.table import SHELLS, PrototypeTable, composition, environment_of, orders_of, pack_table, unpack_table


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


def test_families_hold_prototypes_of_equal_counts(table):
    assert table.family((2, 1)) is not None and table.family((7, 1)) is None
    binary = table.family((1, 1))
    assert [KINDS[kind][0] for kind in ("rocksalt", "zincblende", "CsCl")] == [table.prototypes[k].number for k in binary.members]
    assert table.family((1, 1)) is binary
    assert binary.owner.tolist() == [0, 1, 2] and sorted(binary.examples[0].tolist()) == [11, 17]
    assert sum(len(table.family(counts).members) for counts in table.counts) == len(table)


def test_equal_orders_are_one_candidate(table):
    binary, ternary = table.family((1, 1)), table.family((3, 1, 1))
    assert binary.orders.tolist() == [[0, 1], [1, 0]] and binary.same.tolist() == [[0, 0]] * 3
    assert {table.prototypes[k].number for k in ternary.members} == {221, 99}
    assert ternary.orders.tolist() == [[0, 1, 2], [0, 2, 1]] and ternary.same.tolist() == [[0, 1]] * 2
    # every pair of order and example supports the candidate of its owner with the first equal order
    assert ternary.candidate.tolist() == [[0, 2], [1, 3]] and binary.candidate.tolist() == [[0, 2, 4]] * 2
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
