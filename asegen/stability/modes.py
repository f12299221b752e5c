"""Phonon modes: which are degenerate, what moves in them, and crystals displaced along them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.geometry import minkowski_reduce

from .phonon_cells import Star, commensurate_cell, spelled

DEGENERATE = 0.02
"""Modes at one wave vector closer than this, THz, are partners."""


@dataclass(frozen=True)
class Mode:
    """One frequency at one star of wave vectors, with all its partners."""

    frequency: float
    """THz; imaginary as negative."""
    q: tuple[float, float, float]
    """Wave vector, fractional in the primitive reciprocal cell."""
    label: str
    """``"Γ"``, ``"R"``, …; empty where `q` is no special point."""
    degeneracy: int
    """Modes of this frequency at this wave vector."""
    star: int
    """Wave vectors equal to this one by symmetry."""
    moves: dict[str, float]
    """Share of each element in the squared displacement, largest first."""
    eigenvectors: np.ndarray = field(repr=False, compare=False)
    """Mass-weighted, with the phase at each atom's own place, shape (degeneracy, atoms of the primitive cell, 3), complex."""

    @property
    def where(self) -> str:
        """The wave vector for a person: ``R (1/2, 1/2, 1/2)``."""
        return f"{self.label} {spelled(self.q)}".strip()

    def __str__(self) -> str:
        times = f", {self.degeneracy}-fold" if self.degeneracy > 1 else ""
        moves = ", ".join(f"{symbol} {100 * share:.0f} %" for symbol, share in self.moves.items() if share >= 0.05)
        return f"{self.frequency:.2f} THz at {self.where}{times} ({moves})"


def modes_at(star: Star, frequencies: np.ndarray, eigenvectors: np.ndarray, primitive: Atoms) -> list[Mode]:
    """The modes at a wave vector, lowest first, without the translations at Γ.

    Parameters
    ----------
    star : Star
    frequencies : array, shape (3n,), THz
    eigenvectors : array, shape (3n, 3n)
        Columns, as phonopy gives them.
    primitive : ase.Atoms
    """
    n = len(primitive)
    vectors = eigenvectors.T.reshape(3 * n, n, 3)
    masses = primitive.get_masses()
    kept = np.arange(3 * n)
    if np.abs(star.q - np.round(star.q)).max() < 1e-6:
        weights = translation_weights(vectors, masses)
        kept = np.sort(np.argsort(-weights, kind="stable")[3:])
    found = []
    for group in _groups(frequencies[kept]):
        chosen = kept[group]
        moved = (np.abs(vectors[chosen]) ** 2).sum((0, 2)) / masses
        share = {s: float(moved[np.array(primitive.get_chemical_symbols()) == s].sum() / moved.sum()) for s in set(primitive.symbols)}
        found.append(
            Mode(
                frequency=float(frequencies[chosen].mean()),
                q=(float(star.q[0]), float(star.q[1]), float(star.q[2])),
                label=star.label,
                degeneracy=len(chosen),
                star=star.size,
                moves=dict(sorted(share.items(), key=lambda item: (-item[1], item[0]))),
                eigenvectors=vectors[chosen],
            )
        )
    return found


def translation_weights(vectors: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """How much of each mode is a translation of the whole crystal, 0 to 1.

    Parameters
    ----------
    vectors : array, shape (modes, n, 3)
        Mass-weighted, normalised.
    masses : array, shape (n,)
    """
    weights: np.ndarray = (np.abs(np.einsum("mni,n->mi", vectors, np.sqrt(masses / masses.sum()))) ** 2).sum(-1)
    return weights


def patterns(mode: Mode, primitive: Atoms) -> tuple[Atoms, np.ndarray]:
    """The displacements of a mode in the smallest supercell that it is periodic in.

    The partners are turned so that each moves along one axis as far as the mode allows: for a threefold one of a cubic crystal these
    are the three that symmetry makes equal.

    Parameters
    ----------
    mode : Mode
    primitive : ase.Atoms

    Returns
    -------
    ase.Atoms
        The supercell, not displaced.
    array, shape (k, atoms of the supercell, 3), Å
        Real displacements, each with a largest atomic displacement of 1 Å. k is the degeneracy at wave vectors equal to their
        negative, else twice that (waves can be shifted).

    Raises
    ------
    StabilityError
        The supercell would be too large.
    """
    rows = commensurate_cell(np.array(mode.q))
    rows = minkowski_reduce(rows @ primitive.cell.array)[1] @ rows
    rows = rows if np.linalg.det(rows) > 0 else -rows
    supercell = make_supercell(primitive, rows)
    frac = primitive.cell.scaled_positions(supercell.positions)
    # make_supercell repeats the primitive cell as a whole, atom by atom in its order
    atom = np.tile(np.arange(len(primitive)), round(np.linalg.det(rows)))
    masses = supercell.get_masses()
    waves = mode.eigenvectors[:, atom] * np.exp(2j * np.pi * frac @ np.array(mode.q))[None, :, None]
    real = np.concatenate([waves.real, waves.imag]).reshape(2 * mode.degeneracy, -1)
    _, sizes, basis = np.linalg.svd(real, full_matrices=False)
    basis = basis[sizes > 0.1 * sizes[0]]  # mass-weighted, orthonormal
    axis = np.tile([1.0, 2.0, 3.0], len(supercell))
    basis = np.linalg.eigh((basis * axis) @ basis.T)[1].T @ basis
    moves = basis.reshape(len(basis), -1, 3) / np.sqrt(masses)[None, :, None]
    moves /= np.linalg.norm(moves, axis=2).max(1)[:, None, None]
    # a sign that does not depend on the linear algebra library
    largest = moves.reshape(len(moves), -1)[np.arange(len(moves)), np.abs(np.round(moves.reshape(len(moves), -1), 6)).argmax(1)]
    return supercell, moves * np.sign(largest)[:, None, None]


def combinations(count: int) -> Iterator[tuple[int, ...]]:
    """Which partners to add up with equal weight: each alone, pairs, all; for more than three, the first alone, pairs with it, all."""
    if count <= 3:
        chosen = [c for c in itertools.product((0, 1), repeat=count) if any(c)]
        yield from sorted(chosen, key=lambda c: (sum(c), [-x for x in c]))
        return
    for other in range(count):
        yield tuple(int(i in (0, other)) for i in range(count))
    yield (1,) * count


def displaced(supercell: Atoms, moves: np.ndarray, combination: Sequence[int], amplitude: float) -> Atoms:
    """A crystal displaced along a sum of patterns.

    Parameters
    ----------
    supercell : ase.Atoms
    moves : array, shape (k, n, 3)
    combination : sequence of int, length k
        Weights.
    amplitude : float, Å
        Displacement of the atom that moves most.
    """
    move = np.einsum("k,kni->ni", np.array(combination, dtype=float), moves)
    atoms = supercell.copy()
    atoms.positions += amplitude * move / np.linalg.norm(move, axis=1).max()
    return atoms


def _groups(frequencies: np.ndarray) -> list[np.ndarray]:
    """Indices of sorted frequencies, cut where they differ."""
    if not len(frequencies):
        return []
    cuts = np.flatnonzero(np.diff(frequencies) > DEGENERATE) + 1
    return list(np.split(np.arange(len(frequencies)), cuts))
