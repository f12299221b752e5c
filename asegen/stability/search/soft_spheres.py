"""Atoms as soft spheres: pushed apart until none overlap, before a real potential sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import covalent_radii
from ase.stress import full_3x3_to_voigt_6_stress

from ..coordinates import CrystalCoordinates
from ..quasi_newton import TrustBFGS

CLOSEST = 0.75
"""Distance at which spheres touch over the sum of the covalent radii; 99 % of the MP-20 training crystals keep more."""
_ROOM = 1.03  # spheres are pushed as if so much larger, so that the wanted distance is reached and not only approached
_STIFFNESS = 10.0  # eV/Å², of the size that CrystalCoordinates expects


class SoftSphere(Calculator):
    """Harmonic repulsion of spheres that overlap.

    ::

        E = Σ_pairs ½ k max(0, d_ij − r_ij)²

    over all pairs, images included, with ``d_ij`` the distance at which i and j touch.

    Parameters
    ----------
    numbers : sequence of int, shape (N,)
        Atomic numbers of the crystal.
    closest : float
        ``d_ij`` over the sum of the covalent radii.
    stiffness : float
        k, eV/Å².

    References
    ----------
    Pickard and Needs, J. Phys.: Condens. Matter 23, 053201 (2011), section 4; radii: Cordero et al., Dalton Trans. 2832 (2008).
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]
    energy_in_ev = False

    def __init__(self, numbers: Sequence[int] | np.ndarray, closest: float = CLOSEST, stiffness: float = _STIFFNESS) -> None:
        super().__init__()
        self.touching = touching_distances(numbers, closest)
        self.stiffness = stiffness

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Energy (eV), forces (eV/Å) and stress (eV/Å³) of the crystal."""
        super().calculate(atoms, properties, system_changes)
        first, distance, vector, touch = _close_pairs(self.atoms, self.touching)
        overlap = touch - distance
        push = (self.stiffness * overlap / np.maximum(distance, 1e-12))[:, None] * vector  # on the second atom
        forces = np.zeros((len(self.atoms), 3))
        np.subtract.at(forces, first, push)
        # every pair comes twice, once from each side
        energy = 0.25 * self.stiffness * float((overlap**2).sum())
        stress = -0.5 * push.T @ vector / self.atoms.get_volume()
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "stress": full_3x3_to_voigt_6_stress(stress)}


def touching_distances(numbers: Sequence[int] | np.ndarray, closest: float = CLOSEST) -> np.ndarray:
    """Distance at which each pair of atoms touches, shape (N, N), Å: `closest` times the sum of their covalent radii."""
    radii = covalent_radii[np.asarray(numbers)]
    return closest * (radii[:, None] + radii[None, :])


def overlaps(atoms: Atoms, closest: float = CLOSEST) -> bool:
    """Whether a pair of atoms, images included, is closer than `closest` times the sum of its covalent radii."""
    return len(_close_pairs(atoms, touching_distances(atoms.numbers, closest))[0]) > 0


def push_apart(atoms: Atoms, closest: float = CLOSEST, steps: int = 60) -> bool:
    """Push the atoms of a crystal apart, in place: first in its cell, and where they find no room there, with a growing cell.

    Parameters
    ----------
    atoms : ase.Atoms
        A `SpaceGroup` constraint is kept.
    closest : float
        Distance wanted over the sum of the covalent radii.
    steps : int
        Of each of the two.

    Returns
    -------
    bool
        Whether every pair is as far apart as wanted.
    """
    before = atoms.calc
    atoms.calc = SoftSphere(atoms.numbers, _ROOM * closest)
    try:
        return _push(atoms, False, closest, steps) or _push(atoms, True, closest, steps)
    finally:
        atoms.calc = before


def _push(atoms: Atoms, cell: bool, closest: float, steps: int) -> bool:
    if not overlaps(atoms, closest):
        return True
    crystal = CrystalCoordinates(atoms, cell)
    if crystal.ndofs() == 0:
        return False
    optimizer = TrustBFGS(crystal)
    for number in range(1, steps + 1):
        optimizer.step()
        if not overlaps(atoms, closest):
            return True
        # pressed from all sides: a larger cell is the only way
        if number % 10 == 0 and max(crystal.residuals()) < 0.02:
            return False
    return False


def _close_pairs(atoms: Atoms, touching: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that overlap, both directions: first atom, distance (Å), vector to the second (Å), distance at which they touch (Å)."""
    from vesin import NeighborList

    first, second, distance, vector = NeighborList(cutoff=float(touching.max()), full_list=True).compute(
        points=atoms.positions, box=atoms.cell.array, periodic=True, quantities="ijdD"
    )
    touch = touching[first, second]
    close = distance < touch
    return first[close].astype(int), distance[close], vector[close], touch[close]
