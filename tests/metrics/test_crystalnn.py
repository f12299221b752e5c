"""CrystalNN fingerprints: the numbers are matminer's, and what cannot be computed says why."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule, mx2
from ase.io import read

from asegen.errors import FingerprintError
from asegen.metrics.crystalnn import FEATURES, crystalnn_fingerprints, site_fingerprints
from asegen.metrics.order_parameters import ORDER_PARAMETERS, order_parameters
from asegen.metrics.voronoi import voronoi_cells, voronoi_facets

# 16 rows of MP-20 (Materials Project, CC BY 4.0) with 1 to 20 atoms: hydrogen, noble gases, lanthanides, actinides, alloys, halides.
CRYSTALS = read(Path(__file__).with_name("crystals.extxyz"), ":")


@cache
def _matminer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

        return CrystalNNFingerprint.from_preset("ops")


def _reference(atoms: Atoms) -> np.ndarray:
    from pymatgen.core import Lattice, Structure

    featurizer = _matminer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure(Lattice(atoms.cell.array), atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True)
        return np.array([featurizer.featurize(structure, site) for site in range(len(structure))])


def _periodic(atoms: Atoms) -> Atoms:
    atoms.pbc = True
    return atoms


def _in_box(name: str, size: float) -> Atoms:
    atoms = molecule(name, cell=[size] * 3)
    atoms.center()
    return _periodic(atoms)


def _random(seed: int) -> Atoms:
    """A crystal as a bad generator makes it: atoms anywhere, in a skewed cell of 8 to 25 Å³ per atom."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    cell = np.eye(3) + 0.3 * rng.normal(size=(3, 3))
    cell *= (count * rng.uniform(8, 25) / abs(np.linalg.det(cell))) ** (1 / 3)
    return Atoms(rng.choice([1, 8, 11, 22, 26, 38, 82], count), scaled_positions=rng.random((count, 3)), cell=cell, pbc=True)


def _close(distance: float) -> Atoms:
    atoms = bulk("Si", "diamond", 5.43)
    atoms.positions[1] = atoms.positions[0] + [distance, 0, 0]
    return atoms


MADE = {
    "copper": lambda: bulk("Cu", "fcc", 3.6),
    "iron": lambda: bulk("Fe", "bcc", 2.87),
    "polonium": lambda: bulk("Po", "sc", 3.35),
    "magnesium": lambda: bulk("Mg"),
    "silicon": lambda: bulk("Si"),
    "argon": lambda: bulk("Ar", "fcc", 5.26),
    "rock salt": lambda: bulk("NaCl", "rocksalt", 5.64),
    "fluorite": lambda: bulk("CaF2", "fluorite", 5.46),
    "perovskite": lambda: Atoms(
        "SrTiO3", scaled_positions=[[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], cell=[3.9] * 3, pbc=True
    ),
    "water": lambda: _in_box("H2O", 12.0),
    "carbon dioxide": lambda: _in_box("CO2", 7.0),
    "hydrogen": lambda: _in_box("H2", 3.6),
    "graphene": lambda: _periodic(graphene(vacuum=10.0)),
    "molybdenite": lambda: _periodic(mx2("MoS2", vacuum=3.0)),
    "slab": lambda: _periodic(fcc111("Al", (1, 1, 3), vacuum=8.0)),
    "one atom in a box": lambda: Atoms("He", cell=[30.0] * 3, pbc=True),
    "neighbours at the cutoff": lambda: bulk("Po", "sc", 7.0),
    "0.7 Å": lambda: _close(0.7),
    "0.001 Å": lambda: _close(1e-3),
    **{f"random {seed}": (lambda seed=seed: _random(seed)) for seed in range(8)},
}


def test_feature_labels():
    assert list(FEATURES) == _matminer().feature_labels()
    assert len(FEATURES) == 61


@pytest.mark.parametrize("atoms", CRYSTALS, ids=lambda atoms: atoms.info["material"])
def test_crystals_of_mp20_agree_with_matminer(atoms):
    found = site_fingerprints(atoms)
    centred = FEATURES.index("body-centered cubic CN_8")
    expected = _reference(atoms)
    # matminer's value depends on the order in which qhull lists equivalent neighbours
    np.testing.assert_allclose(found[:, centred], expected[:, centred], atol=1e-3)
    np.testing.assert_allclose(np.delete(found, centred, 1), np.delete(expected, centred, 1), atol=1e-8)


@pytest.mark.parametrize("name", MADE)
def test_made_crystals_agree_with_matminer(name):
    atoms = MADE[name]()
    np.testing.assert_allclose(site_fingerprints(atoms), _reference(atoms), atol=1e-7)


def test_batch_is_the_mean_over_sites():
    bad = Atoms("Na", cell=[3, 3, 0], pbc=True)
    means, reasons = crystalnn_fingerprints([CRYSTALS[0], bad, *CRYSTALS[1:6]])
    assert [bool(reason) for reason in reasons] == [False, True, False, False, False, False, False]
    assert np.isnan(means[1]).all()
    for mean, atoms in zip(np.delete(means, 1, 0), CRYSTALS[:6], strict=True):
        np.testing.assert_allclose(mean, site_fingerprints(atoms).mean(0), atol=1e-12)


def test_chunks_do_not_matter(monkeypatch):
    bad = Atoms("Na", cell=[3, 3, 0], pbc=True)
    whole = crystalnn_fingerprints([*CRYSTALS, bad])
    monkeypatch.setattr("asegen.metrics.crystalnn._CHUNK", 7)
    parts = crystalnn_fingerprints([*CRYSTALS, bad])
    np.testing.assert_allclose(whole[0], parts[0], atol=1e-12)
    assert whole[1] == parts[1]


def test_no_crystals():
    means, reasons = crystalnn_fingerprints([])
    assert means.shape == (0, 61) and reasons == []


@pytest.mark.parametrize("seed", range(5))
def test_invariance(seed):
    atoms = _random(100 + seed)
    rng = np.random.default_rng(seed)
    expected = site_fingerprints(atoms)

    turned = atoms.copy()
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned.set_cell(atoms.cell.array @ rotation, scale_atoms=True)
    np.testing.assert_allclose(site_fingerprints(turned), expected, atol=1e-7)

    moved = atoms.copy()
    moved.translate(rng.normal(size=3) * 20)
    np.testing.assert_allclose(site_fingerprints(moved), expected, atol=1e-7)

    order = rng.permutation(len(atoms))
    np.testing.assert_allclose(site_fingerprints(atoms[order]), expected[order], atol=1e-7)

    skewed = atoms.copy()
    skewed.set_cell(np.array([[1, 0, 0], [3, 1, 0], [-2, 4, 1]]) @ atoms.cell.array)
    np.testing.assert_allclose(site_fingerprints(skewed), expected, atol=1e-7)

    np.testing.assert_allclose(site_fingerprints(atoms * (2, 1, 2)), np.tile(expected, (4, 1)), atol=1e-7)


def test_supercell_of_a_symmetric_crystal():
    means, _ = crystalnn_fingerprints([bulk("NaCl", "rocksalt", 5.64), bulk("NaCl", "rocksalt", 5.64, cubic=True) * (2, 2, 2)])
    np.testing.assert_allclose(means[0], means[1], atol=1e-8)


def _overlapping() -> Atoms:
    return _close(0.0)


def _not_finite() -> Atoms:
    atoms = bulk("Na")
    atoms.positions[0, 1] = np.nan
    return atoms


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms(cell=[3, 3, 3], pbc=True), "no atoms"),
        (Atoms("Na", cell=[3, 3, 0], pbc=True), "no volume"),
        (Atoms("Na"), "no volume"),
        (Atoms("Na4", positions=np.eye(4, 3), cell=[0.1] * 3, pbc=True), "too small"),
        (_not_finite(), "not a finite number"),
        (_overlapping(), "same place"),
        (Atoms("Bk", cell=[3, 3, 3], pbc=True), "Bk has no covalent radius"),
        (Atoms("X", cell=[3, 3, 3], pbc=True), "atomic number 0"),
    ],
)
def test_reasons(atoms, words):
    with pytest.raises(FingerprintError, match=words):
        site_fingerprints(atoms)
    means, reasons = crystalnn_fingerprints([atoms])
    assert np.isnan(means).all() and words in reasons[0]


def test_isolated_atom_has_no_bonds():
    assert not site_fingerprints(Atoms("Na", cell=[60.0] * 3, pbc=True)).any()


def test_elements_without_electronegativity():
    fingerprints = site_fingerprints(bulk("Ne", "fcc", 2.0))
    assert np.isfinite(fingerprints).all() and fingerprints[0, FEATURES.index("wt CN_12")] > 0


@pytest.mark.parametrize("atoms", [*CRYSTALS, _in_box("CH4", 9.0), _random(3), _random(4)], ids=str)
def test_exact_cells_fill_space(atoms):
    facets = voronoi_facets(voronoi_cells(atoms.positions, atoms.cell.array, exact=True))
    np.testing.assert_allclose(np.bincount(facets.site, facets.solid_angle), 4 * np.pi, atol=1e-8)
    np.testing.assert_allclose((facets.area * facets.distance / 6).sum(), atoms.get_volume(), rtol=1e-8)
    # every facet is seen from both sides
    assert len(facets.site) % 2 == 0
    back = {(i, j): area for i, j, area in zip(facets.site, facets.atom, facets.area, strict=True) if i != j}
    for (i, j), _ in back.items():
        both = [facets.area[(facets.site == a) & (facets.atom == b)].sum() for a, b in ((i, j), (j, i))]
        np.testing.assert_allclose(both[0], both[1], atol=1e-8)


def test_cells_of_body_centred_iron():
    facets = voronoi_facets(voronoi_cells(np.zeros((1, 3)), bulk("Fe", "bcc", 2.0).cell.array))
    hexagon = np.isclose(facets.distance, np.sqrt(3))
    assert hexagon.sum() == 8 and len(hexagon) == 14
    np.testing.assert_allclose(facets.area[hexagon], 1.5 * np.sqrt(3) * 0.5, atol=1e-9)  # truncated octahedron with edge sqrt(2)/2
    np.testing.assert_allclose(facets.area[~hexagon], 0.5, atol=1e-9)


@pytest.mark.parametrize("count", sorted(ORDER_PARAMETERS))
def test_order_parameters_of_random_environments(count):
    from pymatgen.core import Lattice, PeriodicSite

    rng = np.random.default_rng(count)
    vectors = rng.normal(size=(4, count, 3))
    vectors *= rng.uniform(1.5, 3.0, size=(4, count, 1)) / np.linalg.norm(vectors, axis=-1, keepdims=True)
    strengths = np.tile(np.linspace(1.0, 0.5, count), (4, 1))
    values = order_parameters(vectors, strengths)
    assert values.shape == (4, len(ORDER_PARAMETERS[count]))
    for environment, row in zip(vectors, values, strict=True):
        sites = [PeriodicSite("Na", point, Lattice.cubic(30), coords_are_cartesian=True) for point in [np.zeros(3), *environment]]
        expected = [
            op.get_order_parameters(sites, 0, indices_neighs=list(range(1, count + 1)))[0] for op in _matminer().ops[count] if op != "wt"
        ]
        np.testing.assert_allclose(row, expected, atol=1e-9)


def test_ideal_motifs():
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])
    cube = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    tetrahedron = cube[[0, 3, 5, 6]]
    for vectors, name in ((octahedron, "octahedral"), (tetrahedron, "tetrahedral"), (cube, "body-centered cubic")):
        names = ORDER_PARAMETERS[len(vectors)]
        assert order_parameters(vectors[None])[0, names.index(name)] == pytest.approx(1.0, abs=0.03)


def test_coordination_numbers_without_order_parameters():
    assert order_parameters(np.ones((2, 13, 3))).shape == (2, 0)
    assert order_parameters(np.ones((0, 6, 3))).shape == (0, 3)
