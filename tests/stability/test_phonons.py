"""Phonons against closed forms, ASE's own, an independent Hessian, and under changes of the cell."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.data import atomic_masses
from ase.phonons import Phonons as AsePhonons
from scipy.spatial.transform import Rotation

from asegen.errors import NoEnergyError, PotentialError, StabilityError
from asegen.stability.phonon_cells import commensurate_cell, mesh_of, multiples, spelled, standard_cell, stars
from asegen.stability.phonon_thermal import thermal
from asegen.stability.phonons import phonons
from asegen.stability.relax import relax

THZ = 15.6333  # sqrt(eV/Å²/amu) / 2π in THz
L10 = Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.75, 2.75, 3.85], pbc=True)


@pytest.fixture(scope="module")
def l10():
    return phonons(L10, EMT(), supercell=(2, 2, 2), mesh=(6, 6, 6))


def test_zone_boundary_as_ase_finds_it(tmp_path):
    copper = bulk("Cu", a=3.6)
    reference = AsePhonons(copper, EMT(), supercell=(2, 2, 2), delta=0.01, name=str(tmp_path / "p"))
    reference.run()
    reference.read(acoustic=True)
    q_points = [[0.5, 0, 0.5], [0.5, 0.5, 0.5]]
    expected = reference.band_structure(q_points) / 4.135667696e-3
    found = phonons(copper, EMT(), supercell=(2, 2, 2), displacement=0.01).frequencies(q_points)
    np.testing.assert_allclose(found, np.sort(expected, axis=1), atol=2e-3)


def test_gamma_as_an_independent_hessian(l10):
    atoms = l10.cell.primitive.copy()
    atoms.calc = EMT()
    hessian = np.zeros((6, 6))
    for i in range(6):
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[i // 3, i % 3] += sign * 0.01
            hessian[i] -= sign * moved.get_forces().ravel() / 0.02
    masses = np.repeat(atoms.get_masses(), 3)
    values = np.linalg.eigvalsh((hessian + hessian.T) / 2 / np.sqrt(np.outer(masses, masses)))
    expected = np.sign(values) * np.sqrt(np.abs(values)) * THZ
    np.testing.assert_allclose(np.sort(l10.frequencies([0, 0, 0])[0])[3:], np.sort(expected)[-3:], rtol=2e-3)


def test_closed_form_of_a_compressed_simple_cubic_crystal():
    """Neighbours at r that push: transverse springs V'/r < 0, so the crystal buckles at M with ω² = 8 V'/(r m)."""
    r = 1.05
    first, second = 4 * (-12 / r**13 + 6 / r**7), 4 * (156 / r**14 - 42 / r**8)
    crystal = bulk("Ar", "sc", a=r)
    found = phonons(crystal, LennardJones(rc=1.2, smooth=False), supercell=(4, 4, 4), displacement=1e-3)
    unit = THZ / np.sqrt(atomic_masses[18])
    assert found.q_label == "M" and not found.stable
    assert found.min_frequency == pytest.approx(-np.sqrt(-8 * first / r) * unit, rel=1e-4)
    longitudinal = np.sqrt(2 / 1 * (second * (1 - np.cos(np.pi / 2)))) * unit
    assert found.frequencies([0.25, 0, 0])[0].max() == pytest.approx(longitudinal, rel=1e-3)
    assert [mode.label for mode in found.imaginary].count("M") == 1
    assert any("not relaxed" in warning for warning in found.warnings)


def test_translations_cost_nothing(l10):
    np.testing.assert_allclose(l10.frequencies([0, 0, 0])[0][:3], 0, atol=1e-4)
    assert 0 <= l10.sum_rule < 0.05


def test_any_cell_and_orientation_gives_the_same(l10):
    wide = make_supercell(L10, [[1, 1, 0], [1, -1, 0], [0, 0, -1]])
    wide.rotate(30, (1, 2, 3), rotate_cell=True)
    wide.positions += [0.3, 0.2, 0.1]
    skewed = make_supercell(L10, [[1, 0, 0], [1, 1, 0], [0, 2, 1]])
    skewed.set_cell(skewed.cell.array @ Rotation.from_euler("xyz", [1, 2, 3]).as_matrix(), scale_atoms=True)
    q_points = list(l10.cell.points.values())
    for other in (wide, skewed):
        found = phonons(other, EMT(), supercell=(2, 2, 2), mesh=(6, 6, 6))
        np.testing.assert_allclose(found.frequencies(q_points), l10.frequencies(q_points), atol=2e-3)
        assert found.min_frequency == pytest.approx(l10.min_frequency, abs=2e-3)
        assert found.q_label == l10.q_label


def test_stable_and_unstable_copper():
    fcc = phonons(bulk("Cu", a=3.59), EMT(), supercell=(2, 2, 2))
    bcc = phonons(bulk("Cu", "bcc", a=2.856), EMT(), supercell=(2, 2, 2))
    assert fcc.stable and not fcc.imaginary and fcc.interpolated_min > 0
    assert 0 < fcc.thermal.zero_point_energy < 0.05
    assert 2.5 < fcc.thermal.heat_capacity < 3
    assert not bcc.stable and bcc.q_label == "N" and bcc.thermal is None
    assert bcc.imaginary[0].star == 6 and bcc.imaginary[0].degeneracy == 1
    assert "unstable" in str(bcc) and "N (" in str(bcc)


def test_numbers_are_plain(l10):
    back = json.loads(json.dumps(l10.numbers()))
    assert back["supercell"] == [2, 2, 2] and back["displacement"] == 0.01 and back["mesh"] == [6, 6, 6]
    assert back["stable"] is True and back["spacegroup"] == 123
    assert "EMT" in back["protocol"]


def test_processes_change_nothing(l10):
    found = phonons(L10, EMT(), supercell=(2, 2, 2), mesh=(6, 6, 6), processes=2)
    np.testing.assert_allclose(found.frequencies([0.5, 0.5, 0.5]), l10.frequencies([0.5, 0.5, 0.5]), atol=1e-9)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([5.46, 5.46, 5.46], (2, 2, 2)), ([3.95, 3.95, 7.6], (2, 2, 1)), ([3.6, 2.0, 8.0], (4, 4, 1)), ([7.5, 2.5, 30.0], (1, 4, 1))],
)
def test_supercells_are_even_or_one(lengths, expected):
    assert multiples(np.diag(lengths), 7.5) == expected


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (Atoms("Cu", cell=[4.0, 5.0, 41.0], pbc=True), (10, 8, 2)),
        (Atoms("Cu2", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.7, 2.9, 3.3], pbc=True), (22, 22, 22)),
        (bulk("Mg"), (16, 16, 8)),
    ],
)
def test_mesh_is_even_and_symmetric(atoms, expected):
    assert mesh_of(standard_cell(atoms), 40) == expected


LATTICES = {
    "oI": Atoms("Cu2", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.7, 2.9, 3.3], pbc=True),
    "oC": Atoms("Cu2", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0]], cell=[2.7, 4.4, 2.8], pbc=True),
    "oF": Atoms("Cu4", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], cell=[3.5, 3.7, 3.9], pbc=True),
    "mC": Atoms("Cu2", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0]], cell=[4.4, 2.8, 2.8, 90, 104, 90], pbc=True),
    "mP": Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.7, 2.9, 3.9, 90, 98, 90], pbc=True),
    "hR": Atoms("Cu", cell=[2.55, 2.55, 2.55, 65, 65, 65], pbc=True),
    "hP": bulk("Cu", "hcp", a=2.55, c=4.2),
    "aP": Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.45, 0.52, 0.5]], cell=[2.8, 2.9, 3.7, 85, 95, 100], pbc=True),
}


@pytest.mark.parametrize("lattice", LATTICES)
def test_every_lattice(lattice):
    """Labels, path and wave vectors are those of phonopy's primitive cell; the primitive and the given cell agree."""
    found = phonons(LATTICES[lattice], EMT(), supercell=(2, 2, 2), mesh=(4, 4, 4))
    np.testing.assert_allclose(found.phonopy.primitive.cell, found.cell.primitive.cell.array, atol=1e-6)
    assert sorted(found.cell_of_modes.numbers) == sorted(found.cell.primitive.numbers)
    np.testing.assert_allclose(found.frequencies([0, 0, 0])[0][np.abs(found.frequencies([0, 0, 0])[0]).argsort()[:3]], 0, atol=1e-3)
    again = phonons(found.cell.primitive, EMT(), supercell=(2, 2, 2), mesh=(4, 4, 4))
    assert again.min_frequency == pytest.approx(found.min_frequency, abs=1e-3)
    assert again.interpolated_min <= again.min_frequency + 1e-4


def test_stars_of_a_cube():
    cell = standard_cell(bulk("Cu", "sc", a=2.4))
    grid = np.array(np.meshgrid(*[[0, 0.5]] * 3)).reshape(3, -1).T
    found = {star.label: star.size for star in stars(grid, cell)}
    assert found == {"Γ": 1, "X": 3, "M": 3, "R": 1}
    assert sum(star.size for star in stars(np.array(np.meshgrid(*[np.arange(4) / 4] * 3)).reshape(3, -1).T, cell)) == 64


@pytest.mark.parametrize(
    ("q", "size"), [((0, 0, 0), 1), ((0.5, 0.5, 0.5), 2), ((1 / 3, 1 / 3, 0), 3), ((0.25, 0.5, 0), 4), ((0.5, -1 / 3, 0), 6)]
)
def test_smallest_commensurate_cell(q, size):
    rows = commensurate_cell(np.array(q))
    assert round(np.linalg.det(rows)) == size
    np.testing.assert_allclose(rows @ q, np.round(rows @ q), atol=1e-9)


def test_heat_capacity_ends_at_three():
    found = thermal(np.array([[1.0, 2.0, 3.0]]), np.array([1.0]), 1, 5000.0)
    assert found.heat_capacity == pytest.approx(3, abs=1e-3)
    assert found.zero_point_energy == pytest.approx(6 / 2 * 4.135667696e-3)
    assert thermal(np.array([[1.0, 2.0, 3.0]]), np.array([1.0]), 1, 1.0).heat_capacity == pytest.approx(0, abs=1e-9)


def test_spelled():
    assert spelled((0.5, 0, 1 / 3)) == "(1/2, 0, 1/3)"
    assert spelled((0.3721, -0.25, 1)) == "(0.3721, -1/4, 1)"


class Odd(Calculator):
    """Forces that are no numbers."""

    implemented_properties = ["energy", "forces", "stress"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.full((len(atoms), 3), np.nan), "stress": np.zeros(6)}


class Score(EMT):
    energy_in_ev = False


@pytest.mark.parametrize(
    ("atoms", "calculator", "options", "kind", "words"),
    [
        (Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.1]], cell=[5] * 3, pbc=True), EMT(), {}, StabilityError, "0.10 Å apart"),
        (Atoms("Cu", positions=[[np.nan, 0, 0]], cell=[5, 5, 5], pbc=True), EMT(), {}, StabilityError, ""),
        (Atoms("Cu", cell=[0, 5, 5], pbc=True), EMT(), {}, StabilityError, "volume"),
        (Atoms("Cu"), EMT(), {}, StabilityError, ""),
        (Atoms("Cu", cell=[20] * 3, pbc=True), "7net-0", {}, StabilityError, "isolated"),
        (bulk("Po", "sc", a=3.3), "7net-0", {}, StabilityError, "does not know Po"),
        (bulk("Cu"), Odd(), {}, PotentialError, "no finite number"),
        (bulk("Cu"), Score(), {}, NoEnergyError, "not in eV"),
        (bulk("Cu"), EMT(), {"min_length": 40}, StabilityError, "above the limit"),
        (bulk("Cu", "sc", a=2.4), EMT(), {"supercell": (1, 1, 1)}, StabilityError, "but translations"),
        (bulk("Cu"), EMT(), {"displacement": 0}, StabilityError, "above 0"),
        (bulk("Cu"), EMT(), {"displacement": 1}, StabilityError, "no small one"),
        (bulk("Cu"), EMT(), {"supercell": (0, 1, 1)}, StabilityError, "not possible"),
        (bulk("Cu"), "chgnet", {}, StabilityError, "−1.11 THz"),
    ],
)
def test_refusals_are_one_sentence(atoms, calculator, options, kind, words):
    with pytest.raises(kind, match=words) as caught:
        phonons(atoms, calculator, **options)
    assert "\n" not in str(caught.value)


def test_a_relaxation_is_as_good_as_its_crystal_and_nothing_else_is():
    relaxed = relax(bulk("Cu", a=3.6), EMT(), path=False)
    found, same = (phonons(given, EMT(), supercell=(1, 1, 1)) for given in (relaxed, relaxed.atoms))
    assert found.min_frequency == same.min_frequency and found.stable
    for wrong, word in (("Cu.cif", "str"), (None, "NoneType"), ([bulk("Cu")], "list")):
        with pytest.raises(StabilityError, match=f"not a {word}"):
            phonons(wrong, EMT())


def test_a_supercell_that_sees_no_zone_boundary_says_so(l10):
    alone = phonons(L10, EMT(), supercell=(1, 1, 1), mesh=(2, 2, 2))
    assert any("only Γ is commensurate with the 1×1×1 supercell" in warning for warning in alone.warnings)
    assert not any("commensurate" in warning for warning in l10.warnings)
    # the conventional cell of a face-centred crystal holds X
    assert not any("commensurate" in warning for warning in phonons(bulk("Cu", a=3.6), EMT(), supercell=(1, 1, 1)).warnings)


@pytest.fixture(scope="module")
def sevennet():
    pytest.importorskip("sevenn")
    return "7net-0"


def test_silicon_is_stable(sevennet):
    found = phonons(bulk("Si", a=5.4635), sevennet)
    assert found.supercell == (2, 2, 2) and found.stable and found.interpolated_min > 0
    # the potential is softer than PBE (15.2 THz); the same comes out of energies of the two-atom cell
    optic = found.frequencies([0, 0, 0])[0].max()
    assert optic == pytest.approx(12.5, abs=0.2)
    cell, step = found.cell.primitive, 0.03
    energies = []
    for shift in (-step, 0, step):
        moved = cell.copy()
        moved.positions[0, 0] += shift
        moved.calc = found.model.calculator()
        energies.append(moved.get_potential_energy())
    curvature = (energies[0] - 2 * energies[1] + energies[2]) / step**2
    assert np.sqrt(2 * curvature / moved.get_masses()[0]) * THZ == pytest.approx(optic, rel=0.01)
    assert not found.warnings
