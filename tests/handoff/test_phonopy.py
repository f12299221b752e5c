"""Displaced supercells out, forces back."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from asegen.errors import HandoffError
from asegen.handoff import collect, displaced_supercells, export, read_forces
from asegen.handoff.provenance import atoms_of, read_row

phonopy = pytest.importorskip("phonopy")


@pytest.fixture
def copper(tmp_path):
    export(bulk("Cu", cubic=True), tmp_path / "out", "phonopy", min_length=7.0)
    return tmp_path / "out"


def forces_on(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_forces()


def test_files(copper):
    folder = copper / "0000_Cu4"
    assert {p.name for p in folder.iterdir()} == {"phonopy_disp.yaml", "asegen.json", "disp-001"}
    assert (copper / "folders.txt").read_text() == "0000_Cu4/disp-001\n"
    row = read_row(folder)
    assert row["supercell"] == [2, 2, 2] and row["supercell_atoms"] == 32 and row["displacements"] == ["disp-001"]
    incar = (folder / "disp-001" / "INCAR").read_text()
    assert "NSW = 0" in incar and "EDIFF = 1e-08" in incar and "ISMEAR = 0" in incar
    written = ase.io.read(folder / "disp-001" / "POSCAR", format="vasp")
    (supercell,) = displaced_supercells(folder)
    one = read_row(folder / "disp-001")
    assert np.allclose(written.positions, supercell[one["order"]].positions) and np.allclose(atoms_of(one).positions, supercell.positions)
    perfect = bulk("Cu", cubic=True).repeat(2)
    # one atom is 0.01 Å from its place, the others are on theirs
    away = np.linalg.norm(supercell.positions[:, None] - perfect.positions, axis=-1).min(1)
    assert sorted(np.round(away, 6))[-2:] == pytest.approx([0, 0.01], abs=1e-5)


def test_forces_of_any_calculator(copper):
    folder = copper / "0000_Cu4"
    phonon = read_forces(folder, [forces_on(atoms) for atoms in displaced_supercells(folder)])
    assert (folder / "FORCE_SETS").read_text().split()[0] == "32"
    phonon.run_qpoints([[0, 0, 0], [0.5, 0.5, 0]])
    acoustic, boundary = phonon.qpoints.frequencies if hasattr(phonon, "qpoints") else phonon.get_qpoints_dict()["frequencies"]
    assert abs(acoustic).max() < 0.05 and boundary.min() > 2
    with pytest.raises(HandoffError, match="do not fit"):
        read_forces(folder, [np.zeros((31, 3))])
    with pytest.raises(HandoffError, match="not a finite number"):
        read_forces(folder, [np.full((32, 3), np.nan)])


def test_runs_of_vasp_give_the_same_force_sets(perovskite, write_vasprun, tmp_path):
    """The order of VASP's files is not that of the supercell."""
    crystal = perovskite.copy()
    crystal.numbers[:] = [29, 79, 29, 13, 29]  # elements that the calculator knows, in mixed order
    crystal.cell[:] = np.diag([4.1, 4.15, 4.2])
    crystal.positions = perovskite.get_scaled_positions() @ crystal.cell.array
    out = tmp_path / "out"
    (name,) = export(crystal, out, "phonopy", min_length=4.0).names
    (before,) = collect(out)
    assert not before.finished and "not run yet" in before.reason and before.calculation == "phonons"
    for run in read_row(out / name)["displacements"]:
        write_vasprun(out / name / run, -1.0, forces_on)
    (after,) = collect(out)
    assert after.finished and after.converged and after.energy is None and after.provenance["seed"] == 7
    text = (out / name / "FORCE_SETS").read_text()
    read_forces(out / name, [forces_on(atoms) for atoms in displaced_supercells(out / name)])
    ours, theirs = (
        phonopy.file_IO.parse_FORCE_SETS_from_strings(t)["first_atoms"] for t in (text, (out / name / "FORCE_SETS").read_text())
    )
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one["forces"], other["forces"], atol=1e-6)
    assert np.abs(ours[0]["forces"]).max() > 0.1


def test_espresso_supercells(tmp_path):
    place = tmp_path / "upf"
    place.mkdir()
    header = (
        '<PP_HEADER element="Si" pseudo_type="PAW" relativistic="scalar" functional="PBE" z_valence="4" wfc_cutoff="30" rho_cutoff="0"/>'
    )
    (place / "Si.UPF").write_text(header)
    options = {"pseudo_dir": place}
    export(bulk("Si"), tmp_path / "out", "phonopy", calculator="espresso", min_length=7.0, espresso_options=options)
    folder = tmp_path / "out" / "0000_Si2" / "disp-001"
    back = ase.io.read(folder / "espresso.pwi")
    assert np.allclose(back.positions, displaced_supercells(folder.parent)[0].positions, atol=1e-9)
    text = (folder / "espresso.pwi").read_text()
    assert "'scf'" in text and "'../../pseudo'" in text and "conv_thr         = 1e-11" in text
    assert (folder / "../../pseudo/Si.UPF").resolve().is_file()


def test_bad_requests(tmp_path, copper):
    with pytest.raises(HandoffError, match="displacement of 2 Å"):
        export(bulk("Cu"), tmp_path / "a", "phonopy", displacement=2)
    with pytest.raises(HandoffError, match=r"phonopy_disp\.yaml cannot be read"):
        read_forces(tmp_path)
    row = (copper / "0000_Cu4" / "asegen.json").read_text().replace('"disp-001"', '"disp-001", "disp-002"')
    (copper / "0000_Cu4" / "asegen.json").write_text(row)
    with pytest.raises(HandoffError, match="no folder of displacements"):
        read_forces(copper / "0000_Cu4")
