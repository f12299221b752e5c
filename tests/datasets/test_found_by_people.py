"""Files as they lie around: notes beside crystals, atoms that overlap with their images, energies of whole cells."""

import io
import sqlite3
import warnings
import zipfile

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.spacegroup import crystal
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from asegen.datasets.readers import NoTruth, from_cif, read_rows, read_truth
from asegen.datasets.writers import cif_text, write_crystals
from asegen.errors import DataError
from asegen.metrics import crystal_set

COPPER = cif_text(bulk("Cu"))


def test_notes_and_results_beside_crystals_are_no_crystals(tmp_path):
    poscar = io.StringIO()
    ase.io.write(poscar, bulk("Cu"), format="vasp")
    texts = {
        "1.cif": COPPER, "2.cif": "nonsense", "3.CIF": COPPER, "README.txt": "x", "notes.json": '{"a": 1}', "metrics.csv": "a,b\n1,2\n",
        "log.jsonl": '{"step": 1}\n{"step": 2}\n', "some.jsonl": '{"step": 1}\n{"cell": 1}\n', "sub/4.cif": COPPER, "gen_5": COPPER,
        "inner.zip": "x", "thumbs.db": "x", "POSCAR_notes.md": "x", "POSCAR_1": poscar.getvalue(), "POSCAR.NaCl": poscar.getvalue(),
        "mp-1.poscar": poscar.getvalue(), "x.pt": "x", "results/metrics.json": '{"validity": {"structure": 1.0}, "n": 1}',
        "results/crystals.csv": "name,formula\n", "results/rms.png": "x", "._1.cif": "shadow",
    }  # fmt: skip
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
            (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "all" / name).write_text(text)
    crystals = {"1.cif", "2.cif", "3.CIF", "4.cif", "POSCAR_1", "POSCAR.NaCl", "mp-1.poscar", "some.jsonl"}
    notes = set(texts) - {"sub/4.cif", "._1.cif"} - crystals
    for place in ("all", "all.zip"):
        given = crystal_set(tmp_path / place)
        assert {row.name.rsplit("/", 1)[-1].split(" ")[0] for row in given} == crystals
        assert [row.name for row in given if row.error and "jsonl" not in row.name] == ["2.cif"]
        assert {entry.split(": ")[0].rsplit("/", 1)[-1] for entry in given.ignored} == {name.rsplit("/", 1)[-1] for name in notes}
    with pytest.raises(DataError, match="not a database"):
        (tmp_path / "x.db").write_text("x")
        list(read_rows(tmp_path / "x.db"))


def test_a_database_in_a_folder_is_read(tmp_path):
    write_crystals([bulk("Cu"), bulk("Si")], tmp_path / "a.db")
    assert [len(row.numbers) for row in read_rows(tmp_path)] == [1, 2]
    with sqlite3.connect(tmp_path / "a.db") as other:
        other.execute("DROP TABLE systems")
    assert "ASE cannot read" in next(read_rows(tmp_path)).error


def test_arrays_of_objects_say_how_to_convert_them(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"frac_coords": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"running code.*numpy\.savez"):
        list(read_rows(tmp_path / "a.npy"))


def test_a_missing_truth_is_told_from_a_wrong_one(tmp_path):
    write_crystals([bulk("Cu")], tmp_path / "a.pt")
    (tmp_path / "a.cif").write_text(COPPER)
    for name in ("a.pt", "a.cif", "."):
        with pytest.raises(NoTruth):
            list(read_truth(tmp_path / name))
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save({**content, "input_data_batch": {**content, "lengths": torch.ones(1, 2, 3)}}, tmp_path / "a.pt")
    with pytest.raises(DataError, match="do not belong together") as refusal:
        list(read_truth(tmp_path / "a.pt"))
    assert not isinstance(refusal.value, NoTruth)


def symmetric(sites, group="P -1", operations=("x,y,z", "-x,-y,-z"), occupancy=1):
    cell = "".join(f"_cell_length_{x} 5\n" for x in "abc") + "".join(f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma"))
    listed = "loop_\n_symmetry_equiv_pos_as_xyz\n" + "".join(f"'{op}'\n" for op in operations) if operations else ""
    names = "".join(f"_atom_site_{x}\n" for x in ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy"))
    lines = "".join(f"{symbol}{i} {symbol} {x} {y} {z} {occupancy}\n" for i, (symbol, x, y, z) in enumerate(sites))
    return f"data_x\n{cell}_symmetry_space_group_name_H-M '{group}'\n{listed}loop_\n{names}{lines}"


@pytest.mark.parametrize("operations", [("x,y,z", "-x,-y,-z"), ("-x,-y,-z",), ()])
def test_an_atom_that_overlaps_with_its_image_is_two_atoms(operations):
    row = from_cif(symmetric([("Na", 0.03, 0, 0), ("Cl", 0.5, 0.5, 0.5)], operations=operations))
    assert row.numbers.tolist() == [11, 11, 17]
    assert np.allclose(row.frac % 1, [[0.03, 0, 0], [0.97, 0, 0], [0.5, 0.5, 0.5]])
    near = from_cif(symmetric([("Na", 0.0004, 0.9999, 0), ("Cl", 0.5, 0.5, 0.5)], operations=operations))
    assert near.numbers.tolist() == [11, 17]  # on the special position, as written


def test_operations_that_are_listed_count_more_than_the_name_of_a_group():
    row = from_cif(symmetric([("Na", 0.1, 0.2, 0.3)], group="P 1"))
    assert len(row.numbers) == 2


def test_symmetry_is_expanded_as_pymatgen_does():
    crystals = [
        crystal(["Sr", "Ti", "O"], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.9] * 3 + [90] * 3),
        crystal(["Ti", "O"], [(0, 0, 0), (0.3053, 0.3053, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.95, 90, 90, 90]),
        crystal(["Si", "O"], [(0.4697, 0, 0), (0.4135, 0.2669, 0.1191)], spacegroup=152, cellpar=[4.91, 4.91, 5.4, 90, 90, 120]),
        crystal("Mg", [(1 / 3, 2 / 3, 0.75)], spacegroup=194, cellpar=[3.21, 3.21, 5.21, 90, 90, 120]),
        crystal(["Ca", "F"], [(0, 0, 0), (0.25, 0.25, 0.25)], spacegroup=225, cellpar=[5.46] * 3 + [90] * 3),
        crystal(["Na", "Cl"], [(0.1, 0.2, 0.3), (0.6, 0.1, 0.4)], spacegroup=14, cellpar=[5, 6, 7, 90, 100, 90]),
    ]
    for atoms in crystals:
        structure = Structure(Lattice(atoms.cell.array), atoms.numbers, atoms.get_scaled_positions())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = str(CifWriter(structure, symprec=0.01))
            theirs = Structure.from_str(text, fmt="cif")
        row = from_cif(text)
        assert sorted(row.numbers.tolist()) == sorted(theirs.atomic_numbers)
        ours = Structure(Lattice(row.cell), row.numbers, row.frac)
        assert np.allclose(np.sort(ours.distance_matrix.ravel()), np.sort(theirs.distance_matrix.ravel()), atol=1e-3)


def test_broken_crystals_keep_their_atoms_from_files_as_from_memory(tmp_path):
    layer = bulk("NaCl", "rocksalt", a=5.6)
    layer.pbc = [True, True, False]
    layer.calc = SinglePointCalculator(layer, energy=-6.0)
    flat = Atoms("NaCl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[[4, 0, 0], [0, 4, 0], [4, 4, 1e-13]], pbc=True)
    crystals = [layer, flat]
    ase.io.write(tmp_path / "a.traj", crystals)
    ase.io.write(tmp_path / "a.extxyz", crystals)
    for given in (crystals, tmp_path / "a.traj", tmp_path / "a.extxyz"):
        rows = crystal_set(given).rows
        assert [row.numbers.tolist() for row in rows] == [[11, 17], [11, 17]]
        assert ["not periodic in three directions", "a volume below 0.1 Å³"] == [row.error for row in rows]
        assert rows[0].properties["energy"] == -6.0 and rows[0].properties["energy_per_atom"] == -3.0
    partial = from_cif(symmetric([("Na", 0.1, 0.2, 0.3)], occupancy=0.5))
    assert "partial" in partial.error and partial.numbers.tolist() == [11, 11]


def test_an_energy_of_other_positions_is_none():
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    assert crystal_set([atoms]).rows[0].properties["energy"] == -1.0
    atoms.positions += 0.1
    assert "energy" not in crystal_set([atoms]).rows[0].properties


def test_a_short_vector_is_no_reason_to_refuse_a_cell():
    short, small, sheared = (
        Atoms("H", cell=cell, pbc=True) for cell in ([0.45, 4, 4], [0.4, 0.4, 0.4], [[5, 0, 0], [4000, 5, 0], [0, 3000, 5]])
    )
    assert [row.error for row in crystal_set([short, small, sheared])] == ["", "a volume below 0.1 Å³", "a cell that is flat"]
