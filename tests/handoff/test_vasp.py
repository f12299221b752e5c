"""VASP inputs: what the sets say, the same structure back, results joined."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms, FixCartesian, FixSymmetry
from ase.units import GPa
from pymatgen.core import Structure
from pymatgen.io.vasp import Incar, Kpoints

from asegen.errors import HandoffError
from asegen.handoff import collect, export, write_results
from asegen.handoff.provenance import atoms_of, read_row


def same(one, other, tolerance=1e-8):
    """Equal elements, cell and positions (modulo the lattice)."""
    assert (one.numbers == other.numbers).all()
    assert np.allclose(one.cell.array, other.cell.array, atol=tolerance)
    away = (one.positions - other.positions) @ np.linalg.inv(other.cell.array)
    assert np.abs(away - np.rint(away)).max() < tolerance


def test_the_structure_comes_back_with_its_order(perovskite, tmp_path):
    done = export([bulk("Si"), perovskite], tmp_path / "out", "vasp")
    assert done.names == ["0000_Si2", "0001_SrTiO3"] and not done.skipped
    folder = tmp_path / "out" / "0001_SrTiO3"
    row = read_row(folder)
    assert sorted(row["order"]) == [0, 1, 2, 3, 4] and row["order"] != [0, 1, 2, 3, 4]
    written = ase.io.read(folder / "POSCAR", format="vasp")
    same(written, perovskite[row["order"]])
    same(Structure.from_file(folder / "POSCAR").to_ase_atoms(), perovskite[row["order"]])
    same(atoms_of(row), perovskite, 0.0 + 1e-15)
    assert row["info"] == {"seed": 7, "prototype": "221 a b c"} and row["seed"] == 7 and row["formula"] == "SrTiO3"
    assert len(row["sha256"]) == 64 and row["spacegroup"]


def test_files_and_script(perovskite, tmp_path):
    export([perovskite] * 3, tmp_path / "out", "vasp")
    folders = (tmp_path / "out" / "folders.txt").read_text().split()
    assert folders == ["0000_SrTiO3", "0001_SrTiO3", "0002_SrTiO3"]
    assert {p.name for p in (tmp_path / "out" / folders[0]).iterdir()} == {"POSCAR", "INCAR", "KPOINTS", "POTCAR.spec", "asegen.json"}
    script = (tmp_path / "out" / "job.sh").read_text()
    assert "--array=1-3" in script and "POTCAR.spec" in script
    assert "Selective" not in (tmp_path / "out" / folders[0] / "POSCAR").read_text()


def test_moments_u_and_k_points(tmp_path):
    from ase import Atoms

    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    atoms = Atoms("LaFeO3", scaled_positions=sites, cell=[3.9] * 3, pbc=True)
    done = export(atoms, tmp_path / "a", "vasp")
    incar = Incar.from_file(tmp_path / "a" / "0000_FeLaO3" / "INCAR") if (tmp_path / "a" / "0000_FeLaO3").exists() else None
    incar = incar or Incar.from_file(tmp_path / "a" / done.names[0] / "INCAR")
    assert incar["LDAU"] and max(incar["LDAUU"]) == pytest.approx(5.3) and max(incar["MAGMOM"]) == 5.0 and incar["ENCUT"] == 520
    assert Kpoints.from_file(tmp_path / "a" / done.names[0] / "KPOINTS").kpts[0] == (6, 6, 6)
    assert done.energy_scales == ["vasp:PBE+U:mp-relax"]
    atoms.set_initial_magnetic_moments([0, -3, 0, 0, 0])
    own = export(atoms, tmp_path / "b", "vasp", vasp_options={"set": "mp-scan", "settings": {"encut": 600}})
    incar = Incar.from_file(tmp_path / "b" / own.names[0] / "INCAR")
    assert min(incar["MAGMOM"]) == -3 and incar["METAGGA"].lower() == "r2scan" and incar["ENCUT"] == 600
    assert not (tmp_path / "b" / own.names[0] / "KPOINTS").exists() and incar["KSPACING"] > 0
    assert own.energy_scales == ["vasp:r2SCAN:mp-scan:ENCUT=600"]


@pytest.mark.parametrize(("name", "tag"), [("matpes", "GGA"), ("matpes-r2scan", "METAGGA")])
def test_static_sets(name, tag, tmp_path):
    done = export(bulk("Si"), tmp_path / "out", "vasp", vasp_options={"set": name})
    incar = Incar.from_file(tmp_path / "out" / "0000_Si2" / "INCAR")
    assert tag in incar and incar["NSW"] == 0
    assert read_row(tmp_path / "out" / "0000_Si2")["calculation"] == "static" and done.energy_scales[0].startswith("vasp:")


def test_held_atoms_are_held_and_symmetry_holds_none(perovskite, tmp_path):
    perovskite.set_constraint(FixAtoms([1]))
    export(perovskite, tmp_path / "out", "vasp")
    back = ase.io.read(tmp_path / "out" / "0000_SrTiO3" / "POSCAR", format="vasp")
    order = read_row(tmp_path / "out" / "0000_SrTiO3")["order"]
    assert [order[i] for i in back.constraints[0].index] == [1]
    si = bulk("Si")
    si.set_constraint(FixSymmetry(si))
    export(si, tmp_path / "si", "vasp")
    assert "Selective" not in (tmp_path / "si" / "0000_Si2" / "POSCAR").read_text()
    si.set_constraint(FixCartesian([0], (True, False, False)))
    with pytest.raises(HandoffError, match="use FixAtoms"):
        export(si, tmp_path / "bad", "vasp")
    assert not (tmp_path / "bad").exists()


def test_left_handed_cells_become_right_handed(crystal, tmp_path):
    left = crystal.copy()
    left.set_cell(crystal.cell.array[[1, 0, 2]])
    export(left, tmp_path / "out", "vasp")
    back = ase.io.read(tmp_path / "out" / "0000_SrTiO3" / "POSCAR", format="vasp")
    assert np.linalg.det(back.cell.array) > 0
    order = read_row(tmp_path / "out" / "0000_SrTiO3")["order"]
    away = (back.positions - left.positions[order]) @ np.linalg.inv(left.cell.array)
    assert np.abs(away - np.rint(away)).max() < 1e-8


def test_no_potcars_here(tmp_path, monkeypatch):
    from pymatgen.core import SETTINGS

    monkeypatch.delitem(SETTINGS, "PMG_VASP_PSP_DIR", raising=False)
    with pytest.raises(HandoffError, match="PMG_VASP_PSP_DIR"):
        export(bulk("Si"), tmp_path / "out", "vasp", vasp_options={"potcar": True})
    assert not list(tmp_path.iterdir())
    with pytest.raises(HandoffError, match="unknown set"):
        export(bulk("Si"), tmp_path / "out", "vasp", vasp_options={"set": "mit"})


_POTCAR = """ PAW_PBE Si 05Jan2001
 4.00000000000000
 parameters from PSCTR are:
   VRHFIN =Si: s2p2
   LEXCH  = PE
   TITEL  = PAW_PBE Si 05Jan2001
   POMASS =   28.085; ZVAL   =    4.000    mass and valenz
   ENMAX  =  245.345; ENMIN  =  184.009 eV

END of PSCTR-controll parameters
 local part
  98.2 1.0 2.0 3.0
 End of Dataset
"""


def test_potcars_of_the_user(tmp_path, monkeypatch):
    from pymatgen.core import SETTINGS

    place = tmp_path / "psp" / "POT_GGA_PAW_PBE"
    place.mkdir(parents=True)
    (place / "POTCAR.Si").write_text(_POTCAR)
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", str(tmp_path / "psp"))
    done = export(bulk("Si"), tmp_path / "out", "vasp", vasp_options={"potcar": True})
    folder = tmp_path / "out" / "0000_Si2"
    assert "PAW_PBE Si" in (folder / "POTCAR").read_text() and not (folder / "POTCAR.spec").exists()
    assert any("not known to pymatgen" in remark for remark in done.remarks)  # these few lines are no real one


def test_an_element_without_potcar_is_left_out_and_named(tmp_path):
    done = export([bulk("Si"), bulk("Po")], tmp_path / "out", "vasp")
    assert done.names == ["0000_Si2"] and done.skipped[0][1].startswith("0001_Po: VASP's set mp-relax has no input")


def test_warnings_become_remarks(tmp_path, recwarn):
    done = export([bulk("Yb"), bulk("Si")], tmp_path / "out", "vasp", vasp_options={"settings": {"IVDW": 99}})
    assert not [w for w in recwarn if "pymatgen" in str(w.filename)]
    assert {"0000_Yb", "0001_Si2"} <= {remark.partition(": ")[0] for remark in done.remarks}
    assert not [w for w in recwarn if "ISMEAR" in str(w.message)]
    assert any("Yb_2" in remark for remark in done.remarks) and any("IVDW" in remark for remark in done.remarks)


def test_tags_that_nobody_knows_are_refused(tmp_path):
    with pytest.raises(HandoffError, match=r"ENCUTT is no INCAR tag that pymatgen knows; did you mean ENCUT\?"):
        export(bulk("Si"), tmp_path / "out", "vasp", vasp_options={"settings": {"encutt": 3}})
    assert not list(tmp_path.iterdir())


def test_the_smearing_of_metals_is_said_once(tmp_path):
    crystals = [bulk("Cu"), bulk("Si"), bulk("Al")]
    done = export(crystals, tmp_path / "out", "vasp")
    (remark,) = done.remarks
    assert "ISMEAR = -5" in remark and "metals here: 2" in remark and "--setting ISMEAR=1 --setting SIGMA=0.1" in remark
    assert Incar.from_file(tmp_path / "out" / "0000_Cu" / "INCAR")["ISMEAR"] == -5
    other = export(crystals, tmp_path / "b", "vasp", vasp_options={"settings": {"ISMEAR": 1, "SIGMA": 0.1}})
    assert not other.remarks and other.energy_scales == ["vasp:PBE:mp-relax:ISMEAR=1,SIGMA=0.1"]


def test_a_crashed_run_is_not_one_to_come(tmp_path):
    export([bulk("Si"), bulk("Ge")], tmp_path / "out", "vasp")
    (tmp_path / "out" / "0001_Ge2" / "OUTCAR").write_text("begun")
    first, second = collect(tmp_path / "out")
    assert first.reason.startswith("not run yet") and second.reason.startswith("VASP has crashed or was stopped, see OUTCAR")


def test_results_are_joined_and_reordered(perovskite, write_vasprun, tmp_path):
    out = tmp_path / "out"
    export([perovskite, bulk("Si"), bulk("Ge"), bulk("NaCl", "rocksalt", a=5.6)], out, "vasp")
    stress = np.diag([10.0, 20.0, 30.0])
    write_vasprun(out / "0000_SrTiO3", -40.0, lambda a: a.numbers[:, None] * [0.01, 0, 0], stress, nsw=99)
    text = (out / "0000_SrTiO3" / "vasprun.xml").read_text()
    (out / "0001_Si2" / "vasprun.xml").write_text(text[: len(text) // 2])
    (out / "0003_NaCl" / "vasprun.xml").write_text(text)
    first, second, third, fourth = collect(out)
    assert first.finished and first.converged and not first.reason and first.version == "VASP 6.4.2"
    assert first.energy == -40.0 and first.energy_per_atom == -8.0 and first.max_force == pytest.approx(0.38)
    assert first.stress[:3] == pytest.approx([-1 * GPa, -2 * GPa, -3 * GPa])
    assert (first.atoms.numbers == perovskite.numbers).all()
    assert np.allclose(first.atoms.get_forces()[:, 0], 0.01 * perovskite.numbers)
    assert np.allclose(first.atoms.positions, perovskite.positions, atol=1e-6)
    assert first.row()["seed"] == 7 and first.energy_scale == "vasp:PBE:mp-relax"
    assert not second.finished and "stopped or has crashed" in second.reason and second.energy is None
    assert not third.finished and "not run yet" in third.reason
    assert not fourth.finished and "another crystal" in fourth.reason
    json.dumps([one.row() for one in (first, second, third, fourth)], allow_nan=False)
    assert write_results([first, second, third], tmp_path / "done.extxyz") == 1
    back = ase.io.read(tmp_path / "done.extxyz", index=":")
    assert len(back) == 1 and back[0].get_potential_energy() == -40.0 and back[0].info["prototype"] == "221 a b c"
    assert np.allclose(back[0].get_forces(), first.atoms.get_forces()) and back[0].info["energy_scale"] == "vasp:PBE:mp-relax"
    write_results([first], tmp_path / "done.csv")
    assert "energy_per_atom" in (tmp_path / "done.csv").read_text()


def test_a_relaxation_out_of_steps_has_not_converged(write_vasprun, tmp_path):
    export(bulk("Si"), tmp_path / "out", "vasp")
    write_vasprun(tmp_path / "out" / "0000_Si2", -10.0, lambda a: np.zeros((2, 3)), nsw=1)
    text = (tmp_path / "out" / "0000_Si2" / "vasprun.xml").read_text()
    start, end = text.index("<calculation>"), text.index("</calculation>") + len("</calculation>")
    text = (text[:end] + text[start:end] + text[end:]).replace('name="NSW">1<', 'name="NSW">2<')
    (tmp_path / "out" / "0000_Si2" / "vasprun.xml").write_text(text)
    (one,) = collect(tmp_path / "out")
    assert one.finished and not one.converged and one.reason == "the ions did not converge" and one.energy == -10.0
