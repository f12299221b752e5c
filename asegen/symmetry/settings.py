"""Hall settings: the operations of a space group in one choice of axes and origin, conventional and primitive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

#: Rows are primitive lattice vectors in units of the conventional ones: spglib's standard primitive cells.
PRIMITIVE_CELLS: dict[str, np.ndarray] = {
    "P": np.eye(3),
    "A": np.array([[1, 0, 0], [0, 1 / 2, 1 / 2], [0, -1 / 2, 1 / 2]]),
    "B": np.array([[1 / 2, 0, 1 / 2], [0, 1, 0], [-1 / 2, 0, 1 / 2]]),
    "C": np.array([[1 / 2, -1 / 2, 0], [1 / 2, 1 / 2, 0], [0, 0, 1]]),
    "I": np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2,
    "F": np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2,
    "R": np.array([[2, 1, 1], [-1, 1, 1], [-1, -2, 1]]) / 3,
}
for _cell in PRIMITIVE_CELLS.values():
    _cell.setflags(write=False)

#: Lattice points in a conventional cell of each centring.
LATTICE_POINTS = {letter: round(1 / float(np.linalg.det(cell))) for letter, cell in PRIMITIVE_CELLS.items()}


@dataclass(frozen=True, eq=False)
class Setting:
    """A space group in one of spglib's 530 settings (Hall symbols)."""

    hall_number: int
    """1 to 530."""
    number: int
    """Number of the space group, 1 to 230."""
    choice: str
    """spglib's name of the setting: unique axis, axes or origin choice; ``""`` where there is only one."""
    centring: str
    """P, A, B, C, I, F or R; P for R groups on rhombohedral axes."""
    rotations: np.ndarray
    """Rotations W of ``f' = W f + w`` (columns) in the conventional cell, one per coset of the lattice, shape (g, 3, 3), int."""
    translations: np.ndarray
    """Translations w, shape (g, 3)."""

    @cached_property
    def primitive(self) -> np.ndarray:
        """Primitive lattice vectors (rows) in units of the conventional ones, shape (3, 3)."""
        return PRIMITIVE_CELLS[self.centring]

    @cached_property
    def centrings(self) -> np.ndarray:
        """Lattice points of the conventional cell, the origin first, shape (c, 3)."""
        steps = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
        return unique_modulo(steps @ self.primitive)

    def operations(self, primitive: bool) -> tuple[np.ndarray, np.ndarray]:
        """All operations modulo the lattice of the cell asked for.

        Parameters
        ----------
        primitive : bool
            Of the primitive cell, else of the conventional one (then with the centring translations).

        Returns
        -------
        rotations : ndarray, shape (g, 3, 3), int
        translations : ndarray, shape (g, 3)
        """
        return self._primitive_operations if primitive else self._conventional_operations

    @cached_property
    def _primitive_operations(self) -> tuple[np.ndarray, np.ndarray]:
        return to_primitive(self.rotations, self.translations, self.primitive)

    @cached_property
    def _conventional_operations(self) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.centrings)
        shifted = (self.translations[None] + self.centrings[:, None]).reshape(-1, 3)
        return np.tile(self.rotations, (count, 1, 1)), shifted


def to_primitive(rotations: np.ndarray, translations: np.ndarray, primitive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Operations in the primitive basis: with ``f = Mᵀ f_p`` for ``M = primitive``, W becomes ``M⁻ᵀ W Mᵀ``."""
    inverse = np.linalg.inv(primitive)
    turned = inverse.T @ rotations @ primitive.T
    whole = np.rint(turned).astype(np.int64)
    return whole, np.asarray(translations) @ inverse


def unique_modulo(points: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """The points that differ by more than a lattice vector, in [0, 1), in the order of first appearance, shape (m, d)."""
    wrapped = points - np.floor(points + tolerance)
    distance = wrapped[:, None] - wrapped[None]
    same = np.abs(distance - np.rint(distance)).max(-1) < tolerance
    return wrapped[same.argmax(1) == np.arange(len(wrapped))]


@cache
def setting(hall_number: int) -> Setting:
    """The setting of a Hall number (1 to 530)."""
    import spglib

    kind: Any = spglib.get_spacegroup_type(hall_number)
    operations: Any = spglib.get_symmetry_from_database(hall_number)
    rotations = operations["rotations"].astype(np.int64)
    _, first = np.unique(rotations.reshape(-1, 9), axis=0, return_index=True)
    chosen = np.sort(first)
    # spglib's translations are 1/3 and the like to 12 digits or so: make them exact
    translations = np.rint(operations["translations"][chosen] * 24) / 24
    # the Hall symbol's letter: the short symbol keeps C for a monoclinic cell centred on A or I
    centring = kind.hall_symbol.lstrip("-")[0]
    return Setting(hall_number, int(kind.number), kind.choice, centring, rotations[chosen], translations)


@cache
def halls_of(number: int) -> tuple[int, ...]:
    """Hall numbers of all settings of a space group, in spglib's order."""
    return tuple(hall for hall, other in enumerate(_numbers(), start=1) if other == number)


@cache
def _numbers() -> tuple[int, ...]:
    import spglib

    kinds: list[Any] = [spglib.get_spacegroup_type(hall) for hall in range(1, 531)]
    return tuple(int(kind.number) for kind in kinds)
