import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from PIL import Image

from asegen.report import contact_sheet, shortest_distance, summarize


@pytest.mark.parametrize(
    ("atoms", "group", "distance"),
    [
        (bulk("NaCl", "rocksalt", a=5.64), 225, 2.82),
        (bulk("Cu"), 225, 3.61 / np.sqrt(2)),
        (Atoms("Po", cell=[3.3, 3.3, 3.3], pbc=True), 221, 3.3),
        (Atoms("Po", cell=[[3, 0, 0], [3, 1, 0], [0, 0, 3]], pbc=True), 123, 1.0),  # its own image along b - a
    ],
)
def test_summaries_of_known_crystals(atoms, group, distance):
    row = summarize(atoms)
    assert row.spacegroup == group
    assert row.shortest_distance == pytest.approx(distance, rel=1e-3)
    assert row.volume_per_atom == pytest.approx(atoms.get_volume() / len(atoms))
    assert row.valid


def test_overlapping_atoms_are_not_valid():
    atoms = Atoms("H2", positions=[[0, 0, 0], [0.3, 0, 0]], cell=[4, 4, 4], pbc=True)
    assert shortest_distance(atoms) == pytest.approx(0.3)
    assert not summarize(atoms).valid


def test_the_contact_sheet_is_a_png(tmp_path):
    path = tmp_path / "sheet.png"
    contact_sheet([bulk("NaCl", "rocksalt", a=5.64), bulk("Cu")], path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000
    assert Image.open(path).size == (2 * 275, 297)
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_summaries_that_are_known_are_not_made_again(tmp_path, monkeypatch):
    crystals = [bulk("Cu"), bulk("Al")]
    rows = [summarize(atoms) for atoms in crystals]
    contact_sheet(crystals, tmp_path / "a.png")
    monkeypatch.setattr("asegen.report.summarize", lambda atoms: pytest.fail("made again"))
    contact_sheet(crystals, tmp_path / "b.png", rows=rows)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_contact_sheet_needs_no_matplotlib(tmp_path):
    """Loading it would take several times as long as drawing."""
    code = "import sys; from ase.build import bulk; from asegen.report import contact_sheet; contact_sheet([bulk('Cu')], sys.argv[1])"
    code += "; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "sheet.png")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
