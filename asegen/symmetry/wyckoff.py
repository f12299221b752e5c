"""Wyckoff positions: coordinates, site symmetry, and the operations that carry one atom around its orbit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from .settings import Setting, to_primitive

#: Letters in the order of International Tables; the 27th position of Pmmm is called A (alpha).
LETTERS = "abcdefghijklmnopqrstuvwxyzA"

_TERM = re.compile(r"([+-]?)(\d+/\d+|\d+)?([xyz])?")


@dataclass(frozen=True, eq=False)
class WyckoffPosition:
    """One Wyckoff position of a group in its standard setting."""

    letter: str
    """a, b, c, …; a is the most symmetric."""
    multiplicity: int
    """Atoms of an orbit in the conventional cell, as in International Tables."""
    multiplicity_primitive: int
    """Atoms of an orbit in the primitive cell."""
    site_symmetry: str
    """Oriented site-symmetry symbol, such as ``4mm.m``."""
    coordinates: str
    """First coordinates of the position, such as ``x,1/4,z``."""
    setting: Setting
    """Setting that the coordinates refer to."""

    def __repr__(self) -> str:
        return f"WyckoffPosition({self.label}: {self.coordinates}; {self.site_symmetry})"

    @property
    def label(self) -> str:
        """Multiplicity and letter as in International Tables: ``"4c"``."""
        return f"{self.multiplicity}{self.letter}"

    @property
    def dof(self) -> int:
        """Free parameters, 0 to 3."""
        return int(self.basis.shape[1])

    @cached_property
    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        return read_coordinates(self.coordinates)

    @property
    def origin(self) -> np.ndarray:
        """Part of the coordinates without parameters, shape (3,): ``x = origin + basis @ parameters``."""
        return self._affine[0]

    @property
    def basis(self) -> np.ndarray:
        """Directions of the free parameters in the conventional cell, shape (3, d)."""
        return self._affine[1]

    def point(self, parameters: np.ndarray | None = None) -> np.ndarray:
        """Conventional coordinates of the representative atom, shape (3,).

        Parameters
        ----------
        parameters : array, shape (d,)
            The free parameters in the order x, y, z.
        """
        if self.dof == 0:
            return self.origin
        return self.origin + self.basis @ np.asarray(parameters, dtype=float)

    def orbit_operations(self, primitive: bool) -> tuple[np.ndarray, np.ndarray]:
        """Operations that take the representative to each atom of its orbit, the identity first.

        Parameters
        ----------
        primitive : bool
            In the primitive cell and its basis, else in the conventional one.

        Returns
        -------
        rotations : ndarray, shape (m, 3, 3), int
            Of ``f' = W f + w`` (columns).
        translations : ndarray, shape (m, 3)
        """
        return self._primitive_orbit if primitive else self._conventional_orbit

    @cached_property
    def _cosets(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Conventional operations, point-group part only: one per atom of the primitive orbit, and those that fix the site."""
        rotations, translations = self.setting.rotations, self.setting.translations
        # an image of the whole position: where its origin goes (in primitive lattice vectors) and how its directions turn
        inverse = np.linalg.inv(self.setting.primitive)
        places = (rotations @ self.origin + translations) @ inverse
        turned = (rotations @ self.basis).reshape(len(rotations), -1)
        away = places[:, None] - places[None]
        same = (np.abs(away - np.rint(away)).max(-1) < 1e-6) & (np.abs(turned[:, None] - turned[None]).sum(-1) < 1e-6)
        identity = int(np.flatnonzero((rotations == np.eye(3, dtype=int)).all((1, 2)))[0])
        first = np.unique(same.argmax(1))
        first = np.concatenate([[identity], first[~same[identity][first]]])
        return rotations[first], translations[first], np.flatnonzero(same[identity])

    @cached_property
    def _primitive_orbit(self) -> tuple[np.ndarray, np.ndarray]:
        rotations, translations, _ = self._cosets
        return to_primitive(rotations, translations, self.setting.primitive)

    @cached_property
    def _conventional_orbit(self) -> tuple[np.ndarray, np.ndarray]:
        rotations, translations, _ = self._cosets
        centrings = self.setting.centrings
        shifted = (translations[None] + centrings[:, None]).reshape(-1, 3)
        return np.tile(rotations, (len(centrings), 1, 1)), shifted

    def stabilizer(self, primitive: bool) -> tuple[np.ndarray, np.ndarray]:
        """Operations that leave the representative where it is for all parameters, lattice vectors included, shapes (h, 3, 3), (h, 3)."""
        return self._primitive_stabilizer if primitive else self._conventional_stabilizer

    @cached_property
    def _conventional_stabilizer(self) -> tuple[np.ndarray, np.ndarray]:
        rotations = self.setting.rotations[self._cosets[2]]
        # exactly the translation that fixes the origin of the position
        return rotations, self.origin - rotations @ self.origin

    @cached_property
    def _primitive_stabilizer(self) -> tuple[np.ndarray, np.ndarray]:
        return to_primitive(*self._conventional_stabilizer, self.setting.primitive)

    def parameters_of(self, point: np.ndarray, tolerance: float = 1e-4) -> np.ndarray | None:
        """Free parameters that put an atom of the orbit on a point, or None if no atom of the orbit can lie there.

        Parameters
        ----------
        point : ndarray, shape (3,)
            Conventional coordinates.
        tolerance : float
            In fractional coordinates.
        """
        rotations, translations = self.setting.operations(primitive=False)
        images = rotations @ point + translations - self.origin
        lift, fold = self._quotient
        # near the position itself: remove the lattice vector that leads to the nearest parallel copy of it
        near = images - np.rint(images @ fold.T) @ lift.T
        parameters = near @ np.linalg.pinv(self.basis).T
        away = np.abs(near - parameters @ self.basis.T).max(-1)
        best = int(away.argmin())
        return parameters[best] if away[best] < tolerance else None

    @cached_property
    def _quotient(self) -> tuple[np.ndarray, np.ndarray]:
        rotations, _ = self.stabilizer(primitive=False)
        return quotient(rotations)


def quotient(rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integer matrices that find which lattice translate of the fixed points of a site-symmetry group is near.

    The fixed points form a plane, line or point, repeated by those lattice vectors that do not lie along it. With a unimodular
    matrix U whose last d columns span the lattice vectors along it, the first 3 − d components of ``U⁻¹ v`` count the
    translates.

    Parameters
    ----------
    rotations : ndarray, shape (h, 3, 3), int
        All rotations of the group.

    Returns
    -------
    lift : ndarray, shape (3, 3), int
        U with the last d columns zero.
    fold : ndarray, shape (3, 3), int
        U⁻¹ with the last d rows zero: ``lift @ rint(fold @ v)`` is the lattice vector to the translate nearest to ``v``.
    """
    identity = np.eye(3, dtype=np.int64)
    equations = (len(rotations) * identity - rotations.sum(0)).astype(np.int64)
    columns, unimodular = equations.copy(), identity.copy()
    row = done = 0
    # column echelon form by Euclid's algorithm; the columns that end up zero belong to the kernel
    while row < 3 and done < 3:
        live = [c for c in range(done, 3) if columns[row, c] != 0]
        if not live:
            row += 1
            continue
        pivot = min(live, key=lambda c: abs(int(columns[row, c])))
        for c in live:
            if c != pivot:
                times = columns[row, c] // columns[row, pivot]
                columns[:, c] -= times * columns[:, pivot]
                unimodular[:, c] -= times * unimodular[:, pivot]
        if len(live) == 1:
            columns[:, [done, pivot]] = columns[:, [pivot, done]]
            unimodular[:, [done, pivot]] = unimodular[:, [pivot, done]]
            done, row = done + 1, row + 1
    inverse = np.rint(np.linalg.inv(unimodular)).astype(np.int64)
    across = np.arange(3) < done
    return unimodular * across[None, :], inverse * across[:, None]


def read_coordinates(text: str) -> tuple[np.ndarray, np.ndarray]:
    """``"x,-x+1/2,1/4"`` as origin (3,) and basis (3, d), the parameters in the order x, y, z."""
    rows = []
    for component in text.split(","):
        row = [Fraction(0)] * 4
        for sign, number, variable in _TERM.findall(component.replace(" ", "")):
            if number or variable:
                value = Fraction(number) if number else Fraction(1)
                row["xyz".index(variable) if variable else 3] += -value if sign == "-" else value
        rows.append(row)
    matrix = np.array([[float(value) for value in row] for row in rows])
    used = np.flatnonzero(np.abs(matrix[:, :3]).sum(0) > 0)
    return matrix[:, 3], matrix[:, used]
