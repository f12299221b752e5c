"""Distances to the hull: closed forms, pymatgen's own numbers, scales, broken crystals, pictures and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from typer.testing import CliRunner

from asegen.calculators.potentials import MP2020, RAW_PBE, potential
from asegen.cli.hull import hull as hull_command
from asegen.errors import StabilityError
from asegen.stability.entries import Entry, Phases
from asegen.stability.hull import Hull, hull_distance
from asegen.stability.hull_plots import plot_hull
from asegen.stability.relax import relax

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
        "hull.json", "hull.csv", "structures.extxyz", "hull_Au-Cu.png", "hull_Cl-Na.png",
    }  # fmt: skip
    assert len((out / "hull.csv").read_text().splitlines()) == 5
    assert "AuCu3" in result.output and "1 not judged" in result.output


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
    ):
        result = command(*arguments)
        assert result.exit_code == 1 and result.output.strip().startswith("asegen: ")
