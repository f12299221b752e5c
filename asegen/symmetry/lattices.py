"""The seven lattice systems: conventional cells, and the strains that keep them.

In the standard orientation (a along x, b in the xy plane) every cell of a system is ``C exp(ε)``, up to a rotation, with ``C`` one
fixed cell of the system and ``ε`` a symmetric matrix of a linear space: the log-strains that commute with the point operations.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .errors import SymmetryError

_S2, _S3, _S6 = 2**-0.5, 3**-0.5, 6**-0.5
_VOLUME = (_S3, _S3, _S3, 0, 0, 0)
_ALONG_C = (-_S6, -_S6, 2 * _S6, 0, 0, 0)
_A_TO_B = (_S2, -_S2, 0, 0, 0, 0)

#: Orthonormal bases of the log-strains of each system, packed as in :func:`asegen.lattice.pack` (xx yy zz yz xz xy).
#: The first vector is the pure change of volume.
STRAIN_BASES: dict[str, np.ndarray] = {
    "triclinic": np.array([_VOLUME, _ALONG_C, _A_TO_B, (0, 0, 0, 1, 0, 0), (0, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 1)]),
    "monoclinic": np.array([_VOLUME, _ALONG_C, _A_TO_B, (0, 0, 0, 0, 1, 0)]),
    "orthorhombic": np.array([_VOLUME, _ALONG_C, _A_TO_B]),
    "tetragonal": np.array([_VOLUME, _ALONG_C]),
    "rhombohedral": np.array([_VOLUME, _ALONG_C]),
    "hexagonal": np.array([_VOLUME, _ALONG_C]),
    "cubic": np.array([_VOLUME]),
}

#: Free lattice parameters of each system.
DIMENSIONS: dict[str, int] = {system: len(basis) for system, basis in STRAIN_BASES.items()}

_HEXAGONAL = np.array([[1.0, 0.0, 0.0], [-0.5, 0.75**0.5, 0.0], [0.0, 0.0, 1.0]])

#: What each system demands of its conventional cell, for messages.
DEMANDS: dict[str, str] = {
    "triclinic": "nothing",
    "monoclinic": "alpha = gamma = 90°",
    "orthorhombic": "alpha = beta = gamma = 90°",
    "tetragonal": "a = b and three right angles",
    "rhombohedral": "a = b, alpha = beta = 90°, gamma = 120° (hexagonal axes)",
    "hexagonal": "a = b, alpha = beta = 90°, gamma = 120°",
    "cubic": "a = b = c and three right angles",
}


@cache
def reference_cell(system: str) -> np.ndarray:
    """A conventional cell of unit volume, rows, shape (3, 3): the cube, or the hexagonal cell of a = c."""
    if system not in STRAIN_BASES:
        raise SymmetryError(f"there is no lattice system {system!r}; they are {', '.join(STRAIN_BASES)}")
    cell = _HEXAGONAL if system in ("hexagonal", "rhombohedral") else np.eye(3)
    return cell / np.linalg.det(cell) ** (1 / 3)


def conventional_cell(system: str, volume: float, shape: np.ndarray) -> np.ndarray:
    """Conventional cell of a system, a along x and b in the xy plane, rows, shape (3, 3), Å.

    Parameters
    ----------
    system : str
        One of the seven lattice systems.
    volume : float
        Of the conventional cell, Å³.
    shape : ndarray, shape (k,)
        Log-strains along the vectors of ``STRAIN_BASES[system]`` after the first; entries beyond those are not used.

    Returns
    -------
    ndarray, shape (3, 3)
    """
    basis = STRAIN_BASES[system][1:]
    packed = np.asarray(shape, dtype=float)[: len(basis)] @ basis
    values, vectors = np.linalg.eigh(unpacked(packed))
    cell = reference_cell(system) @ (vectors * np.exp(values)) @ vectors.T
    return np.linalg.cholesky(cell @ cell.T) * volume ** (1 / 3)


def unpacked(vector: np.ndarray) -> np.ndarray:
    """Symmetric matrix of a packed six-vector, shape (3, 3); numpy twin of :func:`asegen.lattice.unpack`."""
    xx, yy, zz, yz, xz, xy = vector * np.array([1, 1, 1, _S2, _S2, _S2])
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
