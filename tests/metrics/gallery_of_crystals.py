"""Crystals for the tests of the metrics: sane ones and those that break evaluation scripts."""

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.spacegroup import crystal

STRUCTURES = ("rocksalt", "cesiumchloride", "zincblende")


def sane():
    """A dozen different crystals."""
    found = [bulk(a + b, kind, a=size) for (a, b), size in ((("Na", "Cl"), 5.6), (("Mg", "O"), 4.2)) for kind in STRUCTURES]
    found += [bulk("Si"), bulk("Cu"), bulk("Fe"), bulk("Mg")]
    found.append(crystal(["Sr", "Ti", "O"], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.9] * 3 + [90] * 3))
    found.append(crystal(["Ti", "O"], [(0, 0, 0), (0.3, 0.3, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.95, 90, 90, 90]))
    return found


def rattled(atoms, seed, size=0.02):
    """The same crystal, slightly off, in another cell setting and order."""
    rng = np.random.default_rng(seed)
    other = atoms.copy()
    other.positions += size * rng.standard_normal((len(atoms), 3))
    other.rotate(40, (1, 2, 3), rotate_cell=True)
    return other[rng.permutation(len(atoms))]


def odd():
    """Name to crystal that breaks evaluation scripts."""
    water = molecule("H2O", cell=[8, 8, 8], pbc=True)
    water.center()
    nan = bulk("NaCl", "rocksalt", a=5.6)
    nan.positions[1, 2] = np.nan
    flat = Atoms("NaCl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]], pbc=True)
    overlapping = Atoms("NaCl", scaled_positions=[[0.1, 0.1, 0.1], [0.1, 0.1, 0.1]], cell=[4, 4, 4], pbc=True)
    return {
        "one atom": bulk("Po", "sc", a=3.35),
        "noble gas": bulk("Xe", "fcc", a=6.2),
        "promethium": Atoms("PmCl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3.4, 3.4, 3.4], pbc=True),
        "actinide": bulk("PuO", "rocksalt", a=4.96),
        "superheavy": Atoms("OgO", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3.6, 3.6, 3.6], pbc=True),
        "molecule in a box": water,
        "atom in a box": Atoms("He", cell=[15, 15, 15], pbc=True),
        "500 atoms": bulk("Cu", cubic=True) * (5, 5, 5),
        "NaN": nan,
        "no volume": flat,
        "overlapping": overlapping,
        "close": Atoms("H2", positions=[[0, 0, 0], [0.3, 0, 0]], cell=[4, 4, 4], pbc=True),
    }
