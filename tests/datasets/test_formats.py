"""The formats in which generated crystals come and go."""

import csv
import gzip
import io
import json
import time
import zipfile

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from asegen.cli.main import app
from asegen.datasets.readers import Row, from_cif, read_rows
from asegen.datasets.rows import atomic_number, natural
from asegen.datasets.tensor_files import cells_of
from asegen.datasets.writers import cif_text, kind_of, write_crystals
from asegen.errors import DataError

WRITABLE = ("extxyz", "xyz", "extxyz.gz", "db", "traj", "zip", "csv", "csv.gz", "json", "json.gz", "jsonl", "jsonl.gz")
WRITABLE += ("pt", "npz", "folder")
SINGLE = {"pt", "npz"}


def some_crystals(count=12, seed=0) -> list[Atoms]:
    """Skewed cells of both hands, atoms also outside of the cell."""
    random = np.random.default_rng(seed)
    found = []
    for k in range(count):
        n = int(random.integers(1, 9))
        cell = np.diag(random.uniform(3, 7, 3)) + random.normal(size=(3, 3)) * 0.7
        cell = -cell if k % 3 == 1 else cell
        info = {"energy_above_hull": float(random.normal()), "rank": k, "label": f"made by {k}"}
        numbers = random.integers(1, 95, n)
        found.append(Atoms(numbers, scaled_positions=random.uniform(-0.5, 1.5, (n, 3)), cell=cell, pbc=True, info=info))
    return found


def assert_same_crystal(row: Row, atoms: Atoms, tolerance: float):
    """Equal up to a rotation; not up to a reflection."""
    assert not row.error, row.error
    assert row.numbers.tolist() == atoms.numbers.tolist()
    sign = np.sign(np.linalg.det(row.cell)) * np.sign(np.linalg.det(atoms.cell.array))
    assert np.allclose(row.cell @ row.cell.T, atoms.cell.array @ atoms.cell.array.T, atol=tolerance * 50)
    difference = sign * row.frac - atoms.get_scaled_positions(wrap=False)
    assert np.abs(difference - np.rint(difference)).max() < tolerance


def tensors(crystals: list[Atoms]) -> dict[str, torch.Tensor]:
    """As a batch of CDVAE has them: without a dimension of evaluations."""
    parameters = torch.tensor(np.array([atoms.cell.cellpar() for atoms in crystals]), dtype=torch.float32)
    return {
        "frac_coords": torch.tensor(np.concatenate([a.get_scaled_positions() for a in crystals]), dtype=torch.float32),
        "atom_types": torch.tensor(np.concatenate([a.numbers for a in crystals])),
        "lengths": parameters[:, :3],
        "angles": parameters[:, 3:],
        "num_atoms": torch.tensor([len(a) for a in crystals]),
    }


@pytest.mark.parametrize("suffix", WRITABLE)
def test_what_is_written_is_read_again(tmp_path, suffix):
    crystals = some_crystals()
    names = [f"my-{k:03d}" if k % 2 else f"{k:04d}" for k in range(len(crystals))]
    path = tmp_path / ("run" if suffix == "folder" else f"run.{suffix}")
    write_crystals(crystals, path, names)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    rows = list(read_rows(path))
    in_files = suffix in ("zip", "folder")
    order = sorted(range(len(names)), key=lambda k: natural(names[k])) if in_files else range(len(names))
    assert len(rows) == len(crystals)
    for row, k in zip(rows, order, strict=True):
        assert_same_crystal(row, crystals[k], 1e-6 if suffix in SINGLE else 2e-8)
        assert row.sample == 0
        if suffix not in SINGLE:
            assert row.name == names[k] + (".cif" if in_files else "")
        if suffix not in SINGLE and not in_files:
            assert row.properties["energy_above_hull"] == pytest.approx(crystals[k].info["energy_above_hull"], abs=1e-7)
            assert row.properties["rank"] == k


@pytest.mark.parametrize("suffix", WRITABLE)
def test_no_crystals_are_no_crystals(tmp_path, suffix):
    path = tmp_path / ("run" if suffix == "folder" else f"run.{suffix}")
    write_crystals([], path)
    if suffix == "folder":
        with pytest.raises(DataError, match="holds no file"):
            list(read_rows(path))
    else:
        assert list(read_rows(path)) == []


def test_text_is_kept_and_calculators_are_left_behind(tmp_path):
    atoms = bulk("Cu")
    atoms.calc = EMT()
    atoms.get_potential_energy()
    atoms.info |= {"prototype": "Fm-3m Cu:1a", "seed": 7, "energy": -1.5, "known": True, "odd key": 2.0}
    atoms.info |= {"list": [1, 2], "cell": "x", "text": "12"}
    for suffix in ("extxyz", "traj", "db", "csv", "jsonl", "json"):
        write_crystals([atoms], tmp_path / f"a.{suffix}")
        (row,) = read_rows(tmp_path / f"a.{suffix}")
        kept = {key: row.properties[key] for key in ("seed", "energy", "known", "odd key")}
        assert kept == {"seed": 7, "energy": -1.5, "known": 1, "odd key": 2} and "list" not in row.properties, suffix
    assert ase.io.read(tmp_path / "a.extxyz").info["prototype"] == "Fm-3m Cu:1a"
    assert atoms.calc is not None and len(atoms.info["list"]) == 2


def test_odd_text_does_not_break_a_file(tmp_path):
    random = np.random.default_rng(0)
    signs = list("ab1 \"'=\n\t\\{}[],é_:T.#\r")

    def word():
        return "".join(random.choice(signs, size=random.integers(6)))

    for _ in range(20):
        crystals = [bulk("Cu") for _ in range(5)]
        for rank, atoms in enumerate(crystals):
            atoms.info |= {word(): word(), word(): float("nan"), "rank": rank}
        for suffix in ("extxyz", "db", "traj", "csv", "json", "jsonl", "zip"):
            path = tmp_path / f"a.{suffix}"
            names = [word() or "x" for _ in crystals]
            write_crystals(crystals, path, names)
            rows = list(read_rows(path))
            assert [row.error for row in rows] == [""] * 5
            assert suffix == "zip" or [row.properties["rank"] for row in rows] == [0, 1, 2, 3, 4]
            assert suffix in ("zip", "extxyz") or [row.name for row in rows] == names


def test_pymatgen_reads_what_is_written(tmp_path):
    from pymatgen.core import Structure

    crystals = some_crystals(4, seed=5)
    write_crystals(crystals, tmp_path / "a.json")
    write_crystals(crystals, tmp_path / "a.csv")
    table = list(csv.DictReader((tmp_path / "a.csv").open(newline="")))
    for entry, record, atoms in zip(json.loads((tmp_path / "a.json").read_text()), table, crystals, strict=True):
        structure = Structure.from_dict(entry)
        assert structure.properties["rank"] == atoms.info["rank"]
        assert np.allclose(structure.lattice.matrix, atoms.cell.array)
        for found in (structure, Structure.from_str(record["cif"], fmt="cif")):
            assert sorted(found.atomic_numbers) == sorted(atoms.numbers)
            assert found.volume == pytest.approx(atoms.get_volume(), rel=1e-6)
            ours = np.sort(atoms.get_all_distances(mic=True).ravel())
            assert np.allclose(np.sort(found.distance_matrix.ravel()), ours, atol=1e-5)


def test_cells_of_lengths_and_angles_are_those_of_ase():
    parameters = np.array([atoms.cell.cellpar() for atoms in some_crystals(20)])
    cells, reasons = cells_of(parameters[:, :3], parameters[:, 3:])
    assert not any(reasons)
    assert np.allclose(cells, [Atoms(cell=p).cell.array for p in parameters])


def test_names_of_files_are_safe_unique_and_in_natural_order(tmp_path):
    crystals = [bulk("Cu", a=3.5 + k / 10) for k in range(12)]
    write_crystals(crystals, tmp_path / "run.zip", ["../evil/a b", "../evil/a b", "A.cif", "a.cif", *(str(k) for k in range(4, 12))])
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        stored = archive.namelist()
    assert stored[:4] == ["_evil_a_b.cif", "_evil_a_b-2.cif", "A.cif", "a-2.cif"]
    numbered = [row.name for row in read_rows(tmp_path / "run.zip") if row.name[0].isdecimal()]
    assert numbered == [f"{k}.cif" for k in range(4, 12)]
    write_crystals(crystals, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir())[::11] == ["0000.cif", "0011.cif"]


def test_writing_refuses_what_cannot_be_written(tmp_path):
    crystals = [bulk("Cu"), bulk("Cu", cubic=True)]
    for name in ("a.foo", "a.pt.gz", "a.db.gz", "a.gz"):
        with pytest.raises(DataError, match=r"unknown kind of file; known are \.extxyz"):
            write_crystals(crystals, tmp_path / name)
    assert kind_of("runs/a.b/") == "folder"
    for arguments, words in (
        ((crystals, tmp_path / "a.cif"), "one crystal, not 2"),
        ((crystals, tmp_path / "a.csv", ["x"]), "1 names for 2"),
        ((crystals, tmp_path / "a.csv", None, 2), "only .pt and .npz"),
        ((crystals, tmp_path / "a.pt", None, 2), "different numbers of atoms"),
        ((crystals, tmp_path / "a.pt", None, 3), "not 3 evaluations"),
        (([Atoms("Cu")], tmp_path / "a.csv"), "structure 0 is not a crystal"),
        (([Atoms("Cu", cell=[1, 1, np.nan], pbc=True)], tmp_path / "a.csv"), "structure 0"),
        ((crystals, tmp_path), "exists already"),
    ):
        with pytest.raises(DataError, match=words):
            write_crystals(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_crystals([bulk("Cu")], path)
    before = path.read_bytes()
    with pytest.raises(DataError):
        write_crystals([bulk("Cu")] * 2, path, samples=3)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_evaluations_are_kept_apart(tmp_path):
    crystals = [bulk("Cu", a=3.6), bulk("NaCl", "rocksalt", a=5.6), bulk("NaCl", "rocksalt", a=5.7), bulk("Cu", a=3.7)]
    for name in ("k.pt", "k.npz"):
        write_crystals(crystals, tmp_path / name, samples=2)
        rows = list(read_rows(tmp_path / name))
        assert [(row.sample, len(row.numbers)) for row in rows] == [(0, 1), (0, 2), (1, 2), (1, 1)]
        assert rows[2].name == f"{name} #1 of evaluation 2"
        for row, atoms in zip(rows, crystals, strict=True):
            assert_same_crystal(row, atoms, 1e-6)
    saved = torch.load(tmp_path / "k.pt", weights_only=True)
    assert {key: (tuple(t.shape), t.dtype) for key, t in saved.items()} == {
        "frac_coords": ((2, 3, 3), torch.float32),
        "atom_types": ((2, 3), torch.int64),
        "lengths": ((2, 2, 3), torch.float32),
        "angles": ((2, 2, 3), torch.float32),
        "num_atoms": ((2, 2), torch.int64),
    }


def test_archives_are_read_in_memory_and_in_natural_order(tmp_path):
    copper = cif_text(bulk("Cu"))
    vasp = io.StringIO()
    ase.io.write(vasp, bulk("NaCl", "rocksalt", a=5.6), format="vasp")
    traj = io.BytesIO()
    ase.io.write(traj, [bulk("Si")] * 2, format="traj")
    inner = io.BytesIO()
    np.savez(inner, **{key: value.numpy() for key, value in tensors([bulk("Au")]).items()})
    with zipfile.ZipFile(tmp_path / "generated_crystals_cif.zip", "w") as archive:
        for name, text in (
            ("gen/10.cif", copper),
            ("gen/2.cif", copper),
            ("../../outside.cif", copper),
            ("gen/3.cif", "nonsense"),
            ("gen/4.cif", ""),
            ("gen/5/POSCAR", vasp.getvalue()),
            ("gen/6.traj", traj.getvalue()),
            ("gen/7.npz", inner.getvalue()),
            ("gen/8.db", "SQLite format 3\0"),
            ("gen/9.csv", "a,b\n1,2\n"),
            ("gen/9.json", '{"settings": 1}'),
            ("gen/9.pt", "nonsense"),
            ("__MACOSX/gen/._2.cif", "shadow"),
            ("notes.txt", "no crystal"),
        ):
            archive.writestr(name, text)
    ignored = []
    rows = list(read_rows(tmp_path / "generated_crystals_cif.zip", ignored))
    assert [(row.name, bool(row.error)) for row in rows] == [
        ("../../outside.cif", False),
        ("gen/2.cif", False),
        ("gen/3.cif", True),
        ("gen/4.cif", True),
        ("gen/5/POSCAR", False),
        ("gen/6.traj #1", False),
        ("gen/6.traj #2", False),
        ("gen/7.npz #1", False),
        ("gen/8.db", True),
        ("gen/10.cif", False),
    ]
    assert "empty" in rows[3].error and "unpack it first" in rows[8].error
    assert [entry.split(":")[0] for entry in ignored] == ["notes.txt", "gen/9.csv", "gen/9.json", "gen/9.pt"]
    assert "no column named 'cif'" in ignored[1] and ignored[1].count("gen") == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_damaged_archives_are_named(tmp_path):
    (tmp_path / "a.zip").write_text("no archive")
    with pytest.raises(DataError, match="not a zip archive"):
        list(read_rows(tmp_path / "a.zip"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("1.cif", cif_text(bulk("Cu")))
        archive.writestr("2.cif", cif_text(bulk("Cu")))
    content = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(content.replace(b"_cell_volume", b"_cell_VOLUME", 1))
    rows = list(read_rows(tmp_path / "b.zip"))
    assert "cannot be unpacked" in rows[0].error and not rows[1].error
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(DataError, match="holds no file that can be read"):
        list(read_rows(tmp_path / "c.zip"))


def test_a_folder_is_read_in_natural_order_and_whole_runs_only_by_name(tmp_path):
    for name in ("10.cif", "2.cif", "b/1.cif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(cif_text(bulk("Cu")))
    write_crystals([bulk("Si")], tmp_path / "structure.json")
    write_crystals([bulk("Si")], tmp_path / "eval_gen.pt")
    write_crystals([bulk("Si")], tmp_path / "all.zip")
    (tmp_path / "metrics.json").write_text('{"validity": 0.9}')
    (tmp_path / "broken.json").write_text("[{")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    rows = list(read_rows(tmp_path))
    assert [row.name for row in rows] == ["2.cif", "10.cif", "1.cif", "broken.json", "0000"]
    assert [bool(row.error) for row in rows] == [False, False, False, True, False]
    for path in list(tmp_path.rglob("*.*")):
        if path.suffix != ".pt":
            path.unlink()
    with pytest.raises(DataError, match=r"name .*eval_gen\.pt itself"):
        list(read_rows(tmp_path))


def structure_dict(atoms: Atoms, symbols=None) -> dict:
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(atoms.cell.array), symbols or atoms.get_chemical_symbols(), atoms.get_scaled_positions()).as_dict()


def test_json_of_pymatgen_in_all_shapes(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    one = json.loads(json.dumps(structure_dict(atoms, ["Na+", "Cl-"])))
    record = {"structure": one, "energy": -3.5, "material_id": "mp-1", "tag": "x"}
    shapes = {
        "one": (one, ["one.json"]),
        "list": ([one, one], ["list.json #1", "list.json #2"]),
        "names": ({"a": one, "b": one}, ["a", "b"]),
        "records": ([record, {**record, "structure": json.dumps(one)}, {**record, "structure": cif_text(atoms)}], ["mp-1"] * 3),
        "entries": ({"entries": [record], "version": 1}, ["mp-1"]),
        "cif": ([{"cif": cif_text(atoms), "id": 5}], ["5"]),
    }
    for name, (content, names) in shapes.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        with gzip.open(tmp_path / f"{name}.json.gz", "wt") as stream:
            json.dump(content, stream)
        rows = list(read_rows(tmp_path / f"{name}.json"))
        assert [row.name for row in rows] == names
        for row in [*rows, *read_rows(tmp_path / f"{name}.json.gz")]:
            assert_same_crystal(row, atoms, 1e-7)
        assert name != "records" or all(row.properties == {"energy": -3.5} for row in rows)
    (tmp_path / "records.jsonl").write_text(f"{json.dumps(record)}\n\n{json.dumps(one)}\n[1\n7\n")
    assert [bool(row.error) for row in read_rows(tmp_path / "records.jsonl")] == [False, False, True, True]


def test_broken_structures_in_json_are_named_and_the_others_read(tmp_path):
    good = json.loads(json.dumps(structure_dict(bulk("Cu"))))

    def changed(**site):
        return {**good, "sites": [{**good["sites"][0], **site}]}

    entries = [
        good,
        changed(species=[{"element": "Cu", "occu": 0.5}, {"element": "Au", "occu": 0.5}]),
        changed(species=[{"element": "Fe2+", "occu": 0.5}, {"element": "Fe", "oxidation_state": 3, "occu": 0.5}]),
        changed(species=[{"element": "X", "occu": 1}]),
        changed(species=[{"element": "D", "occu": 1}]),
        changed(abc=None),
        {"lattice": good["lattice"], "structure": None},
        {"sites": good["sites"]},
        {**good, "lattice": {"a": 2.0, "b": 2.0, "c": 2.0, "alpha": 90, "beta": 90, "gamma": 90}},
        "text",
        {**good, "sites": []},
        good,
    ]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    rows = list(read_rows(tmp_path / "a.json"))
    assert [bool(row.error) for row in rows] == [False, True, False, True, False, True, True, True, False, True, True, False]
    assert "partial occupancy" in rows[1].error and "'X' is not an element" in rows[3].error and "lattice" in rows[7].error
    assert rows[2].numbers.tolist() == [26] and rows[4].numbers.tolist() == [1] and np.allclose(rows[8].cell, np.eye(3) * 2)
    for text in ("[{", '{"a": 1}', "[1, 2]", "3"):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(DataError, match="cannot be read as JSON" if text == "[{" else "holds no crystals"):
            list(read_rows(tmp_path / "b.json"))


def test_isotopes_are_hydrogen_in_every_format(tmp_path):
    water = Atoms("HOH", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.2, 0.3, 0.4]], cell=[3, 4, 5], pbc=True)
    ase.io.write(tmp_path / "h.extxyz", water)
    text = (tmp_path / "h.extxyz").read_text().splitlines()
    heavy = [*text[:2], text[2].replace("H", "D"), text[3], text[4].replace("H", "T")]
    (tmp_path / "a.extxyz").write_text("\n".join(heavy) + "\n")
    turned = [text[0], text[1].replace("species:S:1:pos:R:3", "pos:R:3:species:S:1")]
    turned += [" ".join([*line.split()[1:], line.split()[0]]) for line in heavy[2:]]
    (tmp_path / "b.extxyz").write_text("\n".join(turned) + "\n")
    ase.io.write(tmp_path / "POSCAR", water, format="vasp", direct=True)
    (tmp_path / "POSCAR").write_text((tmp_path / "POSCAR").read_text().replace("H ", "D ", 2).replace("H\n", "T\n"))
    cif = cif_text(water).replace("H  H0", "D  D0").replace("H  H2", "T  T2")
    (tmp_path / "a.cif").write_text(cif)
    line = {"cell": [3, 4, 5, 90, 90, 90], "species": ["D", "O", "T"], "frac_coords": water.get_scaled_positions().tolist()}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    for name in ("a.extxyz", "b.extxyz", "POSCAR", "a.cif", "a.jsonl"):
        assert "D" in (tmp_path / name).read_text()
        (row,) = read_rows(tmp_path / name)
        assert_same_crystal(row, water, 1e-6)
    assert [atomic_number(s) for s in ("D", "T+", "Fe2+", "O2-", "fe", "Na+", "Fe0+", "Fe2+,spin=5")] == [1, 1, 26, 8, 26, 11, 26, 26]
    for wrong in ("Q", "X0+", "", "Fe2", "12"):
        with pytest.raises(ValueError, match="not an element"):
            atomic_number(wrong)


def test_a_broken_frame_of_extxyz_is_named(tmp_path):
    path = tmp_path / "a.extxyz"
    crystals = some_crystals(4)
    write_crystals(crystals, path)
    lines = path.read_text().splitlines()
    second = len(crystals[0]) + 2
    bad = lines.copy()
    bad[second + 2] = "Xx 1 2 three"
    path.write_text("\n".join(bad) + "\n\n")
    rows = list(read_rows(path))
    assert [bool(row.error) for row in rows] == [False, True, False, False] and rows[1].name == "a.extxyz #2"
    bad[second] = str(len(crystals[1]) + 1)
    path.write_text("\n".join(bad))
    rows = list(read_rows(path))
    assert len(rows) == 3 and rows[1].error and "the rest of the file is not read" in rows[2].error
    path.write_text("\n".join(lines[:-1]))
    assert "ends inside" in list(read_rows(path))[-1].error
    path.write_bytes(b"1\n\xff\xfe\nCu 0 0 0\n")
    assert "cannot be read on" in list(read_rows(path))[-1].error
    path.write_text("1\ncomment\nCu 0 0 0\nVEC1 3 0 0\nVEC2 0 3 0\nVEC3 0 0 3\n1\ncomment\nCu 0 0 0\n")
    assert [row.error for row in read_rows(path)] == ["", "not periodic in three directions"]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.json", "a.extxyz", "a.db", "a.traj", "a.pt", "a.npz", "a.zip"])
def test_a_file_of_no_bytes_holds_no_crystals(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    assert list(read_rows(tmp_path / name)) == []


def test_a_file_that_should_hold_one_crystal_and_is_empty_is_an_error(tmp_path):
    for name in ("a.cif", "POSCAR", "a.vasp", "a.cif.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
        assert [row.error for row in read_rows(tmp_path / name)] == ["the file is empty"]
    for name, text in (("h.csv", "material_id,cif\n"), ("h.json", "[]"), ("i.json", "{}")):
        (tmp_path / name).write_text(text)
        assert list(read_rows(tmp_path / name)) == []
    (tmp_path / "b.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        list(read_rows(tmp_path / "b.csv.gz"))
    (tmp_path / "bom.csv").write_text("\ufeffcif,material_id\n" + '"' + cif_text(bulk("Cu")) + '",x\n', encoding="utf-8")
    assert [(row.name, row.error) for row in read_rows(tmp_path / "bom.csv")] == [("x", "")]


def test_a_cif_with_several_blocks_is_several_crystals(tmp_path):
    text = cif_text(bulk("Cu"), "one") + cif_text(bulk("Si"), "two").replace("  1\n  Si", "  0.5\n  Si") + cif_text(bulk("Au"), "three")
    (tmp_path / "a.cif").write_text(text)
    rows = list(read_rows(tmp_path / "a.cif"))
    assert [row.name for row in rows] == ["a.cif one", "a.cif two", "a.cif three"]
    assert [bool(row.error) for row in rows] == [False, True, False]
    assert "3 structures, expected one" in from_cif(text).error


def test_thousands_of_rows_are_read_in_seconds(tmp_path):
    write_crystals(some_crystals(2000, seed=3), tmp_path / "a.csv")
    write_crystals(some_crystals(2000, seed=3), tmp_path / "a.pt")
    start = time.perf_counter()
    assert sum(1 for name in ("a.csv", "a.pt") for row in read_rows(tmp_path / name) if not row.error) == 4000
    assert time.perf_counter() - start < 10


def run(*arguments, code=0):
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_export_from_any_format_to_any_other(tmp_path):
    crystals = some_crystals(6)
    write_crystals(crystals, tmp_path / "a.csv", [f"mp-{k}" for k in range(6)])
    previous = "a.csv"
    for suffix in ("db", "jsonl.gz", "json", "extxyz", "traj", "zip", "pt"):
        done = run("data", "export", tmp_path / previous, "--out", tmp_path / f"a.{suffix}")
        assert "6 crystals" in done.stdout and not done.stderr
        rows = list(read_rows(tmp_path / f"a.{suffix}"))
        for row, atoms in zip(rows, crystals, strict=True):
            assert_same_crystal(row, atoms, 1e-6)
        if suffix == "traj":
            assert [row.name for row in rows] == [f"mp-{k}" for k in range(6)] and rows[5].properties["rank"] == 5
        previous = f"a.{suffix}"


def test_export_names_what_it_leaves_out_and_refuses_in_one_sentence(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.cif").write_text(cif_text(bulk("Cu")))
    (tmp_path / "in" / "b.cif").write_text("nonsense")
    out = tmp_path / "out.extxyz"
    done = run("data", "export", tmp_path / "in", "--out", out)
    assert "1 crystals" in done.stdout and "cannot use b.cif: not a CIF" in done.stderr
    assert "exists already" in run("data", "export", tmp_path / "in", "--out", out, code=1).stderr
    run("data", "export", tmp_path / "in", tmp_path / "in", "--out", out, "--overwrite")
    assert len(list(read_rows(out))) == 2
    done = run("data", "export", tmp_path / "in", "--out", tmp_path / "x.foo", code=1)
    assert "unknown kind of file; known are .extxyz" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    done = run("data", "export", tmp_path / "in" / "b.cif", "--out", tmp_path / "x.csv", code=1)
    assert "no crystal could be read: 1 bad rows" in done.stderr
    assert not (tmp_path / "x.csv").exists()
    run("data", "export", tmp_path / "in", "--out", tmp_path / "folder")
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["a.cif"]


def test_export_keeps_evaluations(tmp_path):
    crystals = [bulk("Cu", a=3.5 + k / 10) for k in range(4)]
    write_crystals(crystals, tmp_path / "a.pt", samples=2)
    run("data", "export", tmp_path / "a.pt", "--out", tmp_path / "b.npz")
    assert [row.sample for row in read_rows(tmp_path / "b.npz")] == [0, 0, 1, 1]
    run("data", "export", tmp_path / "a.pt", "--out", tmp_path / "b.jsonl")
    assert [row.properties["sample"] for row in read_rows(tmp_path / "b.jsonl")] == [0, 0, 1, 1]
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    content["lengths"][1, 0] = -1
    torch.save(content, tmp_path / "c.pt")
    done = run("data", "export", tmp_path / "c.pt", "--out", tmp_path / "d.npz")
    assert "written as one" in done.stderr and [row.sample for row in read_rows(tmp_path / "d.npz")] == [0, 0, 0]
