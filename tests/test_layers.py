import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from asegen.layers import is_layered

MOS2 = crystal(["Mo", "S"], [(1 / 3, 2 / 3, 1 / 4), (1 / 3, 2 / 3, 0.621)], spacegroup=194, cellpar=[3.19, 3.19, 12.3, 90, 90, 120])
RUTILE = crystal(["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.96, 90, 90, 90])


@pytest.mark.parametrize(
    ("atoms", "layered"),
    [
        (MOS2, True),
        (RUTILE, False),
        (bulk("NaCl", "rocksalt", a=5.64), False),
        (bulk("Si"), False),
        (Atoms("He", cell=[3.2, 3.2, 3.2], pbc=True), False),  # nothing is bonded
    ],
)
def test_layers_are_known_by_their_bonds(atoms, layered):
    assert is_layered(atoms) == layered
