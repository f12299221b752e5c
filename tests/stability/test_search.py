"""Structure search: what it finds, how it counts, how it goes on, and what it says."""

import json

import ase.io
import numpy as np
import pytest
import typer
from ase.build import bulk
from ase.calculators.emt import EMT
from typer.testing import CliRunner

import asegen.stability.search.run as run_module
from asegen.calculators import potentials
from asegen.cli.search import search as command
from asegen.errors import AsegenError, FormulaError, PotentialError, StabilityError
from asegen.generation import GenerationWarning
from asegen.stability import relax
from asegen.stability.distinct import leaders
from asegen.stability.search import Search, search
from asegen.stability.search.run import make_starts
from asegen.starts import seed_of

QUICK = {"processes": 1, "symmetrize": False}


@pytest.fixture(scope="module")
def copper(tmp_path_factory) -> tuple[Search, object]:
    out = tmp_path_factory.mktemp("copper")
    return search("Cu4", n=6, potential=EMT(), out=out, **QUICK), out


def test_copper_is_fcc(copper):
    found, _ = copper
    fcc = relax(bulk("Cu"), EMT()).energy_per_atom
    right = [s for s in found.structures if s.spacegroup == 225]
    assert len(right) == 1 and right[0].energy_per_atom == pytest.approx(fcc, abs=1e-4) and right[0].times >= 2
    assert found.structures[0].energy_per_atom <= fcc + 1e-6 and found.best is found.structures[0]


def test_numbers_of_a_search(copper):
    found, _ = copper
    assert found.formula == "Cu4" and found.method == "random" and found.potential.startswith("EMT")
    assert found.n == 6 and found.converged == np.mean([row["converged"] for row in found.rows])
    assert found.calls == sum(row["calls"] for row in found.rows) and found.seconds > 0
    assert [row["position"] for row in found.rows] == list(range(6))
    assert [row["start"] for row in found.rows].count("symmetric") == 3
    energies = [s.energy_per_atom for s in found.structures]
    assert energies == sorted(energies)
    for number, structure in enumerate(found.structures, start=1):
        assert [row["position"] for row in found.rows if row["structure"] == number] == list(structure.starts)
        assert structure.seed == found.rows[structure.starts[0]]["seed"] and structure.times == len(structure.starts)
        assert structure.atoms.get_potential_energy() / 4 == pytest.approx(structure.energy_per_atom)
    assert sum(s.times for s in found.structures) == sum(row["converged"] for row in found.rows)
    json.dumps(found.to_dict())


def test_files_of_a_search(copper):
    found, out = copper
    crystals = ase.io.read(out / "structures.extxyz", index=":")
    assert len(crystals) == len(found.structures)
    assert [a.info["times"] for a in crystals] == [s.times for s in found.structures]
    assert [a.get_potential_energy() / 4 for a in crystals] == pytest.approx([s.energy_per_atom for s in found.structures])
    assert len((out / "results.jsonl").read_text().splitlines()) == 1 + 6


def test_a_search_goes_on_after_a_kill_and_with_more_starts(copper, tmp_path, monkeypatch):
    found, out = copper
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:4]) + lines[4][:50])  # killed while it wrote the fourth
    relaxed = []
    real = run_module.relax_each

    def counting(crystals, *args, **options):
        relaxed.extend(crystals)
        return real(crystals, *args, **options)

    monkeypatch.setattr(run_module, "relax_each", counting)
    again = search("Cu4", n=7, potential=EMT(), out=tmp_path, **QUICK)
    assert len(relaxed) == 4
    for before, after in zip(found.rows, again.rows[:6], strict=True):
        for key in ("seed", "energy", "calls", "spacegroup", "start_volume"):
            assert before[key] == after[key]
    fewer = search("Cu4", n=2, potential=EMT(), out=tmp_path, **QUICK)
    assert fewer.n == 2 and len(relaxed) == 4
    with pytest.raises(AsegenError, match="results of another run"):
        search("Cu4", n=2, potential=EMT(), seed=1, out=tmp_path, **QUICK)
    assert search("Cu4", n=1, potential=EMT(), seed=1, out=tmp_path, overwrite=True, **QUICK).n == 1


def test_processes_change_nothing():
    options = {"n": 4, "symmetric_share": 1.0, "symmetrize": False}
    one, two = (search("Cu2", potential=EMT(), processes=processes, **options) for processes in (1, 2))
    for before, after in zip(one.rows, two.rows, strict=True):
        for key in ("seed", "start_volume", "calls", "spacegroup", "start"):
            assert before[key] == after[key]
        assert before["energy"] == pytest.approx(after["energy"], abs=1e-8)
    assert [s.starts for s in one.structures] == [s.starts for s in two.structures]


def test_share_of_symmetric_starts():
    def kinds(share):
        return [a.info["start"] for a in make_starts("Cu4", 10, "random", symmetric_share=share).values()]

    assert kinds(0.0) == ["free"] * 10 and kinds(1.0) == ["symmetric"] * 10
    assert kinds(0.3).count("symmetric") == 3 and kinds(0.3)[:5] == kinds(0.3)[:5]
    one = make_starts("Cu4", 10, "random", symmetric_share=0.3, wanted=[7])
    assert list(one) == [7] and np.array_equal(one[7].positions, make_starts("Cu4", 8, "random", symmetric_share=0.3)[7].positions)


def test_models_start_searches():
    score = search("Cu4", n=2, method="score", potential=EMT(), checkpoint="mp20", **QUICK)
    assert {row["start"] for row in score.rows} == {"random"} and score.n == 2
    prototypes = search("Cu4", n=2, method="prototypes", potential=EMT(), checkpoint="mp20", **QUICK)
    assert {row["start"] for row in prototypes.rows} <= {"prototype", "sites"} and prototypes.converged > 0
    whole = make_starts("Cu4", 2, "score", checkpoint="mp20")
    part = make_starts("Cu4", 2, "score", checkpoint="mp20", wanted=[1])
    assert list(part) == [1] and part[1].positions == pytest.approx(whole[1].positions, abs=1e-3)


def test_places_that_stay_empty_have_no_start(monkeypatch):
    """The model's second crystal cannot be made: the others keep their positions."""
    bad = {seed_of(0, 1), *(seed_of(seed_of(0, 1), k) for k in range(1, 9))}
    monkeypatch.setattr("asegen.generation.too_close", lambda atoms: "touch" if atoms.info.get("seed") in bad else "")
    with pytest.warns(GenerationWarning, match="1 of 3 crystals could not be made"):
        starts = make_starts("Cu4", 3, "score", checkpoint="mp20")
    assert sorted(starts) == [0, 2] and [starts[k].info["seed"] for k in (0, 2)] == [seed_of(0, 0), seed_of(0, 2)]
    with pytest.warns(GenerationWarning):
        assert sorted(make_starts("Cu4", 3, "score", checkpoint="mp20", wanted=[1, 2])) == [2]


def test_a_search_goes_on_without_starts_that_could_not_be_made(monkeypatch):
    bad = {seed_of(0, 1), *(seed_of(seed_of(0, 1), k) for k in range(1, 9))}
    monkeypatch.setattr("asegen.generation.too_close", lambda atoms: "touch" if atoms.info.get("seed") in bad else "")
    with pytest.warns(GenerationWarning):
        found = search("Cu4", n=3, method="score", potential=EMT(), checkpoint="mp20", **QUICK)
    assert [row["position"] for row in found.rows] == [0, 2] and found.n == 2
    assert all(set(structure.starts) <= {0, 2} for structure in found.structures)


def test_a_search_without_any_start_says_so(monkeypatch):
    monkeypatch.setattr("asegen.generation.too_close", lambda atoms: "touch")
    with pytest.warns(GenerationWarning), pytest.raises(StabilityError, match="none of the 2 starts of Cu4 could be made"):
        search("Cu4", n=2, method="score", potential=EMT(), checkpoint="mp20", **QUICK)


def test_what_does_not_converge_is_no_structure():
    found = search("Cu4", n=2, potential=EMT(), **QUICK, steps=1)
    assert found.converged == 0 and found.structures == () and found.best is None
    assert all("not converged" in row["reason"] for row in found.rows)


def test_volumes_of_random_starts():
    small, large = (make_starts("Cu4", 3, "random", volumes=v) for v in ((0.9, 1.0), (2.0, 2.5)))
    assert max(a.info["drawn_volume"] for a in small.values()) < 0.6 * min(a.info["drawn_volume"] for a in large.values())
    with pytest.raises(StabilityError, match="volumes"):
        search("Cu4", n=1, potential=EMT(), volumes=(1.0, 0.5))


def test_the_same_structure_is_counted_once():
    fcc, hcp = bulk("Cu"), bulk("Cu", "hcp", a=2.55, c=4.16)
    hcp = hcp.repeat((1, 1, 2))
    four = bulk("Cu", cubic=True)
    assert leaders([four, hcp, fcc, fcc], [0.0004, 0.0002, 0.0, 0.01], processes=1) == [2, 1, 2, 3]
    assert leaders([], []) == []
    assert leaders([fcc, fcc], [0.0, 0.5]) == [0, 1]


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"formula": "Xx2"}, FormulaError, "no element 'Xx'"),
        ({"n": 0}, StabilityError, "n = 0 is not a positive number of starts"),
        ({"method": "magic"}, StabilityError, "'magic' is not one of random, score, prototypes"),
        ({"units": 0}, FormulaError, "units = 0"),
        ({"symmetric_share": 1.5}, StabilityError, "symmetric_share = 1.5 must be between 0 and 1"),
        ({"seed": -1}, StabilityError, "seed = -1"),
        ({"potential": "magic"}, PotentialError, "no potential 'magic'"),
        ({"fmaxx": 1}, StabilityError, "no setting fmaxx"),
        ({"fmax": -1}, StabilityError, "fmax = -1 must be a number above 0"),
        ({"formula": "PoO2", "potential": "7net-0"}, StabilityError, "PoO2: 7net-0 does not know Po"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(options, error, words):
    with pytest.raises(error, match=words):
        search(**{"formula": "Cu4", "potential": EMT(), "n": 1, **options})


def _cli(arguments):
    app = typer.Typer()
    app.command()(command)
    app.command(name="other")(lambda: None)
    return CliRunner().invoke(app, ["search", *map(str, arguments)], env={"COLUMNS": "200"})


def test_command_prints_a_table_or_json(tmp_path, monkeypatch):
    model = potentials.potential(EMT())
    monkeypatch.setattr(potentials, "potential", lambda which: model)
    shown = _cli(["Cu", "-n", 2, "--processes", 1, "--out", tmp_path / "a"])
    assert shown.exit_code == 0, shown.output
    assert "from 2 random starts" in shown.output and "above best" in shown.output and (tmp_path / "a" / "structures.extxyz").exists()
    said = _cli(["Cu", "-n", 2, "--processes", 1, "--json"])
    numbers = json.loads(said.stdout)
    assert numbers["n"] == 2 and numbers["converged"] == 1.0 and numbers["structures"][0]["times"] >= 1


def test_command_says_what_is_wrong():
    wrong = _cli(["Cu4", "--method", "magic", "--json"])
    assert wrong.exit_code == 1 and "'magic' is not one of" in wrong.output
    assert "no element 'Xx'" in _cli(["Xx2", "--json"]).output


def test_a_potential_that_fails_stops_no_search():
    found = search("Xe2", n=2, potential=EMT(), **QUICK)  # EMT has no xenon
    assert found.converged == 0 and all(row["reason"] for row in found.rows) and not found.structures
