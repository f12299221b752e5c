"""The lattice variable: the rotation-free logarithm of the cell.

A cell ``C`` has lattice vectors as rows, ``r = f @ C``. Rotating the crystal turns ``C`` into ``C @ R``
and leaves the metric ``G = C @ C.T`` alone, so the symmetric matrix

    k = 1/2 log(C C^T)                                                      (3, 3), log Å

holds everything about the cell but its orientation. ``trace(k)`` is the logarithm of the volume. Strains
are added to ``k`` the way ``ase.filters.FrechetCellFilter`` adds them to its log-deformation.

Everything here works on batches of tensors, shape ``(..., 3, 3)``.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# Order of the six independent components, ASE's Voigt order: xx yy zz yz xz xy.
VOIGT_ROWS = (0, 1, 2, 1, 0, 0)
VOIGT_COLS = (0, 1, 2, 2, 2, 1)


def log_metric(cell: Tensor) -> Tensor:
    """Rotation-free log of the cell, ``1/2 log(C C^T)``.

    Parameters
    ----------
    cell : Tensor, shape (..., 3, 3), Å
        Rows are lattice vectors.

    Returns
    -------
    Tensor, shape (..., 3, 3)
        Symmetric; its trace is ``log(volume)``.
    """
    metric = cell @ cell.transpose(-1, -2)
    values, vectors = torch.linalg.eigh(metric)
    return 0.5 * _rebuild(vectors, values.log())


def cell_from_log(log_cell: Tensor) -> Tensor:
    """Symmetric cell matrix ``exp(k)``, one of the orientations with that log metric, shape (..., 3, 3), Å."""
    values, vectors = torch.linalg.eigh(log_cell)
    return _rebuild(vectors, values.exp())


def standard_cell(cell: Tensor) -> Tensor:
    """The same lattice turned so that a lies along x and b in the xy plane, right-handed, shape (..., 3, 3)."""
    metric = cell @ cell.transpose(-1, -2)
    return torch.linalg.cholesky(metric)


def turn_cell(new_log: Tensor, cell: Tensor) -> Tensor:
    """The cell with log metric `new_log` in the orientation of `cell`.

    A cell is ``exp(k) Q`` with a rotation (or rotation-inversion) ``Q``; this replaces ``k`` and keeps ``Q``,
    so that a lattice step never turns the crystal.
    """
    inverse = cell_from_log(-log_metric(cell))
    return cell_from_log(new_log) @ (inverse @ cell)


def pack(matrix: Tensor) -> Tensor:
    """Symmetric matrices (..., 3, 3) to an orthonormal six-vector (..., 6), order xx yy zz yz xz xy.

    Off-diagonal components carry a factor √2, so that dot products and norms are those of the matrices and
    a standard normal six-vector is the Gaussian ensemble that rotations and axis permutations leave alone.
    """
    flat = matrix[..., VOIGT_ROWS, VOIGT_COLS]
    return flat * _weights(flat)


def unpack(vector: Tensor) -> Tensor:
    """Inverse of :func:`pack`, (..., 6) to (..., 3, 3)."""
    flat = vector / _weights(vector)
    order = torch.tensor([[0, 5, 4], [5, 1, 3], [4, 3, 2]], device=vector.device)
    return flat[..., order]


def strain_gradient(log_gradient: Tensor, cell: Tensor) -> Tensor:
    """Gradient with respect to a symmetric strain ε of ``C → C (1 + ε)``, from the gradient with respect to k.

    With ``G = C C^T`` one has ``dk = 1/2 Dlog_G[2 C dε C^T]``, and the derivative of the matrix logarithm is
    its own adjoint, so ``∂/∂ε = C^T Dlog_G[∂/∂k] C`` (Daleckii and Krein's formula in the eigenbasis of G).

    Parameters
    ----------
    log_gradient : Tensor, shape (..., 3, 3)
        Symmetric gradient with respect to the matrix ``k`` (``dL = sum_ij gradient_ij dk_ij``).
    cell : Tensor, shape (..., 3, 3), Å

    Returns
    -------
    Tensor, shape (..., 3, 3)
        Symmetric, in the Cartesian frame of `cell`.
    """
    vectors, ratio = _log_derivative(cell)
    inner = vectors.transpose(-1, -2) @ log_gradient @ vectors
    derivative = vectors @ (ratio * inner) @ vectors.transpose(-1, -2)
    return cell.transpose(-1, -2) @ derivative @ cell


def log_gradient(strain_gradient: Tensor, cell: Tensor) -> Tensor:
    """Inverse of :func:`strain_gradient`: gradient with respect to k from the one with respect to ε."""
    vectors, ratio = _log_derivative(cell)
    inverse = torch.linalg.inv(cell)
    inner = vectors.transpose(-1, -2) @ (inverse.transpose(-1, -2) @ strain_gradient @ inverse) @ vectors
    return vectors @ (inner / ratio) @ vectors.transpose(-1, -2)


def strain_to_log(strain: Tensor, cell: Tensor) -> Tensor:
    """Change of the log metric under a small symmetric strain ε of ``C → C (1 + ε)``: ``dk = Dlog_G[C ε C^T]``."""
    vectors, ratio = _log_derivative(cell)
    inner = vectors.transpose(-1, -2) @ (cell @ strain @ cell.transpose(-1, -2)) @ vectors
    return vectors @ (ratio * inner) @ vectors.transpose(-1, -2)


def _log_derivative(cell: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors of the metric and the divided differences of the logarithm at its eigenvalues."""
    metric = cell @ cell.transpose(-1, -2)
    values, vectors = torch.linalg.eigh(metric)
    difference = values[..., :, None] - values[..., None, :]
    log_values = values.log()
    log_difference = log_values[..., :, None] - log_values[..., None, :]
    mean = 0.5 * (values[..., :, None] + values[..., None, :])
    close = difference.abs() < 1e-6 * mean
    ratio = torch.where(close, 1.0 / mean, log_difference / torch.where(close, torch.ones_like(mean), difference))
    return vectors, ratio


def _rebuild(vectors: Tensor, values: Tensor) -> Tensor:
    return (vectors * values[..., None, :]) @ vectors.transpose(-1, -2)


def _weights(like: Tensor) -> Tensor:
    return _weights_in(like.dtype, like.device)


@cache
def _weights_in(dtype: torch.dtype, device: torch.device) -> Tensor:
    root = 2.0**0.5
    return torch.tensor([1.0, 1.0, 1.0, root, root, root], dtype=dtype, device=device)
