"""The folder of an export, what it is made from, and the commands."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
import typer
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from typer.testing import CliRunner

from asegen.cli import export as commands
from asegen.errors import DataError, HandoffError
from asegen.handoff import collect, export
from asegen.handoff.provenance import read_row

app = typer.Typer()
app.command()(commands.export)
app.command()(commands.collect)


def run(*arguments, code=0):
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == code, (done.output, done.exception)
    return done


@pytest.fixture
def file(tmp_path, perovskite):
    crystals = [perovskite, bulk("Si"), Atoms("H2", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4] * 3, pbc=True), bulk("Cu")]
    crystals[1].info["material_id"] = "mine"
    crystals[3].set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "structures.extxyz", crystals)
    return tmp_path / "structures.extxyz"


def test_text_and_held_atoms_of_a_file_go_along(file, tmp_path):
    done = export(file, tmp_path / "out")
    assert done.names == ["0000_SrTiO3", "0001_Si2", "0003_Cu"]
    assert done.skipped == [("0002_H2", "0002_H2 has atoms 0.10 Å apart, closer than 0.5 Å; relax or drop it first")]
    assert read_row(tmp_path / "out" / "0000_SrTiO3")["prototype"] == "221 a b c"
    assert read_row(tmp_path / "out" / "0001_Si2")["id"] == "mine"
    assert "Selective" in (tmp_path / "out" / "0003_Cu" / "POSCAR").read_text()
    assert export(tmp_path, tmp_path / "two", only=[3, 0], n=1).names == ["0003_Cu"]


def test_other_files_of_crystals(tmp_path):
    ase.io.write(tmp_path / "a.cif", bulk("NaCl", "rocksalt", a=5.6))
    assert export(tmp_path / "a.cif", tmp_path / "out").names == ["0000_NaCl"]
    with pytest.raises(DataError, match="does not exist"):
        export(tmp_path / "no.extxyz", tmp_path / "b")
    (tmp_path / "bad.extxyz").write_text("two\nmore\n")
    with pytest.raises(DataError, match="cannot be read"):
        export(tmp_path / "bad.extxyz", tmp_path / "b")
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(HandoffError, match="no crystal to export"):
        export(tmp_path / "empty.extxyz", tmp_path / "b")


def test_requests_that_make_no_sense(tmp_path):
    with pytest.raises(HandoffError, match="jobflow"):
        export(bulk("Si"), tmp_path / "out", "siesta")
    with pytest.raises(HandoffError, match="no crystal 3"):
        export(bulk("Si"), tmp_path / "out", only=[3])
    with pytest.raises(HandoffError, match="unknown calculator"):
        export(bulk("Si"), tmp_path / "out", "phonopy", calculator="emt")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(HandoffError, match="is a file"):
        export(bulk("Si"), tmp_path / "out")
    for folder, words in ((tmp_path / "no", "is no folder"), (tmp_path, "no calculation of asegen")):
        with pytest.raises(HandoffError, match=words):
            collect(folder)


def test_a_full_folder_is_not_touched_and_overwriting_spares_what_is_not_ours(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export([bulk("Si"), bulk("Cu")], out)  # an empty folder is as good as none
    (out / "notes.txt").write_text("mine")
    before = (out / "0000_Si2" / "POSCAR").read_text()
    with pytest.raises(HandoffError, match="--overwrite"):
        export(bulk("Ge"), out)
    assert (out / "0000_Si2" / "POSCAR").read_text() == before
    export(bulk("Ge"), out, "vasp", overwrite=True)
    assert {p.name for p in out.iterdir()} == {"0000_Ge2", "notes.txt", "folders.txt", "job.sh", "asegen-export.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("target", ["vasp", "espresso", "phonopy", "listing"])
def test_a_full_disk_leaves_nothing(target, tmp_path, monkeypatch):
    place = tmp_path / "upf"
    place.mkdir()
    header = (
        '<PP_HEADER element="Si" pseudo_type="PAW" relativistic="scalar" functional="PBE" z_valence="4" wfc_cutoff="30" rho_cutoff="0"/>'
    )
    (place / "Si.UPF").write_text(header)
    wanted = {"vasp": "asegen.json", "espresso": "asegen.json", "phonopy": "asegen.json", "listing": "asegen-export.json"}[target]
    written = Path.write_text
    count = []

    def full(self, *arguments, **options):
        if self.name == wanted:
            count.append(self)
            if len(count) > (wanted == "asegen.json"):
                raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return written(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        export([bulk("Si")] * 3, tmp_path / "out", target.replace("listing", "vasp"), espresso_options={"pseudo_dir": place})
    assert [p.name for p in tmp_path.iterdir()] == ["upf"]


def test_a_disk_full_inside_pymatgen_is_no_bad_crystal(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pymatgen.io.vasp.inputs.zopen", full)
    with pytest.raises(OSError, match="No space left"):
        export(bulk("Si"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export([bulk("Si")] * 3, tmp_path / "out", progress=stop)
    assert not list(tmp_path.iterdir())


def test_the_script_runs_what_is_listed(tmp_path):
    export([bulk("Si"), bulk("Ge")], tmp_path / "out")
    for name in ("0000_Si2", "0001_Ge2"):
        (tmp_path / "out" / name / "POTCAR").write_text("")
    (tmp_path / "out" / "0001_Ge2" / "vasprun.xml").write_text("</modeling>")
    command = ["bash", "job.sh"]
    said = subprocess.run(
        command, cwd=tmp_path / "out", env={"COMMAND": "pwd > ran", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert "0001_Ge2: finished before" in said.stdout and (tmp_path / "out" / "0000_Si2" / "ran").exists()
    assert not (tmp_path / "out" / "0001_Ge2" / "ran").exists()
    array = {"COMMAND": "true", "PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "1"}
    (tmp_path / "out" / "0000_Si2" / "POTCAR").unlink()
    said = subprocess.run(command, cwd=tmp_path / "out", env=array, capture_output=True, text=True)
    assert said.returncode == 1 and "0000_Si2: no POTCAR" in said.stderr


def test_commands(file, tmp_path, write_vasprun):
    out = tmp_path / "out"
    said = run("export", file, "--to", "vasp", "--out", out, "--only", "0-2", "--setting", "ENCUT=600", "--setting", "ALGO=Normal")
    assert "2 crystals, 2 calculations" in said.output and "left out 0002_H2" in said.output
    assert "ENCUT = 600" in (out / "0001_Si2" / "INCAR").read_text()
    assert "--overwrite" in run("export", file, "--to", "vasp", "--out", out, code=1).output
    again = run("export", file, "--to", "vasp", "--out", out, "--overwrite", "-n", 2, "--json")
    found = json.loads(again.stdout)
    assert found["names"] == ["0000_SrTiO3", "0001_Si2"] and found["skipped"] == [] and found["out"] == str(out)
    write_vasprun(out / "0000_SrTiO3", -40.0, lambda a: a.positions * 0, nsw=99)
    said = run("collect", out, "--out", tmp_path / "done.extxyz")
    assert "-8.00000" in said.output and "1 of 2 converged" in said.output and "not run yet" in said.output
    rows = json.loads(run("collect", out, "--json").stdout)
    assert [row["converged"] for row in rows] == [True, False] and rows[0]["prototype"] == "221 a b c"
    assert len(ase.io.read(tmp_path / "done.extxyz", index=":")) == 1
    for wrong in (["--only", "1-"], ["--only", "a"], ["--setting", "ENCUT"], ["--set", "x"]):
        assert "Traceback" not in run("export", file, "--to", "vasp", "--out", tmp_path / "w", *wrong, code=1).output


def test_options_of_another_target_are_refused(file, tmp_path):
    for target, option, words in (
        ("vasp", ["--ecutwfc", "50"], "--ecutwfc is an option of espresso; --to vasp has none such"),
        ("vasp", ["--min-length", "8"], "--min-length is an option of phonopy"),
        ("espresso", ["--set", "mp-scan"], "--set is an option of vasp; --to espresso"),
        ("phonopy", ["--kspacing", "0.3"], "--kspacing is an option of espresso"),
        ("jobflow", ["--setting", "ENCUT=600"], "--setting is an option of vasp and espresso"),
        ("vasp", ["--setting", "FOO=bar"], "FOO is no INCAR tag"),
    ):
        said = run("export", file, "--to", target, "--out", tmp_path / "w", *option, code=1)
        assert words in said.output and "Traceback" not in said.output
    run("export", file, "--to", "vasp", "--set", "mp-scan", "--out", tmp_path / "w", "-n", 1)


def test_a_relaxed_run_gives_its_relaxed_crystals(file, tmp_path):
    ase.io.write(tmp_path / "polymorphs.extxyz", [bulk("Ge")])
    done = export(tmp_path, tmp_path / "out")
    assert done.names == ["0000_Ge2"]
    (remark,) = done.remarks
    assert "polymorphs.extxyz was read" in remark and "structures.extxyz holds the crystals as generated" in remark
    assert "polymorphs.extxyz was read" in run("export", tmp_path, "--to", "vasp", "--out", tmp_path / "two").stderr
    assert export(file, tmp_path / "three").names[0] == "0000_SrTiO3"  # the file that was asked for


def test_nothing_exported_and_nothing_collected_is_a_failure(tmp_path):
    close = Atoms("H2", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4] * 3, pbc=True)
    ase.io.write(tmp_path / "close.extxyz", [close, close])
    assert "0.10 Å apart" in run("export", tmp_path / "close.extxyz", "--to", "vasp", "--out", tmp_path / "a", code=1).output
    export(bulk("Si"), tmp_path / "b")
    said = run("collect", tmp_path / "b", code=1)
    assert "0 of 1 converged" in said.output and "not run yet" in said.output
    assert json.loads(run("collect", tmp_path / "b", "--json", code=1).stdout)[0]["finished"] is False


def test_help_is_quick():
    code = "import sys, asegen.cli.export; sys.exit(any(m in sys.modules for m in ('torch', 'ase', 'pymatgen', 'phonopy', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
