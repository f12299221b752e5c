"""Energy scales: corrections against pymatgen, elemental references, and that nothing is mixed."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk
from pymatgen.core import Composition
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor

from asegen.calculators.potentials import MP2020, RAW_PBE
from asegen.errors import StabilityError
from asegen.stability.scales import (
    corrected,
    corrected_composition,
    elemental_references,
    formation_energy,
    refuse_mixing,
    run_parameters,
)


def strontium_titanate() -> Atoms:
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Atoms("SrTiO3", scaled_positions=places, cell=[3.945] * 3, pbc=True)


def lithium_peroxide() -> Atoms:
    """Li2O2, mp-841, O–O distance 1.55 Å."""
    cell = [[3.1447, 0, 0], [-1.57235, 2.72339, 0], [0, 0, 7.6543]]
    places = [[0, 0, 0], [0, 0, 0.5], [1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    oxygen = [[1 / 3, 2 / 3, 0.6486], [1 / 3, 2 / 3, 0.8514], [2 / 3, 1 / 3, 0.1486], [2 / 3, 1 / 3, 0.3514]]
    return Atoms("Li4O4", scaled_positions=places + oxygen, cell=cell, pbc=True)


def anti_fluorite(metal: str, anion: str, a: float) -> Atoms:
    places = [[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]]
    return Atoms([anion, metal, metal], scaled_positions=places, cell=bulk("Cu", "fcc", a=a).cell, pbc=True)


KNOWN = [
    (strontium_titanate(), {"anion correction (oxide)": -0.687 * 3}),
    (lithium_peroxide(), {"anion correction (peroxide)": -0.465 * 4}),
    (anti_fluorite("Na", "S", 6.55), {"anion correction (S)": -0.503}),
    (bulk("NaCl", "rocksalt", a=5.7), {"anion correction (Cl)": -0.614}),
    (bulk("FeO", "rocksalt", a=4.3), {"anion correction (oxide)": -0.687, "GGA/GGA+U mixing correction (Fe)": -2.256}),
    (bulk("CuAu", "rocksalt", a=5.2), {}),
    (bulk("Cu", "fcc", a=3.6), {}),
    (bulk("O", "fcc", a=4.0), {}),
    (bulk("FeS", "rocksalt", a=5.0), {"anion correction (S)": -0.503}),  # no U in sulphides
]


@pytest.mark.parametrize("atoms, expected", KNOWN, ids=lambda value: value.get_chemical_formula() if isinstance(value, Atoms) else "")
def test_corrections_of_known_compounds(atoms, expected):
    found = corrected(atoms, -10.0, RAW_PBE)
    assert dict(found.corrections) == pytest.approx(expected, abs=1e-3)
    assert found.energy == pytest.approx(-10.0 + sum(expected.values()), abs=2e-3)
    assert found.correction == pytest.approx(found.energy + 10.0)


@pytest.mark.parametrize("metal", ["V", "Cr", "Mn", "Fe", "Co", "Ni", "W", "Mo"])
@pytest.mark.parametrize("anion", ["O", "F", "Cl"])
def test_the_same_as_pymatgen_with_all_its_checks(metal, anion):
    atoms = bulk(f"{metal}{anion}", "rocksalt", a=4.4)
    structure = AseAtomsAdaptor.get_structure(atoms)
    entry = ComputedStructureEntry(structure, -10.0, parameters=run_parameters(Composition(f"{metal}{anion}")))
    theirs = MaterialsProject2020Compatibility(check_potcar=True).process_entry(entry, clean=True)
    found = corrected(atoms, -10.0, RAW_PBE)
    assert theirs is not None and found.energy == pytest.approx(theirs.energy, abs=1e-9)
    assert any("mixing" in name for name, _ in found.corrections) == (anion != "Cl")


def test_a_corrected_energy_is_not_corrected_again():
    found = corrected(strontium_titanate(), -40.0, MP2020)
    assert found.energy == -40.0 and found.corrections == ()


def test_the_formula_alone_gives_the_same_for_oxides():
    atoms = strontium_titanate()
    assert corrected_composition("SrTiO3", -8.0) == pytest.approx(corrected(atoms, -40.0, RAW_PBE).energy / 5)
    assert corrected_composition("Li2O2", -4.8) == pytest.approx(-4.8 - 0.465 / 2, abs=1e-3)
    assert corrected_composition("Fe", -8.3) == -8.3


def test_other_scales_are_refused_by_name():
    with pytest.raises(StabilityError, match=r"own:EMT-1.*MP2020"):
        corrected(bulk("Cu"), -1.0, "own:EMT-1")
    refuse_mixing(RAW_PBE, "a", MP2020, "b")
    with pytest.raises(StabilityError, match=r"a is on the energy scale own:EMT-1, b on MP2020"):
        refuse_mixing("own:EMT-1", "a", MP2020, "b")
    with pytest.raises(StabilityError):
        refuse_mixing("own:EMT-1", "a", "own:EMT-2", "b")


def test_elemental_references():
    known = elemental_references()
    assert len(known) == 89 and {"H", "Pu"} <= set(known) and "Po" not in known
    assert known["Fe"].energy_per_atom == pytest.approx(-8.47, abs=0.02)
    for symbol, reference in known.items():
        assert set(reference.atoms.get_chemical_symbols()) == {symbol}
        assert 1 <= len(reference.atoms) <= 64 and reference.atoms.get_volume() / len(reference.atoms) > 4
        assert -16 < reference.energy_per_atom <= 0


def test_formation_energy():
    assert formation_energy({"Na": 0.5, "Cl": 0.5}, -3.0, {"Na": -1.0, "Cl": -2.0}) == pytest.approx(-1.5)
    with pytest.raises(StabilityError, match="Cl"):
        formation_energy({"Na": 0.5, "Cl": 0.5}, -3.0, {"Na": -1.0})
