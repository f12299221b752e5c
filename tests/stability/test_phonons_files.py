"""Phonons on disk and on the command line."""

from __future__ import annotations

import json
import sys

import ase.io
import numpy as np
import phonopy
import pytest
import typer
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from asegen.calculators.potentials import potential
from asegen.cli.phonons import phonons as command
from asegen.datasets.readers import read_rows
from asegen.errors import StabilityError
from asegen.stability.phonon_follow import fix, follow
from asegen.stability.phonon_plots import bands, write_phonons
from asegen.stability.phonon_runs import Study, study
from asegen.stability.phonons import phonons


@pytest.fixture(scope="module")
def unstable():
    return phonons(bulk("Cu", "bcc", a=2.8556), EMT(), supercell=(2, 2, 2), mesh=(8, 8, 8))


def test_files(unstable, tmp_path):
    written = write_phonons(unstable, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in written)
    assert (tmp_path / "bands.png").read_bytes().startswith(b"\x89PNG")
    again = phonopy.load(tmp_path / "phonopy_params.yaml", log_level=0)
    q_points = [unstable.q_point, (0.1, 0.2, 0.3)]
    np.testing.assert_allclose(again.run_qpoints(q_points).frequencies, unstable.frequencies(q_points), atol=1e-4)
    assert json.loads((tmp_path / "phonons.json").read_text())["q_label"] == "N"
    arrays = np.load(tmp_path / "bands.npz")
    assert arrays["frequencies"].shape == (len(arrays["q_points"]), 3)
    assert len(ase.io.read(tmp_path / "primitive.extxyz")) == 1


def test_bands(unstable):
    found = bands(unstable)
    assert np.trapezoid(found.density, found.grid) == pytest.approx(3, rel=1e-3)
    assert found.grid[0] < unstable.interpolated_min
    assert found.ticks[0] == (0.0, "Γ") and found.ends[-1] == len(found.q_points) - 1
    # cubic: the three translations at Γ, the imaginary mode at N
    at_n = int(np.argmin(np.abs(found.distances - dict((label.split("|")[0], x) for x, label in found.ticks)["N"])))
    assert found.frequencies[at_n].min() == pytest.approx(unstable.min_frequency, abs=1e-3)
    assert (np.diff(found.distances) >= -1e-12).all()


@pytest.fixture
def several(tmp_path):
    close = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.2]], cell=[4] * 3, pbc=True)
    ase.io.write(tmp_path / "several.extxyz", [bulk("Cu", a=3.6), close, bulk("Cu", "bcc", a=2.8), bulk("Si")])
    return tmp_path / "several.extxyz"


def test_each_gets_a_result_or_a_reason(several, tmp_path):
    plan = Study(potential(EMT()), fix=True, settings={"supercell": (2, 2, 2), "mesh": (6, 6, 6)})
    out = tmp_path / "out"
    records = list(study(read_rows(several), plan, out))
    assert [record["position"] for record in records] == [0, 1, 2, 3]
    assert [record.get("stable") for record in records] == [True, None, False, None]
    assert "0.20 Å apart" in records[1]["reason"]
    assert records[2]["fixed"]["stable"] and records[2]["fixed"]["steps"][0]["spacegroup"] == 194
    assert len(list(out.glob("*/phonons.json"))) == 2
    assert len(list(out.glob("*/fixed/bands.png"))) == 1
    tried = ase.io.read(next(out.glob("*/tried.extxyz")), index=":")
    assert tried[0].info["spacegroup"] == 194
    # again: from disk, the same
    assert [r for r in study(read_rows(several), plan, out) if "stable" in r] == [r for r in records if "stable" in r]
    other = Study(potential(EMT()), settings={"supercell": (2, 2, 2)})
    with pytest.raises(StabilityError, match="other settings"):
        list(study(read_rows(several), other, out))


@pytest.fixture
def run():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_command_says_in_one_sentence(run, several, tmp_path):
    for words, expected in (
        ([several, "--supercell", "2"], "three whole numbers"),
        ([several, "--potential", "nothing"], "no potential"),
        ([several, "--potential", "chgnet"], "too rough"),
        ([several, "--at", "R"], "needs --fix"),
        ([tmp_path / "none.cif"], "does not exist"),
    ):
        result = run(*words)
        assert result.exit_code == 1
        assert expected in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_point_that_the_path_has_not_is_refused_before_any_force(run, several, tmp_path, unstable, monkeypatch):
    # the package has a function of the module's name
    monkeypatch.setattr(sys.modules[phonons.__module__], "forces_of", lambda *arguments: pytest.fail("forces were computed"))
    plan = Study(potential(EMT()), relax=False, fix=True, at="Z", settings={"supercell": (2, 2, 2)})
    first, *_ = study(read_rows(several), plan)
    assert first["reason"] == "the path of Fm-3m has no point Z; it has K, L, U, W, W_2, X, Γ"
    with pytest.raises(StabilityError, match="has no point Z"):
        fix(bulk("Cu"), EMT(), at="Z")
    with pytest.raises(StabilityError, match="Im-3m has no point Z; it has H, N, P, Γ"):
        follow(unstable, at="Z")


def test_command_fails_where_no_crystal_has_phonons(run, tmp_path):
    close = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.2]], cell=[4] * 3, pbc=True)
    ase.io.write(tmp_path / "close.extxyz", [close, close])
    result = run(tmp_path / "close.extxyz", "--json", "--processes", 1)
    assert result.exit_code == 1
    assert [(row["position"], "0.20 Å apart" in row["reason"]) for row in json.loads(result.stdout)] == [(0, True), (1, True)]
    assert "no phonons" in run(tmp_path / "close.extxyz").stdout
    assert run(tmp_path / "close.extxyz", "--processes", 0).exit_code == 2


def test_command_prints_json(run, tmp_path):
    pytest.importorskip("sevenn")
    ase.io.write(tmp_path / "two.extxyz", [bulk("NaCl", "cesiumchloride", a=3.4), bulk("Po", "sc", a=3.3)])
    result = run(tmp_path / "two.extxyz", "--json", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    first, second = json.loads(result.stdout)
    assert [(row["position"], row["name"]) for row in (first, second)] == [(0, "two.extxyz #1"), (1, "two.extxyz #2")]
    assert first["reason"] is None
    assert {"min_frequency", "q_point", "q_label", "stable", "protocol", "supercell", "displacement", "mesh", "potential"} <= set(first)
    assert first["relaxation"]["calls"] > 0
    assert "does not know Po" in second["reason"]
    assert (tmp_path / "out" / "two.extxyz-1" / "bands.png").exists()
