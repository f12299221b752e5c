"""The commands from a candidate to a judgement, as people run them."""

import json
import subprocess
import sys

import ase.io
import pytest
from typer.testing import CliRunner

from asegen.calculators import potentials
from asegen.calculators.potentials import potential
from asegen.cli.main import app
from asegen.errors import MissingPackageError

ASEGEN = [sys.executable, "-m", "asegen.cli.main"]


def test_generate_and_relax_lists_polymorphs_by_probability(tmp_path):
    command = [*ASEGEN, "generate", "NaCl", "-n", "4", "--relax", "--processes", "1", "--out", "run"]
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    found = result["polymorphs"]
    assert len(result["crystals"]) == 4 and 2 <= len(found) <= 4 and sum(row["found"] for row in found) == 4
    assert found[0]["spacegroup"] == 225 and found[0]["above_lowest"] == 0 and found[0]["prototype"] == "Fm-3m Na:4a Cl:4b"
    there = [row for row in found if row["trusted"]]
    chances = [row["probability"] for row in there]
    assert chances == sorted(chances, reverse=True) and sum(chances) == pytest.approx(1) and all(row["relaxed"] for row in there)
    assert found[0]["seed"] in {crystal["seed"] for crystal in result["crystals"]}
    written = ase.io.read(tmp_path / "run" / "polymorphs.extxyz", index=":")
    assert [a.info["spacegroup"] for a in written] == [row["spacegroup"] for row in found]
    assert written[0].get_potential_energy() == pytest.approx(found[0]["energy"])
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "Fm-3m (225)" in again.stdout and "polymorphs.extxyz" in again.stdout


def test_a_wrong_potential_is_refused_before_anything_is_generated(tmp_path):
    done = CliRunner().invoke(app, ["generate", "NaCl", "--relax", "--potential", "mace", "--out", str(tmp_path / "run")])
    assert done.exit_code == 1 and not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"needs the package sevenn: pip install 'asegen\[potentials\]'"):
        potential("7net-0")
    assert set(potentials.POTENTIALS) == {"7net-0", "7net-l3i5", "chgnet"}


@pytest.mark.parametrize("command", ["relax", "hull", "phonons", "screen", "search", "export", "collect"])
def test_help_is_quick_and_speaks(command):
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "120"})
    assert done.exit_code == 0 and "Usage" in done.output and "--json" in done.output


@pytest.mark.parametrize("command", [["relax"], ["hull"], ["phonons"], ["screen"], ["export", "--to", "vasp"]])
def test_a_file_that_is_missing_ends_with_a_sentence(command, tmp_path):
    missing = str(tmp_path / "missing.extxyz")
    done = subprocess.run([*ASEGEN, *command, missing], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "does not exist" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
