"""Crystals of well-known prototypes, and the same crystals written in other ways."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list

from asegen.datasets import Row, write_arrays
from asegen.prior import atomic_volumes
from asegen.prototypes.alignment import gather
from asegen.prototypes.geometry import element_features
from asegen.prototypes.standard import StandardCrystal, standard_crystal
from asegen.symmetry import crystal_from_sites, space_group
from asegen.symmetry.lattices import conventional_cell

PEROVSKITE = [("Ca", "4c", (0.035, 0.993)), ("Ti", "4b", ()), ("O", "4c", (0.484, 0.071)), ("O", "8d", (0.289, 0.037, 0.708))]
#: Group, sites with parameters, volume of the conventional cell, its shape.
KINDS = {
    "rocksalt": (225, [("Na", "4a", ()), ("Cl", "4b", ())], 179.0, ()),
    "zincblende": (216, [("Zn", "4a", ()), ("S", "4c", ())], 158.0, ()),
    "CsCl": (221, [("Cs", "1a", ()), ("Cl", "1b", ())], 70.0, ()),
    "fluorite": (225, [("Ca", "4a", ()), ("F", "8c", ())], 163.0, ()),
    "perovskite": (221, [("Sr", "1a", ()), ("Ti", "1b", ()), ("O", "3c", ())], 59.5, ()),
    "spinel": (227, [("Mg", "8a", ()), ("Al", "16d", ()), ("O", "32e", (0.262,))], 528.0, ()),
    "rutile": (136, [("Ti", "2a", ()), ("O", "4f", (0.305,))], 62.4, (-0.36,)),
    "wurtzite": (186, [("Zn", "2b", (0.01,)), ("O", "2b", (0.392,))], 47.6, (0.38,)),
    "tetragonal PbTiO3": (99, [("Pb", "1a", (0.0,)), ("Ti", "1b", (0.54,)), ("O", "1b", (0.112,)), ("O", "2c", (0.617,))], 63.3, (0.05,)),
    "Pnma perovskite": (62, PEROVSKITE, 224.0, (0.22, 0.01)),
    "ilmenite": (148, [("Fe", "6c", (0.355,)), ("Ti", "6c", (0.146,)), ("O", "18f", (0.317, 0.023, 0.245))], 316.0, (0.84,)),
    "baddeleyite": (
        14,
        [("Zr", "4e", (0.276, 0.041, 0.208)), ("O", "4e", (0.07, 0.336, 0.344)), ("O", "4e", (0.442, 0.755, 0.479))],
        140.7,
        (0.02, -0.01, -0.14),
    ),
    "polar P2_1": (
        4,
        [("Li", "2a", (0.11, 0.03, 0.21)), ("I", "2a", (0.62, 0.2, 0.7)), ("O", "2a", (0.3, 0.41, 0.55))],
        120.0,
        (0.1, 0.06, 0.1),
    ),
    "P1": (
        1,
        [("Na", "1a", (0.1, 0.2, 0.3)), ("O", "1a", (0.57, 0.61, 0.85)), ("F", "1a", (0.83, 0.17, 0.66))],
        55.0,
        (0.15, 0.1, 0.05, 0.1, -0.08),
    ),
}


def build(kind: str) -> Atoms:
    """The primitive cell of a well-known crystal."""
    number, sites, volume, shape = KINDS[kind]
    return crystal_from_sites(number, sites, conventional_cell(space_group(number).lattice_system, volume, np.array(shape)))[0]


def rewritten(atoms: Atoms, seed: int) -> Atoms:
    """The same crystal with other lattice vectors, origin, orientation and order of the atoms."""
    random = np.random.default_rng(seed)
    matrix = np.eye(3)
    for _ in range(4):
        i, j = random.choice(3, 2, replace=False)
        matrix[i] += random.choice([-1, 1]) * matrix[j]
    matrix = np.roll(matrix, random.integers(3), axis=0)
    order = random.permutation(len(atoms))
    frac = (atoms.get_scaled_positions(wrap=False)[order] + random.random(3)) @ np.linalg.inv(matrix)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    return Atoms(numbers=atoms.numbers[order], scaled_positions=frac % 1, cell=matrix @ atoms.cell.array @ turn, pbc=True)


def standard(atoms: Atoms) -> StandardCrystal:
    """In the standard setting."""
    found = standard_crystal(atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    assert found is not None
    return found


def cluster_of(crystals: list[Atoms]):
    """The one prototype that crystals have in common."""
    (cluster,) = gather([(k, standard(atoms)) for k, atoms in enumerate(crystals)])
    return cluster


def fingerprint(atoms: Atoms, cutoff: float | None = None) -> np.ndarray:
    """All distances up to about three times that of neighbours with the elements at their ends, sorted: equal for equal crystals."""
    if cutoff is None:
        cutoff = 2.2 * (atoms.get_volume() / len(atoms)) ** (1 / 3)
    i, j, d = neighbor_list("ijd", atoms, cutoff + 0.013)
    z = atoms.numbers
    rows = np.stack([z[i], z[j], d], 1)
    return rows[np.lexsort(rows.T[::-1])]


def same_crystal(a: Atoms, b: Atoms, tolerance: float = 1e-4) -> bool:
    """Whether two crystals have the same elements at the same distances."""
    cutoff = 2.2 * (a.get_volume() / len(a)) ** (1 / 3)
    first, second = fingerprint(a, cutoff), fingerprint(b, cutoff)
    if abs(a.get_volume() / b.get_volume() - 1) > tolerance or len(first) != len(second) or sorted(a.numbers) != sorted(b.numbers):
        return False
    return bool((first[:, :2] == second[:, :2]).all() and np.abs(first[:, 2] - second[:, 2]).max() < tolerance)


SALTS = {"rocksalt": "Li Na K Rb Ag Mg Ca", "CsCl": "Cs Tl Fe Ni", "zincblende": "Zn Cd Hg Ga In"}


def small_data(folder, count: int = 60) -> None:
    """Training arrays of `count` crystals of four prototypes in arbitrary settings."""
    random = np.random.default_rng(0)
    rows = []
    for k in range(count):
        kind = ("rocksalt", "CsCl", "zincblende", "perovskite")[k % 4]
        atoms = build(kind)
        if kind == "perovskite":
            names = [str(random.choice(words.split())) for words in ("Ca Sr Ba", "Ti Zr Hf Sn", "O S")]
            swap = dict(zip([38, 22, 8], Atoms("".join(names)).numbers, strict=True))
        else:
            names = [str(random.choice(SALTS[kind].split())), str(random.choice("F Cl Br I Se Te".split()))]
            swap = dict(zip(build(kind).numbers, Atoms("".join(names)).numbers, strict=True))
        atoms.numbers = [swap[z] for z in atoms.numbers]
        atoms.set_cell(atoms.cell.array * random.uniform(0.95, 1.1), scale_atoms=True)
        atoms = rewritten(atoms, k)
        rows.append(Row(str(k), atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers))
    write_arrays(rows, folder, source="made for the test")


def truth(metal: str, anion: str) -> tuple[float, float, float]:
    """Parameter, shape and log volume ratio of a rutile, linear in the features of its elements."""
    features = element_features()[[atomic_numbers[metal], atomic_numbers[anion]]]
    x = 0.300 + 0.006 * features[0, 0] - 0.005 * features[1, 1]
    shape = -0.36 + 0.02 * features[0, 1] + 0.01 * features[1, 2]
    return float(x), float(shape), float(0.05 + 0.03 * features[0, 2] - 0.03 * features[1, 0])


def rutile(metal: str, anion: str) -> Atoms:
    x, shape, ratio = truth(metal, anion)
    volumes = atomic_volumes()
    volume = 2 * np.exp(ratio) * (volumes[atomic_numbers[metal]] + 2 * volumes[atomic_numbers[anion]])
    sites = [(metal, "2a", ()), (anion, "4f", (x,))]
    return crystal_from_sites(136, sites, conventional_cell("tetragonal", volume, np.array([shape])))[0]
