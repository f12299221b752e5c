"""Positions and cell of a crystal as one vector that optimizers move: all of them, or those that a space group leaves free."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from ase.stress import voigt_6_to_full_3x3_stress
from ase.utils.abc import Optimizable

from ..calculators.potentials import Evaluation, evaluate
from ..errors import StabilityError
from ..lattice import unpack
from ..symmetry.constraint import SpaceGroup
from ..symmetry.symmetry import Symmetry

# Curvatures that are typical of crystals; only the number of steps depends on them.
_FORCE_CONSTANT = 20.0  # eV/Å² of an atom
_BULK, _SHEAR = 0.8, 0.35  # eV/Å³ (130 and 55 GPa)
_SQRT2 = np.sqrt(2.0)


class CrystalCoordinates(Optimizable):
    """The free coordinates of a crystal, for any ASE optimizer.

    ::

        cell      = cell0 @ expm(U)              U symmetric: no rotations
        positions = (positions0 + D) @ expm(U)   D displacements in the frame of the start

    The vector is ``[D in an orthonormal basis (Å), U in an orthonormal basis times a length]``. Basis vectors are those that the
    space group leaves free; without one, all 3N − 3 displacements without the common translation and six strains. The length
    makes typical curvatures equal (`curvatures`), so that steps along both mean the same.

    Same variable as ``ase.filters.FrechetCellFilter``, but for the rotation, at a tenth of its price.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator; is moved. ``SpaceGroup`` and ``FixAtoms`` constraints are obeyed, other constraints are refused.
        With ``FixAtoms`` the fractional coordinates of these atoms stay.
    cell : bool
        Whether the cell is free.

    Raises
    ------
    StabilityError
        A constraint of another kind, or nothing to move.
    """

    def __init__(self, atoms: Atoms, cell: bool = True) -> None:
        self.atoms = atoms
        self.cell_is_free = cell
        self.calls = 0
        fixed, group = _constraints(atoms)
        self._symmetry = group.symmetry if group is not None else Symmetry.none(len(atoms))
        self._group = group
        self._cell0 = atoms.cell.array.copy()
        self._positions0 = atoms.positions.copy()
        self._displacements = displacement_basis(self._symmetry, self._cell0, fixed).reshape(-1, 3 * len(atoms))
        self._strains = strain_basis(self._symmetry, self._cell0) if cell else np.zeros((0, 3, 3))
        stiff = _elasticity(self._strains) * atoms.get_volume()
        self._lengths = np.sqrt(stiff / _FORCE_CONSTANT)
        self._x = np.zeros(len(self._displacements) + len(self._strains))
        self._latest: tuple[np.ndarray, Evaluation] | None = None

    # what ASE's optimizers ask for

    def ndofs(self) -> int:
        """Number of free coordinates."""
        return len(self._x)

    def get_x(self) -> np.ndarray:
        """The vector, Å."""
        return self._x.copy()

    def set_x(self, x: np.ndarray) -> None:
        """Move the crystal."""
        self._x = np.array(x, dtype=float).reshape(-1)
        stretch, _, _ = _expm(self._strain())
        inner = (self._x[: len(self._displacements)] @ self._displacements).reshape(-1, 3)
        # the constraint is built into the basis; what ASE would do in addition costs time and changes nothing
        self.atoms.set_cell(self._cell0 @ stretch, apply_constraint=False)
        self.atoms.set_positions((self._positions0 + inner) @ stretch, apply_constraint=False)

    def get_gradient(self) -> np.ndarray:
        """Derivatives of the energy along the coordinates, eV/Å."""
        found = self.evaluation()
        stretch, values, vectors = _expm(self._strain())
        along_positions = -found.forces @ stretch
        # dE = V σ : (F⁻¹ dF), then from the stretch F to its logarithm
        virial = self.atoms.get_volume() * np.linalg.solve(stretch, voigt_6_to_full_3x3_stress(found.stress)).T
        inner = vectors.T @ (0.5 * (virial + virial.T)) @ vectors
        along_log = vectors @ (_divided_differences(values) * inner) @ vectors.T
        d = self._displacements @ along_positions.reshape(-1)
        s = self._strains.reshape(-1, 9) @ along_log.reshape(9) / self._lengths
        return np.concatenate([d, s])

    def get_value(self) -> float:
        """Energy, eV."""
        return self.evaluation().energy

    def iterimages(self) -> Iterator[Atoms]:
        """The crystal, for trajectories."""
        yield self.atoms

    def gradient_norm(self, gradient: np.ndarray) -> float:
        """Largest component, eV/Å."""
        return float(np.abs(gradient).max(initial=0.0))

    # what relaxation asks for

    def evaluation(self) -> Evaluation:
        """Energy, forces and stress here, at one call of the potential."""
        if self._latest is None or not np.array_equal(self._latest[0], self._x):
            self.calls += 1
            self._latest = (self._x.copy(), evaluate(self.atoms, stress=self.cell_is_free))
        return self._latest[1]

    def residuals(self) -> tuple[float, float]:
        """Largest force on an atom (eV/Å) and largest component of the stress (eV/Å³) along the free coordinates."""
        found = self.evaluation()
        free = (self._displacements @ found.forces.reshape(-1)) @ self._displacements
        stress = voigt_6_to_full_3x3_stress(found.stress).reshape(9)
        strains = self._strains.reshape(-1, 9)
        left = (strains @ stress) @ strains
        return float(np.linalg.norm(free.reshape(-1, 3), axis=1).max(initial=0.0)), float(np.abs(left).max(initial=0.0))

    def step_size(self, dx: np.ndarray) -> tuple[float, float]:
        """How far a step moves an atom at most (Å), and its largest strain."""
        count = len(self._displacements)
        inner = (dx[:count] @ self._displacements).reshape(-1, 3)
        strain = np.einsum("k,kij->ij", dx[count:] / self._lengths, self._strains)
        return float(np.linalg.norm(inner, axis=1).max(initial=0.0)), float(np.abs(strain).max(initial=0.0))

    def curvatures(self) -> np.ndarray:
        """A guess of the second derivatives' diagonal, eV/Å², shape (ndofs,)."""
        return np.full(len(self._x), _FORCE_CONSTANT)

    def _strain(self) -> np.ndarray:
        return np.einsum("k,kij->ij", self._x[len(self._displacements) :] / self._lengths, self._strains)


def displacement_basis(symmetry: Symmetry, cell: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Orthonormal Cartesian displacements that keep the symmetry and have no part that moves the crystal as a whole.

    Parameters
    ----------
    symmetry : Symmetry
        Of one crystal of N atoms.
    cell : ndarray, shape (3, 3), Å
        With that symmetry.
    fixed : ndarray of bool, shape (N,)
        Atoms that do not move; with any, the common translation is no longer taken out.

    Returns
    -------
    ndarray, shape (m, N, 3)
    """
    count = len(symmetry.site)
    if symmetry.num_sites == count:  # P1: nothing to project
        basis = np.eye(3 * count)[np.repeat(~fixed, 3)]
    else:
        inverse = np.linalg.inv(cell)
        rows = []
        for atom in symmetry.first.tolist():  # the site-symmetric displacements of a first atom carry all others along
            for axis in np.eye(3):
                one = np.zeros((count, 3))
                one[atom] = axis @ inverse
                rows.append((symmetry.displacements(torch.from_numpy(one)).numpy() @ cell).reshape(-1))
        basis = _orthonormal(np.array(rows))
        if fixed.any():
            # a combination that moves a fixed atom is not free
            _, size, right = np.linalg.svd(basis.reshape(len(basis), count, 3)[:, fixed].reshape(len(basis), -1).T, full_matrices=True)
            free = right[int((size > 1e-8).sum()) :]
            basis = free @ basis
    if not fixed.any():
        shifts = np.tile(np.eye(3), (count, 1, 1)).transpose(1, 0, 2).reshape(3, -1) / np.sqrt(count)
        basis = _orthonormal(basis - (basis @ shifts.T) @ shifts)
    return basis.reshape(-1, count, 3)


def strain_basis(symmetry: Symmetry, cell: np.ndarray) -> np.ndarray:
    """Orthonormal symmetric strains that keep the symmetry, the change of volume first, shape (k, 3, 3)."""
    packed = symmetry.strain_basis(torch.from_numpy(cell)[None])[0, : int(symmetry.cell_dof[0])]
    return unpack(packed).numpy()


def _constraints(atoms: Atoms) -> tuple[np.ndarray, SpaceGroup | None]:
    fixed, group = np.zeros(len(atoms), dtype=bool), None
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, SpaceGroup):
            group = constraint
        else:
            raise StabilityError(
                f"the constraint {type(constraint).__name__} is not known here; FixAtoms and asegen.SpaceGroup are (or remove it: "
                "atoms.set_constraint())"
            )
    return fixed, group


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the space of some rows."""
    if not rows.size:
        return rows[:0]
    _, size, right = np.linalg.svd(rows, full_matrices=False)
    return right[size > 1e-6 * max(1.0, float(size.max(initial=0.0)))]


def _elasticity(strains: np.ndarray) -> np.ndarray:
    """Second derivative of an isotropic solid's energy density along each strain, eV/Å³."""
    trace = np.einsum("kii->k", strains)
    shear = np.einsum("kij,kij->k", strains, strains) - trace**2 / 3
    return np.asarray(_BULK * trace**2 + 2 * _SHEAR * shear)


def _expm(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.exp(values)) @ vectors.T, values, vectors


def _divided_differences(values: np.ndarray) -> np.ndarray:
    """(exp a − exp b) / (a − b) for every pair, shape (3, 3)."""
    half = 0.5 * (values[:, None] - values[None, :])
    safe = np.where(np.abs(half) < 1e-6, 1.0, half)
    ratio = np.where(np.abs(half) < 1e-6, 1 + half**2 / 6, np.sinh(safe) / safe)
    return np.asarray(np.exp(0.5 * (values[:, None] + values[None, :])) * ratio)
