"""Reference files of all kinds, broken rows, and the Materials Project with a stand-in for its interface."""

from __future__ import annotations

import gzip
import json

import pytest
from ase.build import bulk
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

from asegen.calculators.potentials import MP2020, RAW_PBE
from asegen.errors import DataError, StabilityError
from asegen.stability.entries import Entry, EntrySet, fractions_of
from asegen.stability.entry_files import MaterialsProject, read_entries
from asegen.stability.hull import hull_distance
from asegen.stability.scales import elemental_references, run_parameters

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def computed(formula: str, energy: float, **options) -> ComputedEntry:
    composition = Composition(formula)
    return ComputedEntry(composition, energy, parameters=run_parameters(composition), entry_id=f"x-{formula}", **options)


def lookup(entries: EntrySet, formula: str) -> Entry:
    return next(entry for entry in entries if entry.reduced_formula == formula)


def test_a_table_of_formation_energies(tmp_path):
    path = tmp_path / "r.csv.gz"
    rows = ["mp-1,NaCl,-2.0", "mp-2,Na,0.0", "mp-3,Foo2,-1", "mp-4,KCl,", "mp-5,KCl,nan", "mp-6,PoO2,-1.0", "mp-7,Na0.5Cl0.5,-1.5", "mp-8"]
    path.write_bytes(gzip.compress("\n".join(["material_id,formula,formation_energy_per_atom", *rows]).encode()))
    found = read_entries(path)
    assert len(found) == 3 and found.scale == MP2020
    assert [row.split(":")[0] for row in found.broken] == ["mp-3", "mp-4", "mp-5", "mp-6", "mp-8"]
    elements = elemental_references()
    expected = -2.0 + (elements["Na"].energy_per_atom + elements["Cl"].energy_per_atom) / 2
    assert lookup(found, "NaCl").energy_per_atom == pytest.approx(expected)
    protocol = found.phases(frozenset(("Na", "Cl"))).protocol
    assert "taken to be MP2020" in protocol and "5 rows" in protocol and "mp-3" in protocol
    with pytest.raises(StabilityError, match="energy_per_atom"):
        read_entries(path, "own:EMT-1")


def test_a_table_of_energies_needs_a_scale(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("formula,energy_per_atom\nSrTiO3,-8.0\nCu,-4.0\n")
    with pytest.raises(StabilityError, match="scale"):
        read_entries(path)
    assert lookup(read_entries(path, MP2020), "SrTiO3").energy_per_atom == -8.0
    raw = read_entries(path, RAW_PBE)
    assert raw.scale == MP2020 and lookup(raw, "SrTiO3").energy_per_atom == pytest.approx(-8.0 - 0.687 * 3 / 5, abs=1e-3)
    own = read_entries(path, "own:EMT-1")
    assert own.scale == "own:EMT-1" and lookup(own, "Cu").energy_per_atom == -4.0


def test_pymatgen_entries_with_corrections(tmp_path):
    entries = [computed("Na2O", -12.0), computed("Na", -1.3), computed("O2", -9.8)]
    processed = MaterialsProject2020Compatibility().process_entries([entry.copy() for entry in entries])
    path = tmp_path / "r.json"
    path.write_text(json.dumps([entry.as_dict() for entry in processed]))
    found = read_entries(path)
    assert found.scale == MP2020 and "corrections" in found.phases(frozenset(("Na", "O"))).protocol
    assert lookup(found, "Na2O").energy_per_atom == pytest.approx((-12.0 - 0.687) / 3, abs=1e-3)
    # the same file read as raw energies: the correction is taken off and made again
    assert lookup(read_entries(path, RAW_PBE), "Na2O").energy_per_atom == pytest.approx((-12.0 - 0.687) / 3, abs=1e-3)


def test_pymatgen_entries_without_corrections(tmp_path):
    structure = ComputedStructureEntry(SALT, -27.0, parameters=run_parameters(SALT.composition))
    path = tmp_path / "r.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"entries": [structure.as_dict(), {"energy": 1.0}, 7]}).encode()))
    with pytest.raises(StabilityError, match="no corrections"):
        read_entries(path)
    found = read_entries(path, RAW_PBE)
    assert len(found) == 1 and len(found.broken) == 2
    entry = lookup(found, "NaCl")
    assert entry.energy_per_atom == pytest.approx((-27.0 - 4 * 0.614) / 8, abs=1e-3) and len(entry.atoms) == 8


def test_other_corrections_need_a_scale(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps([computed("NaCl", -6.0, correction=-0.5).as_dict()]))
    with pytest.raises(StabilityError, match="unknown scheme"):
        read_entries(path)
    assert lookup(read_entries(path, MP2020), "NaCl").energy_per_atom == pytest.approx(-3.25)
    assert lookup(read_entries(path, RAW_PBE), "NaCl").energy_per_atom == pytest.approx((-6.0 - 0.614) / 2, abs=1e-3)


def test_pd_entries_and_phase_diagrams(tmp_path):
    entries = [PDEntry("Cu", -3.7), PDEntry("Au", -3.3), PDEntry("Cu3Au", -14.6)]
    path = tmp_path / "r.json"
    path.write_text(json.dumps([entry.as_dict() for entry in entries]))
    assert lookup(read_entries(path, MP2020), "Cu3Au").energy_per_atom == pytest.approx(-3.65)
    path.write_text(PhaseDiagram(entries).to_json())
    assert len(read_entries(path, MP2020)) == 3


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.csv", "formula,x\nCu,1\n", "needs the columns"),
        ("a.csv", "", "needs the columns"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", '{"a": 1}', "no entries of pymatgen"),
        ("a.txt", "Cu", "unknown kind"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        read_entries(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        read_entries(tmp_path / "none.csv")


def test_no_row_left(tmp_path):
    (tmp_path / "a.csv").write_text("formula,formation_energy_per_atom\nFoo,1\n")
    with pytest.raises(StabilityError, match="1 could not be read"):
        read_entries(tmp_path / "a.csv")


def test_scales_are_not_mixed_in_a_set():
    with pytest.raises(StabilityError, match=r"Cu is on own:a, Au on own:b"):
        EntrySet([Entry("Cu", -1.0, "own:a", "s"), Entry("Au", -1.0, "own:b", "s")])


def test_formulas():
    assert fractions_of("Sr2Ti2O6") == pytest.approx({"Sr": 0.2, "Ti": 0.2, "O": 0.6})
    for wrong in ("", "Foo", "Na-1", "Xx", "Na0", "nan"):
        with pytest.raises(StabilityError, match="not a formula"):
            fractions_of(wrong)


def test_the_materials_project_is_asked_once_for_a_system(monkeypatch):
    asked = []

    class Rester:
        def __init__(self, key):
            assert key == "k" * 32

        def get_entries_in_chemsys(self, elements):
            asked.append(elements)
            if "K" in elements:
                raise OSError("no network")
            return MaterialsProject2020Compatibility().process_entries(
                [computed("NaCl", -7.0), computed("Na", -1.3), computed("Cl2", -3.6)]
            )

    monkeypatch.setenv("MP_API_KEY", "k" * 32)
    monkeypatch.setattr("pymatgen.ext.matproj.MPRester", Rester)
    salt = bulk("NaCl", "rocksalt", a=5.7)
    first, second, broken = hull_distance([salt, salt, bulk("KCl", "rocksalt", a=6.3)], reference="mp", energies=[-6.0] * 3, scale=RAW_PBE)
    assert asked == [["Cl", "Na"], ["Cl", "K"]]
    assert first.e_above_hull == second.e_above_hull == pytest.approx(0.5)
    assert "Materials Project (online)" in first.protocol
    assert "no network" in broken.reason and broken.e_above_hull is None


def test_the_materials_project_needs_a_key(monkeypatch):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.delenv("PMG_MAPI_KEY", raising=False)
    with pytest.raises(StabilityError, match="MP_API_KEY"):
        MaterialsProject()
