"""Distances to the hull: closed forms, pymatgen's own numbers, scales, broken crystals, pictures and the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from typer.testing import CliRunner

from asegen.calculators.potentials import MP2020, POTENTIALS, RAW_PBE, potential
from asegen.cli.hull import _rounded
from asegen.cli.hull import hull as hull_command
from asegen.errors import StabilityError
from asegen.metrics.cache import Cache
from asegen.stability.competing import CompetingPhases
from asegen.stability.entries import Entry, Phases
from asegen.stability.hull import Hull, hull_distance
from asegen.stability.hull_plots import plot_hull
from asegen.stability.relax import Relaxed, relax
from asegen.stability.scales import elemental_offsets, elemental_references

OWN = "own:test"


def entry(formula: str, energy: float, scale: str = OWN) -> Entry:
    return Entry(formula, energy, scale, "by hand", f"id-{formula}")


BINARY = [entry("Cu", -1.0), entry("Au", -2.0), entry("CuAu", -1.8), entry("Cu3Au", -1.2), entry("CuAu3", -1.6)]
CU3AU = Atoms("Cu3Au", scaled_positions=[[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 0]], cell=[3.75] * 3, pbc=True)


def test_closed_form_of_a_binary_hull():
    # formation energies: CuAu -0.3; Cu3Au +0.05 and CuAu3 +0.15 are above the line
    above, stable, element = hull_distance(
        [CU3AU, bulk("CuAu", "rocksalt", a=5.0), bulk("Au")], reference=BINARY, energies=[-4 * 1.5, -2 * 1.8, -2.0], scale=OWN
    )
    assert above.e_above_hull == pytest.approx(-1.5 - (-1.0 - 1.8) / 2)
    assert above.formation_energy_per_atom == pytest.approx(-1.5 + 1.25)
    assert {part.formula: part.fraction for part in above.decomposition} == pytest.approx({"CuAu": 0.5, "Cu": 0.5})
    part = next(part for part in above.decomposition if part.formula == "CuAu")
    assert (part.energy_per_atom, part.source, part.name) == (-1.8, "by hand", "id-CuAu")
    assert part.formation_energy_per_atom == pytest.approx(-0.3)
    assert above.stable(0.05) and above.ok and not above.reason
    assert stable.e_above_hull == pytest.approx(0.0)  # the reference holds it
    assert element.e_above_hull == pytest.approx(0.0) and element.formation_energy_per_atom == pytest.approx(0.0)
    assert above.competing == 5 and above.scale == OWN and above.corrections == ()


def test_below_the_hull_is_negative():
    found = hull_distance(CU3AU, reference=BINARY, energies=[-4 * 1.6], scale=OWN)
    assert found.e_above_hull == pytest.approx(-0.2)
    assert found.stable(0.0)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.floats(-1.0, 0.5)), min_size=1, max_size=12),
    st.integers(0, 3),
)
def test_the_same_as_pymatgen(rows, extra):
    compounds = [entry(f"Li{a}Fe{b}O{c}", -3.0 + e) for a, b, c, e in rows if (a > 0) + (b > 0) + (c > 0) > 1]
    compounds = [Entry(e.formula.replace("Li0", "").replace("Fe0", "").replace("O0", ""), *list(vars(e).values())[1:5]) for e in compounds]
    elements = [entry("Li", -1.9), entry("Fe", -8.0), entry("O", -4.9)]
    system = frozenset(("Li", "Fe", "O"))
    ours = Hull(Phases((*elements, *compounds), ""), system, OWN)
    entries = [PDEntry(Composition(e.formula), e.energy_per_atom * Composition(e.formula).num_atoms) for e in (*elements, *compounds)]
    theirs = PhaseDiagram(entries)
    for mine, other in zip((*elements, *compounds), entries, strict=True):
        above = mine.energy_per_atom - ours.below(mine.fractions)[0]
        assert above == pytest.approx(theirs.get_e_above_hull(other), abs=1e-8)
        assert above >= -1e-9  # what the reference holds is never below its hull
        parts = ours.below(mine.fractions)[1]
        assert sum(part.fraction for part in parts) == pytest.approx(1.0)
        assert sum(part.fraction * part.energy_per_atom for part in parts) == pytest.approx(ours.below(mine.fractions)[0], abs=1e-8)
    # one phase more can only lower the hull
    more = Hull(Phases((*elements, *compounds, entry("LiFeO2", -4.0 - 0.1 * extra)), ""), system, OWN)
    for mine in (*elements, *compounds):
        assert more.below(mine.fractions)[0] <= ours.below(mine.fractions)[0] + 1e-9


def test_raw_energies_are_corrected_and_said_to_be():
    salt = bulk("NaCl", "rocksalt", a=5.7)
    references = [entry("NaCl", -3.7, MP2020)]
    raw, corrected = (hull_distance(salt, reference=references, energies=[-6.786], scale=scale) for scale in (RAW_PBE, MP2020))
    assert raw.energy_per_atom == pytest.approx((-6.786 - 0.614) / 2) and corrected.energy_per_atom == pytest.approx(-3.393)
    assert raw.e_above_hull == pytest.approx(0.0, abs=1e-3) and dict(raw.corrections) == pytest.approx({"anion correction (Cl)": -0.307})
    assert "MaterialsProject2020Compatibility" in raw.protocol and "MaterialsProject2020Compatibility" not in corrected.protocol
    assert "elements: Materials Project" in raw.protocol


def test_scales_are_never_mixed():
    with pytest.raises(StabilityError, match=r"PBE\(\+U\).*own:test"):
        hull_distance(CU3AU, "7net-0", BINARY)
    with pytest.raises(StabilityError, match=r"own:EMT-\w+.*MP2020"):
        hull_distance(CU3AU, EMT(), [entry("Cu", -4.0, MP2020)])
    with pytest.raises(StabilityError, match=r"own:other.*own:test"):
        hull_distance(CU3AU, reference=BINARY, energies=[-1.0], scale="own:other")
    with pytest.raises(StabilityError, match="without their scale"):
        hull_distance(CU3AU, reference=BINARY, energies=[-1.0])
    relaxed = relax(CU3AU, EMT(), path=False)
    with pytest.raises(StabilityError, match=r"own:EMT-\w+.*MP2020"):
        hull_distance([relaxed], "7net-0", [entry("Cu", -4.0, MP2020)])


SALT = bulk("NaCl", "rocksalt", a=5.7)


def relaxed_by(name: str, atoms: Atoms, energy: float, scale: str) -> Relaxed:
    made = relax(CU3AU, EMT(), steps=1, path=False)
    return replace(made, start=atoms, atoms=atoms, energy=energy, energy_per_atom=energy / len(atoms), potential=name, scale=scale)


def test_potentials_are_never_mixed():
    seven, gnet = relaxed_by("7net-0", SALT, -6.786, RAW_PBE), relaxed_by("chgnet", SALT, -7.4, MP2020)
    dft = [entry("NaCl", -3.7, MP2020)]
    with pytest.raises(StabilityError, match="energies of 7net-0 and of chgnet cannot be compared"):
        hull_distance([seven, gnet], reference=dft)
    with pytest.raises(StabilityError, match="energies of chgnet and of 7net-0"):
        hull_distance([gnet, SALT], "7net-0", dft)
    for other in (Entry("NaCl", -3.7, MP2020, "chgnet"), Entry("NaCl", -3.7, MP2020, "mine", potential="chgnet")):
        with pytest.raises(StabilityError, match="computed with 7net-0, the competing phases with chgnet"):
            hull_distance(seven, reference=[other])
        assert hull_distance(gnet, reference=[other]).ok
    with pytest.raises(StabilityError, match="computed with chgnet, the competing phases with 7net-0"):
        hull_distance(gnet, reference=CompetingPhases(potential("7net-0"), cache=Cache(keep=False)))
    with pytest.raises(StabilityError, match="mixes potentials"):
        hull_distance(seven, reference=[*dft, other, Entry("NaCl3", -3.0, MP2020, "7net-0")])
    assert "energies of 7net-0 against a hull of DFT energies" in hull_distance(seven, reference=dft).protocol
    assert "DFT" not in hull_distance(gnet, reference=[other]).protocol
    assert "DFT" not in hull_distance(SALT, reference=dft, energies=[-7.4], scale=MP2020).protocol


def test_elements_that_a_potential_gets_wrong_are_named():
    iron = relaxed_by("7net-0", bulk("Fe"), elemental_references()["Fe"].energy_per_atom + 0.104, RAW_PBE)
    found = hull_distance(iron, reference=[entry("NaCl", -3.7, MP2020)])
    assert found.e_above_hull == pytest.approx(0.104)
    assert "7net-0 is off the Materials Project's elements (eV/atom): Fe +0.104" in found.warning
    assert not hull_distance(bulk("Fe"), reference=[entry("Fe", -8.0, MP2020)], energies=[-8.0], scale=MP2020).warning
    salt = relaxed_by("7net-0", SALT, -6.786, RAW_PBE)
    assert "off" not in hull_distance(salt, reference=[entry("NaCl", -3.7, MP2020)]).warning
    for name in POTENTIALS:
        offsets = elemental_offsets()[name]
        assert len(offsets) > 80 and max(map(abs, offsets.values())) < 0.25


def test_the_offsets_are_those_of_the_potential():
    pytest.importorskip("sevenn")
    for symbol in ("Si", "Fe"):
        reference = elemental_references()[symbol]
        found = hull_distance(reference.atoms, "7net-0", [entry("NaCl", -3.7, MP2020)])
        assert found.e_above_hull == pytest.approx(elemental_offsets()["7net-0"][symbol], abs=1e-3)


def test_a_poor_reference_is_said_to_be():
    salt = hull_distance(SALT, reference=[entry("NaCl", -3.7, MP2020)], energies=[-7.4], scale=MP2020)
    assert salt.few == "Cl-Na: there is only NaCl to compete; the elements Cl, Na are those of the Materials Project"
    none = hull_distance(bulk("MgO", "rocksalt", a=4.2), reference=[entry("NaCl", -3.7, MP2020)], energies=[-12.0], scale=MP2020)
    assert none.few.startswith("Mg-O: there is no compound to compete")
    own = hull_distance(CU3AU, reference=BINARY, energies=[-6.0], scale=OWN)
    assert own.few == "Au-Cu: there is only Cu3Au, CuAu, CuAu3 to compete"
    more = [*BINARY, entry("Cu2Au", -1.0), entry("CuAu2", -1.0)]
    assert not hull_distance(CU3AU, reference=more, energies=[-6.0], scale=OWN).few
    assert not hull_distance(bulk("Cu"), reference=BINARY, energies=[-1.0], scale=OWN).few


def test_what_cannot_be_judged_is_refused_with_a_sentence():
    for wrong, words in ((3, "crystals cannot be of type int"), ([CU3AU, "Cu"], "crystal 2 is a str")):
        with pytest.raises(StabilityError, match=words):
            hull_distance(wrong, reference=BINARY, energies=[-1.0, -1.0], scale=OWN)
    for wrong, words in (({"Cu": 1}, "reference cannot be of type dict"), (["Cu"], "holds a str; an Entry")):
        with pytest.raises(StabilityError, match=words):
            hull_distance(CU3AU, reference=wrong, energies=[-1.0], scale=OWN)
    with pytest.raises(StabilityError, match="effort 'silly' is not known"):
        hull_distance(CU3AU, reference=BINARY, energies=[-1.0], scale=OWN, effort="silly")
    named = CU3AU.copy()
    named.info.update(dft_energy=-1.0, note="text")
    with pytest.raises(StabilityError, match=r"no crystal has an energy 'foo'; numbers there are: dft_energy$"):
        hull_distance([named, CU3AU], reference=BINARY, energies="foo", scale=OWN)


def test_a_relaxation_brings_its_energy():
    model = potential(EMT())
    relaxed = relax(CU3AU, model, path=False)
    phases = [Entry("Cu", 0.0, model.scale, "s"), Entry("Au", 0.0, model.scale, "s")]
    found = hull_distance(relaxed, model, phases)
    assert found.e_above_hull == pytest.approx(relaxed.energy_per_atom) and found.relaxed is relaxed
    # the potential of a relaxation need not be named again
    assert hull_distance([relaxed], reference=phases)[0].e_above_hull == found.e_above_hull
    again = hull_distance(CU3AU, model, phases, relax=True)
    assert again.e_above_hull == pytest.approx(found.e_above_hull, abs=1e-6) and "relaxed with EMT" in again.protocol
    single = hull_distance(CU3AU, model, phases)
    assert single.e_above_hull > found.e_above_hull and "not relaxed" in single.protocol


def test_energies_beside_the_crystals():
    atoms = CU3AU.copy()
    atoms.info["dft"] = -6.0
    named, lacking = hull_distance([atoms, CU3AU], reference=BINARY, energies="dft", scale=OWN)
    assert named.e_above_hull == pytest.approx(-0.1) and "'dft'" in lacking.reason
    atoms.calc = EMT()
    computed, without = hull_distance([atoms, CU3AU], reference=BINARY, energies="calculator", scale=OWN)
    assert computed.energy_per_atom == pytest.approx(atoms.get_potential_energy() / 4) and "calculator" in without.reason
    with pytest.raises(StabilityError, match="2 energies were given for 1"):
        hull_distance([CU3AU], reference=BINARY, energies=[1.0, 2.0], scale=OWN)


def test_broken_crystals_stop_no_other():
    model = potential(EMT())
    phases = [Entry("Cu", 0.0, model.scale, "s"), Entry("Au", 0.0, model.scale, "s")]
    overlap = Atoms("CuAu", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4] * 3, pbc=True)
    crystals = [CU3AU, overlap, bulk("Al"), bulk("Fe"), Atoms("Cu", cell=[4] * 3), Atoms(cell=[4] * 3, pbc=True)]
    found = hull_distance(crystals, model, phases)
    assert [result.ok for result in found] == [True, False, False, False, False, False]
    assert "apart" in found[1].reason and "elemental Al" in found[2].reason and all(result.reason for result in found[1:])
    assert [result.name for result in found] == [f"#{k}" for k in range(1, 7)]
    json.dumps([result.row() for result in found])


def test_7net_single_point_of_strontium_titanate(tmp_path):
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    atoms = Atoms("SrTiO3", scaled_positions=places, cell=[3.945] * 3, pbc=True)
    path = tmp_path / "r.csv"
    path.write_text("formula,formation_energy_per_atom\nSrTiO3,-3.552\nSrO,-3.077\nTiO2,-3.5\n")
    alone = Atoms("Sr", cell=[15] * 3, pbc=True)
    found, isolated, unknown = hull_distance([atoms, alone, bulk("Po", "sc", a=3.3)], "7net-0", path)
    assert found.energy_per_atom == pytest.approx(-8.42, abs=0.03)
    assert found.formation_energy_per_atom == pytest.approx(-3.552, abs=0.02) and abs(found.e_above_hull) < 0.02
    assert dict(found.corrections) == pytest.approx({"anion correction (oxide)": -0.687 * 3 / 5}, abs=1e-3)
    assert "isolated" in isolated.reason and "Po" in unknown.reason


# --------------------------------------------------------------------------------------------------- pictures and the command


def hull_of(*entries: Entry) -> Hull:
    return Hull(Phases(entries, ""), frozenset().union(*(e.elements for e in entries)), OWN)


def test_pictures(tmp_path):
    results = hull_distance([CU3AU, CU3AU], reference=BINARY, energies=[-6.0, -5.0], scale=OWN)
    binary, ternary = hull_of(*BINARY), hull_of(*BINARY, entry("Ag", -1.0), entry("CuAgAu", -2.0))
    for made, name in ((binary, "b.png"), (ternary, "t.png")):
        plot_hull(made, results, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    plot_hull(binary, [], tmp_path / "empty.png")
    assert len(ternary.edges) >= 6
    with pytest.raises(StabilityError, match="4 elements"):
        plot_hull(hull_of(*BINARY, entry("Ag", -1.0), entry("Pd", -1.0)), results, tmp_path / "q.png")
    assert {path.name for path in tmp_path.iterdir()} == {"b.png", "t.png", "empty.png"}


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(hull_command)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path):
    crystals = [CU3AU.copy(), bulk("NaCl", "rocksalt", a=5.7), bulk("Cu", "fcc", a=3.6)]
    for atoms, energy in zip(crystals, (-14.7, -6.786, -4.0), strict=True):
        atoms.info["dft"] = energy
    crystals.append(bulk("Ag"))
    write(tmp_path / "c.extxyz", crystals)
    (tmp_path / "r.csv").write_text("material_id,formula,formation_energy_per_atom\nmp-1,Cu3Au,-0.04\nmp-2,NaCl,-2.11\n")
    return tmp_path


def test_the_command_as_json(command, files):
    result = command(files / "c.extxyz", "--reference", files / "r.csv", "--energy", "dft", "--scale", RAW_PBE, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["formula"] for row in rows] == ["AuCu3", "NaCl", "Cu", "Ag"]
    assert [row["position"] for row in rows] == [0, 1, 2, 3] and all(row["name"] for row in rows)
    assert [row["reason"] for row in rows[:3]] == [None] * 3
    assert rows[3]["e_above_hull"] is None and "dft" in rows[3]["reason"] and rows[3]["stable"] is None
    for row in rows[:3]:
        assert row["stable"] == (row["e_above_hull"] <= 0.05) and row["scale"] == MP2020 and row["protocol"]
        assert np.isclose(sum(part["fraction"] for part in row["decomposition"]), 1)
    assert rows[2]["formation_energy_per_atom"] == pytest.approx(rows[2]["e_above_hull"])


def test_the_command_with_files(command, files):
    out = files / "out"
    result = command(files / "c.extxyz", "--reference", files / "r.csv", "--energy", "dft", "--scale", RAW_PBE, "--out", out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {
        "asegen-hull.json", "hull.json", "hull.csv", "structures.extxyz", "hull_Au-Cu.png", "hull_Cl-Na.png",
    }  # fmt: skip
    assert len((out / "hull.csv").read_text().splitlines()) == 5
    assert "AuCu3" in result.output and "1 not judged" in result.output


def test_earlier_results_are_not_replaced_unasked(command, files):
    out = files / "out"
    asked = [files / "c.extxyz", "--reference", files / "r.csv", "--energy", "dft", "--scale", RAW_PBE, "--out", out]
    assert command(*asked).exit_code == 0
    before = (out / "hull.json").read_text()
    assert command(*asked).exit_code == 0 and (out / "hull.json").read_text() == before
    write(files / "two.extxyz", read(files / "c.extxyz", index="1:3"))
    result = command(files / "two.extxyz", *asked[1:])
    assert result.exit_code == 1 and "--overwrite" in result.output and (out / "hull.json").read_text() == before
    assert command(*asked, "--stable-below", 0.1).exit_code == 1
    (out / "notes.txt").write_text("mine")
    assert command(files / "two.extxyz", *asked[1:], "--overwrite").exit_code == 0
    assert {path.name for path in out.iterdir()} == {
        "asegen-hull.json", "hull.json", "hull.csv", "structures.extxyz", "hull_Cl-Na.png", "notes.txt",
    }  # fmt: skip
    run = files / "run"
    run.mkdir()
    (run / "structures.extxyz").write_text("generated")
    result = command(*asked[:-1], run, "--overwrite")
    assert result.exit_code == 1 and "not of asegen hull" in result.output and (run / "structures.extxyz").read_text() == "generated"


def test_the_command_fails_where_nothing_is_judged(command, files):
    polonium = bulk("Po", "sc", a=3.3)
    polonium.info["material_id"] = "po [red]"
    write(files / "po.extxyz", polonium)
    result = command(files / "po.extxyz", "--reference", files / "r.csv", "--no-relax")
    assert result.exit_code == 1 and "1 not judged" in result.output and "0 (po [red]): 7net-0 does not know Po" in result.output
    result = command(files / "po.extxyz", "--reference", files / "r.csv", "--no-relax", "--json")
    assert result.exit_code == 1 and "does not know Po" in json.loads(result.stdout)[0]["reason"]


def test_the_table(command, files):
    (files / "own.csv").write_text("formula,formation_energy_per_atom\nNaCl,-2.1\n")
    result = command(files / "c.extxyz", "--reference", files / "own.csv", "--energy", "dft", "--scale", RAW_PBE)
    assert result.exit_code == 0 and "-0.000" not in result.output
    assert "Cl-Na: there is only NaCl to compete; the elements Cl, Na are those of the Materials Project" in result.output
    assert _rounded(-1e-5) == 0 and str(_rounded(-1e-5)) == "0.0"
    missing = command(files / "c.extxyz", "--reference", files / "own.csv", "--energy", "foo", "--scale", RAW_PBE)
    assert missing.exit_code == 1 and "numbers there are: dft" in missing.output
    assert command(files / "c.extxyz", "--processes", -1).exit_code == 2


def test_the_command_says_what_is_wrong(command, files, monkeypatch):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.delenv("PMG_MAPI_KEY", raising=False)
    (files / "empty.extxyz").write_text("")
    for arguments in (
        (files / "empty.extxyz",),
        (files / "c.extxyz", "--reference", "mp"),
        (files / "c.extxyz", "--reference", files / "no.csv"),
        (files / "c.extxyz", "--scale", RAW_PBE),
        (files / "c.extxyz", "--reference-scale", RAW_PBE),
        (files / "c.extxyz", "--effort", "enormous", "--no-cache"),
        (files / "c.extxyz", "--effort", "enormous", "--reference", files / "r.csv"),
    ):
        result = command(*arguments)
        assert result.exit_code == 1 and result.output.strip().startswith("asegen: ")
