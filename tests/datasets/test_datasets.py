import csv
import functools
import gzip
import http.server
import json
import threading

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal as spacegroup_crystal

from asegen import CrystalBatch
from asegen.datasets import CrystalArrays, read_rows, standard_primitive, write_arrays
from asegen.datasets import download as download_module
from asegen.datasets.convert import convert
from asegen.datasets.describe import describe
from asegen.datasets.download import download
from asegen.datasets.readers import from_cif
from asegen.errors import DataError


def cif_text(atoms, tmp_path) -> str:
    path = tmp_path / "x.cif"
    ase.io.write(path, atoms)
    return path.read_text()


def write_csv(path, entries, opener=open):
    with opener(path, "wt", newline="") as stream:
        writer = csv.DictWriter(stream, ["material_id", "cif", "band_gap"])
        writer.writeheader()
        writer.writerows(entries)


@pytest.fixture
def csv_file(tmp_path):
    good = cif_text(bulk("NaCl", "rocksalt", a=5.64), tmp_path)
    other = cif_text(bulk("Si"), tmp_path)
    path = tmp_path / "rows.csv"
    partial = good.replace("1.0000\n", "0.5000\n") if "1.0000\n" in good else good.replace(" 1.0", " 0.5")
    rows = [("a", good, "5.0"), ("b", "data_broken\nnothing here", ""), ("c", partial, "1"), ("d", other, "0.6")]
    write_csv(path, [{"material_id": i, "cif": c, "band_gap": g} for i, c, g in rows])
    return path


def test_a_broken_row_in_the_middle_is_named_and_skipped(csv_file, tmp_path):
    rows = list(read_rows(csv_file))
    assert [bool(r.error) for r in rows] == [False, True, True, False]
    meta = convert([csv_file], tmp_path / "arrays", processes=1)
    assert meta["count"] == 2 and [name for name, _ in meta["skipped"]] == ["b", "c"]
    assert "partial occupancy" in meta["skipped"][1][1]
    arrays = CrystalArrays.open(tmp_path / "arrays")
    assert arrays.num_atoms.tolist() == [2, 2]
    assert arrays.properties["band_gap"].tolist() == pytest.approx([5.0, 0.6])


def test_every_kind_of_file_gives_the_same_crystal(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.cif", "b.extxyz", "c.traj", "d.db", "POSCAR"):
        ase.io.write(folder / name, atoms)
    entry = {"cell": atoms.cell.array.tolist(), "species": ["Na", "Cl"], "frac_coords": atoms.get_scaled_positions().tolist()}
    (folder / "e.jsonl").write_text(json.dumps(entry) + "\n")
    write_csv(folder / "f.csv.gz", [{"material_id": "f", "cif": cif_text(atoms, tmp_path), "band_gap": ""}], gzip.open)
    (folder / "notes.txt").write_text("ignored")
    rows = list(read_rows(folder))
    assert len(rows) == 7 and not any(row.error for row in rows)
    for row in rows:
        assert abs(np.linalg.det(row.cell)) == pytest.approx(atoms.get_volume(), rel=1e-6)
        assert sorted(row.numbers) == [11, 17]


def test_symmetry_in_a_cif_is_expanded(tmp_path):
    text = """data_nacl
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na Na 0 0 0
Cl Cl 0.5 0.5 0.5
"""
    row = from_cif(text)
    assert not row.error and len(row.numbers) == 8


@pytest.mark.parametrize(("name", "content", "words"), [("x.csv", "a,b\n1,2\n", "no column named 'cif'"), ("x.dat", "", "unknown kind")])
def test_files_that_are_no_data_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        list(read_rows(tmp_path / name))
    with pytest.raises(DataError, match="does not exist"):
        list(read_rows(tmp_path / "missing.csv"))


def test_the_standard_cell_is_the_same_crystal_in_the_same_setting():
    conventional = spacegroup_crystal(("Na", "Cl"), [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3)
    primitive = bulk("NaCl", "rocksalt", a=5.64)
    turned = primitive.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ turned.cell.array, scale_atoms=False)
    found = [standard_primitive(a.cell.array, a.get_scaled_positions(), a.numbers) for a in (primitive, turned)]
    assert np.allclose(found[0][0] @ found[0][0].T, found[1][0] @ found[1][0].T, atol=1e-5)
    # a cell that is not primitive keeps its number of atoms
    assert len(standard_primitive(conventional.cell.array, conventional.get_scaled_positions(), conventional.numbers)[2]) == 8


def test_standard_cells_match_the_given_crystals():
    from ase.geometry import get_distances

    random = np.random.default_rng(0)
    for seed in range(10):
        cell = np.eye(3) * 4 + random.normal(size=(3, 3)) * 0.8
        frac = random.random((4, 3))
        numbers = np.array([3, 9, 9, 26])
        new_cell, new_frac, new_numbers = standard_primitive(cell, frac, numbers)
        assert abs(np.linalg.det(new_cell)) == pytest.approx(abs(np.linalg.det(cell)), rel=1e-4)

        def fingerprint(c, f, n):
            d = get_distances(f @ c, cell=c, pbc=True)[1]
            pairs = [(min(n[i], n[j]), max(n[i], n[j]), round(d[i, j], 3)) for i in range(4) for j in range(i)]
            return sorted(pairs)

        assert np.allclose(fingerprint(cell, frac, numbers), fingerprint(new_cell, new_frac, new_numbers), atol=2e-3), seed


def test_arrays_are_memory_mapped_and_batches_are_what_was_written(tmp_path):
    rows = list(read_rows(_folder_of_crystals(tmp_path)))
    meta = write_arrays(rows, tmp_path / "arrays", max_atoms=4, source="test")
    assert meta["count"] == 2 and meta["too_large"] == 1
    arrays = CrystalArrays.open(tmp_path / "arrays")
    assert isinstance(arrays.frac, np.memmap)
    batch = arrays.batch([1, 0])
    assert isinstance(batch, CrystalBatch) and batch.num_atoms.tolist() == [1, 2]
    assert np.allclose(batch.cell[1].numpy(), rows[0].cell, atol=1e-6)
    with pytest.raises(DataError, match="exists already"):
        write_arrays(rows, tmp_path / "arrays")
    with pytest.raises(DataError, match="no crystal could be used"):
        write_arrays([], tmp_path / "none")
    assert not (tmp_path / "none").exists() and not list(tmp_path.glob(".none*"))
    with pytest.raises(DataError, match="not a folder of asegen"):
        CrystalArrays.open(tmp_path)


def _folder_of_crystals(tmp_path):
    folder = tmp_path / "crystals"
    folder.mkdir(exist_ok=True)
    for name, atoms in (("a", bulk("NaCl", "rocksalt", a=5.64)), ("b", bulk("Cu")), ("c", bulk("Cu") * (2, 2, 2))):
        ase.io.write(folder / f"{name}.cif", atoms)
    return folder


def test_describe_counts_what_is_there(tmp_path):
    found = describe(_folder_of_crystals(tmp_path))
    assert found["count"] == 3 and found["sizes"] == {"1": 1, "2": 1, "8": 1}
    assert found["elements"] == {"Na": 1, "Cl": 1, "Cu": 2}
    convert([_folder_of_crystals(tmp_path)], tmp_path / "arrays", standardize=False)
    assert describe(tmp_path / "arrays")["sizes"] == found["sizes"]


@pytest.fixture
def server(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(home))
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield home, f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()


def test_downloads_are_checked(server, tmp_path, monkeypatch):
    home, url = server
    monkeypatch.setitem(download_module.DATA_SETS, "tiny", ("tiny", {"train": 2, "val": 1}))
    (home / "tiny").mkdir()
    write_csv(home / "tiny" / "train.csv", [{"material_id": "a", "cif": "x", "band_gap": ""}] * 2)
    write_csv(home / "tiny" / "val.csv", [{"material_id": "a", "cif": "x", "band_gap": ""}] * 3)
    with pytest.raises(DataError, match="3 rows instead of 1; it was not kept"):
        download("tiny", tmp_path / "out", url)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["train.csv"]
    write_csv(home / "tiny" / "val.csv", [{"material_id": "a", "cif": "x", "band_gap": ""}])
    found = download("tiny", tmp_path / "out", url)
    assert {p.name: n for p, n in found.items()} == {"train.csv": 2, "val.csv": 1}
    with pytest.raises(DataError, match="unknown data set"):
        download("mystery", tmp_path)
    with pytest.raises(DataError, match="cannot fetch"):
        download("mp-20", tmp_path / "none", url)
