"""Inputs of pw.x, and the real program where it is installed."""

import shutil
import subprocess

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io.espresso import read_fortran_namelist

from asegen import generate
from asegen.errors import HandoffError, MissingPackageError
from asegen.handoff import collect, export, run_espresso, write_results
from asegen.handoff.provenance import read_row

needs_pw = pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed; .ci/install-espresso does that")
HEADER = """<PP_HEADER element="{}" pseudo_type="PAW" relativistic="scalar" functional="PBE" z_valence="{}" wfc_cutoff="30"
 rho_cutoff="120"/>
"""


def system_of(folder):
    """The namelist of the crystal."""
    with open(folder / "espresso.pwi") as stream:
        return dict(read_fortran_namelist(stream)[0]["system"])


@pytest.fixture
def pseudos(tmp_path):
    """Headers alone: enough to write inputs."""
    place = tmp_path / "upf"
    place.mkdir()
    for element, valence in (("Si", 4.0), ("Fe", 16.0), ("O", 6.0), ("Sr", 10.0), ("Ti", 12.0)):
        (place / f"{element}.UPF").write_text(HEADER.format(element, valence))
    return {"pseudo_dir": place}


def test_the_structure_comes_back(perovskite, pseudos, tmp_path):
    perovskite.set_constraint(FixAtoms([0, 3]))
    export(perovskite, tmp_path / "out", "espresso", espresso_options=pseudos)
    folder = tmp_path / "out" / "0000_SrTiO3"
    back = ase.io.read(folder / "espresso.pwi")
    assert (back.numbers == perovskite.numbers).all() and np.allclose(back.cell.array, perovskite.cell.array, atol=1e-9)
    assert np.allclose(back.positions, perovskite.positions, atol=1e-9)
    assert list(back.constraints[0].index) == [0, 3] and (folder / "espresso.pwi").read_text().count(" 0 0 0\n") == 3
    row = read_row(folder)
    assert row["order"] == [0, 1, 2, 3, 4] and row["calculation"] == "vc-relax" and row["ecutwfc"] == 30 and row["nspin"] == 1
    assert set(row["pseudopotentials"]) == {"Sr", "Ti", "O"} and row["energy_scale"].startswith("espresso:PBE:")
    assert {p.name for p in (tmp_path / "out" / "pseudo").iterdir()} == {"Sr.UPF", "Ti.UPF", "O.UPF"}
    assert "pseudo_dir       = '../pseudo'" in (folder / "espresso.pwi").read_text()


def test_magnets_start_magnetic(pseudos, tmp_path):
    iron = bulk("Fe", cubic=True)
    iron.set_initial_magnetic_moments(None)  # those that ASE gives it
    export(iron, tmp_path / "a", "espresso", espresso_options=pseudos)
    system = system_of(tmp_path / "a" / "0000_Fe2")
    assert system["nspin"] == 2 and system["starting_magnetization(1)"] == 0.5
    iron.set_initial_magnetic_moments([4, -4])
    insulator = {**pseudos, "calculation": "scf", "smearing": None, "settings": {"nbnd": 40}}
    export(iron, tmp_path / "b", "espresso", espresso_options=insulator)
    system = system_of(tmp_path / "b" / "0000_Fe2")
    assert system["starting_magnetization(1)"] == 0.25 and system["starting_magnetization(2)"] == -0.25
    assert system["occupations"] == "fixed" and "degauss" not in system and system["nbnd"] == 40
    assert (ase.io.read(tmp_path / "b" / "0000_Fe2" / "espresso.pwi").numbers == 26).all()
    iron.set_initial_magnetic_moments(None)
    export(iron, tmp_path / "c", "espresso", espresso_options={**pseudos, "magnetic": False})
    assert "nspin" not in system_of(tmp_path / "c" / "0000_Fe2")


def test_elements_without_pseudopotential_are_named_and_the_others_written(perovskite, pseudos, tmp_path):
    strange = Atoms("SiXe", positions=[[0, 0, 0], [3, 3, 3]], cell=[6] * 3, pbc=True)
    with pytest.raises(HandoffError, match=r"0000_SiXe: no PBE pseudopotential for Xe in .*--pseudo-dir"):
        export(strange, tmp_path / "a", "espresso", espresso_options=pseudos)
    assert not (tmp_path / "a").exists()
    done = export([bulk("Cu"), perovskite], tmp_path / "b", "espresso", espresso_options=pseudos)
    assert done.names == ["0001_SrTiO3"] and [name for name, _ in done.skipped] == ["0000_Cu"]
    assert {p.name for p in (tmp_path / "b").iterdir()} == {"0001_SrTiO3", "pseudo", "folders.txt", "job.sh", "asegen-export.json"}


def test_runs_that_went_wrong_are_listed(pseudos, tmp_path):
    out = tmp_path / "out"
    export([bulk("Si")] * 5, out, "espresso", espresso_options=pseudos)
    start = "     Program PWSCF v.6.7MaX starts on\n"
    (out / "0001_Si2" / "espresso.pwo").write_text(start + " %%%%\n     Error in routine cdiaghg (3):\n     S matrix not positive\n %%%%\n")
    (out / "0002_Si2" / "espresso.pwo").write_text(start + "  iteration # 3\n")
    (out / "0003_Si2" / "espresso.pwo").write_text(start + "  convergence NOT achieved after 100 iterations\n   JOB DONE.\n")
    (out / "0004_Si2" / "asegen.json").write_text("{")
    found = collect(out)
    reasons = {one.folder: one.reason for one in found}
    assert "not run yet" in reasons["0000_Si2"] and reasons["0001_Si2"] == "pw.x stopped: S matrix not positive"
    assert "has no end" in reasons["0002_Si2"] and reasons["0003_Si2"] == "the electrons did not converge"
    assert "asegen.json cannot be read" in reasons["0004_Si2"] and not any(one.converged for one in found)


def test_crashes_without_an_output_are_told_from_runs_to_come(pseudos, tmp_path):
    out = tmp_path / "out"
    export([bulk("Si")] * 4, out, "espresso", espresso_options=pseudos)
    text = " %%%%%%\n     task #         0\n     from readpp : error #         1\n     file ../pseudo/Si.UPF   not found\n %%%%%%\n"
    (out / "0000_Si2" / "CRASH").write_text(text)
    (out / "0001_Si2" / "input_tmp.in").write_text("")
    (out / "0002_Si2" / "CRASH").write_text("")
    reasons = [one.reason for one in collect(out)]
    assert reasons[0] == "pw.x has crashed: file ../pseudo/Si.UPF not found; there is no espresso.pwo"
    assert "was begun" in reasons[1] and "has crashed, was stopped" in reasons[1] and "does not say why" in reasons[2]
    assert reasons[3] == "not run yet: there is no espresso.pwo"


def test_the_script_adds_what_the_program_reads_and_writes(pseudos, tmp_path):
    out = tmp_path / "out"
    export(bulk("Si"), out, "espresso", espresso_options=pseudos)
    environment = {"COMMAND": "echo program", "PATH": "/usr/bin:/bin"}
    said = subprocess.run(["bash", "job.sh"], cwd=out, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert (out / "0000_Si2" / "espresso.pwo").read_text() == "program -in espresso.pwi\n"
    assert "COMMAND=${COMMAND:-mpirun pw.x}" in (out / "job.sh").read_text()


def test_a_missing_program_and_a_missing_input(pseudos, tmp_path):
    export(bulk("Si"), tmp_path / "out", "espresso", espresso_options=pseudos)
    with pytest.raises(MissingPackageError, match="apt-get install quantum-espresso"):
        run_espresso(tmp_path / "out" / "0000_Si2", "no-such-pw.x -nk 2")
    with pytest.raises(HandoffError, match="--to espresso"):
        run_espresso(tmp_path)


@needs_pw
def test_generated_silicon_is_relaxed_to_diamond(tmp_path):
    """From the generator to the energy of another code and back."""
    (atoms,) = generate("Si2", n=1, seed=0)
    small = {"ecutwfc": 16, "ecutrho": 64, "kspacing": 0.7, "pseudo_dir": "/usr/share/espresso/pseudo"}
    export(atoms, tmp_path / "out", "espresso", espresso_options=small)
    outcome = run_espresso(tmp_path / "out" / "0000_Si2", "pw.x", timeout=120)
    assert outcome.finished and outcome.converged, outcome.reason
    (one,) = collect(tmp_path / "out")
    assert one.version.startswith("Quantum ESPRESSO") and one.provenance["seed"] == atoms.info["seed"]
    assert one.energy == 2 * one.energy_per_atom < -200 and one.max_force < 0.05 and abs(np.array(one.stress)).max() < 0.01
    # eight atoms in the cubic cell, a = 5.47 Å
    assert (4 * one.atoms.get_volume()) ** (1 / 3) == pytest.approx(5.47, abs=0.08)
    assert one.atoms.get_distance(0, 1, mic=True) == pytest.approx(5.47 * np.sqrt(3) / 4, abs=0.05)
    assert not (tmp_path / "out" / "0000_Si2" / "scratch").exists()
    write_results([one], tmp_path / "si.extxyz")
    assert ase.io.read(tmp_path / "si.extxyz").get_potential_energy() == pytest.approx(one.energy)


@needs_pw
def test_one_energy_of_silicon_carbide_and_a_crash(tmp_path):
    sic = bulk("SiC", "zincblende", a=4.38)
    small = {"ecutwfc": 16, "ecutrho": 64, "kspacing": 1.0, "calculation": "scf", "pseudo_dir": "/usr/share/espresso/pseudo"}
    names = export([sic, sic], tmp_path / "out", "espresso", espresso_options=small).names
    broken = tmp_path / "out" / names[1] / "espresso.pwi"
    broken.write_text(broken.read_text().replace("'cold'", "'lukewarm'"))
    for name in names:
        run_espresso(tmp_path / "out" / name)
    good, bad = collect(tmp_path / "out")
    assert good.converged and good.calculation == "scf" and good.energy < -250 and len(good.stress) == 6
    assert np.array_equal(good.atoms.positions, sic.positions) and np.array_equal(good.atoms.cell.array, sic.cell.array)
    assert not bad.finished and "pw.x stopped" in bad.reason
