"""Thermal properties of a stable crystal in the harmonic approximation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import units

_THZ = 4.135667696e-3  # eV, Planck's constant times 10¹² Hz
_ZERO = 1e-3  # THz; below it a mode is a translation


@dataclass(frozen=True)
class Thermal:
    """What phonons say about a crystal at a temperature."""

    temperature: float
    """K."""
    zero_point_energy: float
    """eV/atom."""
    free_energy: float
    """Of the phonons, zero-point energy included, eV/atom."""
    heat_capacity: float
    """At constant volume, k_B per atom (3 at high temperature)."""


def thermal(frequencies: np.ndarray, weights: np.ndarray, atoms: int, temperature: float = 300.0) -> Thermal:
    """Thermal properties from frequencies on a mesh.

    Parameters
    ----------
    frequencies : array, shape (points, modes), THz
        Those that are not above zero are left out.
    weights : array, shape (points,)
        How often each point counts.
    atoms : int
        In the primitive cell.
    temperature : float, K
    """
    share = np.broadcast_to((weights / weights.sum())[:, None], frequencies.shape)
    energy, share = frequencies[frequencies > _ZERO] * _THZ, share[frequencies > _ZERO]
    kt = units.kB * temperature
    x = energy / kt
    return Thermal(
        temperature=temperature,
        zero_point_energy=float((share * energy).sum() / 2 / atoms),
        free_energy=float((share * (energy / 2 + kt * np.log1p(-np.exp(-x)))).sum() / atoms),
        heat_capacity=float((share * (x / 2 / np.sinh(np.minimum(x, 500.0) / 2)) ** 2).sum() / atoms),
    )
