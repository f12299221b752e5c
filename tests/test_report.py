import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

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
