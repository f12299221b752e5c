"""From the elements on its sites to the geometry of a prototype: free parameters, axial ratios, volume.

Linear in element features, one small ridge regression per prototype; prototypes with few examples keep their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ..lattice import VOIGT_COLS, VOIGT_ROWS
from ..networks.base import element_table
from ..prior import atomic_volumes
from ..symmetry.groups import space_group
from ..symmetry.lattices import STRAIN_BASES, reference_cell
from ..symmetry.wyckoff import WyckoffPosition, quotient
from .alignment import Cluster

#: Ridge penalty in units of the (standardized) features.
PENALTY = 2.0
_FEWEST = 5
_TYPICAL = (0.03, 0.03, 0.05)  # one example says nothing about its spread
_NUMERIC = slice(29, 35)  # electronegativity, atomic and ionic radius, Mendeleev number, least and largest oxidation state


@cache
def element_features() -> np.ndarray:
    """Features of each element for the regression, about unit size, shape (119, 7)."""
    known = np.zeros((119, 6))
    known[1:] = np.array(element_table())[:, _NUMERIC]
    volumes = np.log(np.nan_to_num(atomic_volumes(), nan=18.0))
    volumes = (volumes - volumes[1:95].mean()) / volumes[1:95].std()
    return np.concatenate([known, volumes[:, None]], axis=1)


@dataclass(frozen=True)
class Geometry:
    """Sites of a prototype and the regression of its numbers."""

    letters: str
    """Wyckoff letter of each site."""
    slots: tuple[int, ...]
    """Slot (element) of each site."""
    mean: np.ndarray
    """Free parameters of all sites, shape of the conventional cell, log(volume / atomic volumes); shape (d,)."""
    slope: np.ndarray
    """Change of these per element feature, shape (slots · features, d), or (0, d) for prototypes with few examples."""
    centre: np.ndarray
    """Mean features of the examples, shape (slots · features,) or (0,)."""
    spread: np.ndarray
    """Expected errors: of the positions, in (V/N)^(1/3); of the log-strain; of the log volume. Shape (3,)."""

    def predict(self, elements: np.ndarray) -> np.ndarray:
        """The numbers for elements in the slots, shape (d,)."""
        if not len(self.slope):
            return self.mean
        return self.mean + (element_features()[elements].ravel() - self.centre) @ self.slope


def locate(position: WyckoffPosition, point: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Where on a Wyckoff position an atom of its orbit sits.

    Parameters
    ----------
    position : WyckoffPosition
    point : ndarray, shape (3,)
        Conventional coordinates, near the position.

    Returns
    -------
    parameters : ndarray, shape (d,)
    turn : ndarray, shape (d, 3)
        Change of the parameters with the point.
    away : float
        Distance from the position, in fractional coordinates.
    """
    rotations, translations = position.setting.operations(primitive=False)
    images = rotations @ point + translations - position.origin
    lift, fold = quotient(position.stabilizer(primitive=False)[0])
    near = images - np.rint(images @ fold.T) @ lift.T
    inverse = np.linalg.pinv(position.basis)
    parameters = near @ inverse.T
    away = np.abs(near - parameters @ position.basis.T).max(-1)
    best = int(away.argmin())
    return parameters[best], inverse @ rotations[best], float(away[best])


@dataclass(frozen=True)
class _Site:
    position: WyckoffPosition
    atom: int
    slot: int
    parameters: np.ndarray
    turn: np.ndarray


def _sites(cluster: Cluster, frac: np.ndarray) -> list[_Site]:
    """Sites of a prototype, `frac` the conventional coordinates of its atoms."""
    group = space_group(cluster.key[0])
    left = np.ones(len(frac), dtype=bool)
    sites = []
    for atom in range(len(frac)):
        if left[atom]:
            position = group.position(str(cluster.letters[atom]))
            parameters, turn, _ = locate(position, frac[atom])
            among = left & (cluster.letters == cluster.letters[atom]) & (cluster.slot == cluster.slot[atom])
            left[_orbit(position, frac[atom], frac, among)] = False
            sites.append(_Site(position, atom, int(cluster.slot[atom]), parameters, turn))
    return sites


def fit_geometry(cluster: Cluster) -> tuple[Geometry, np.ndarray]:
    """Geometry of a prototype from its members, and the numbers of each member, shape (m, d)."""
    system = space_group(cluster.key[0]).lattice_system
    volumes = np.nan_to_num(atomic_volumes(), nan=18.0)
    to_conventional = np.linalg.inv(cluster.conventional)
    reference = cluster.frac @ to_conventional
    moved = np.array([member.frac @ to_conventional for member in cluster.members]) - reference
    sites = _sites(cluster, reference)
    parameters = [site.parameters + moved[:, site.atom] @ site.turn.T for site in sites]
    metrics = [cluster.conventional @ member.metric @ cluster.conventional.T for member in cluster.members]
    elements = np.array([member.elements for member in cluster.members])
    volume = np.log([m.volume / volumes[np.array(m.elements)[cluster.slot]].sum() for m in cluster.members])
    values = np.concatenate([*parameters, np.array([_shape(system, metric) for metric in metrics]), volume[:, None]], axis=1)
    mean = values.mean(0)
    features = element_features()[elements].reshape(len(elements), -1)
    count = len(values)
    if count < _FEWEST:
        slope, centre = np.zeros((0, values.shape[1])), np.zeros(0)
        error = (values - mean) * 2**0.5
    else:
        centre = features.mean(0)
        centred = features - centre
        solved = np.linalg.solve(centred.T @ centred + PENALTY * np.eye(centred.shape[1]), centred.T)
        slope = solved @ (values - mean)
        # errors as if each example had been left out
        leverage = np.diag(centred @ solved) + 1 / count
        error = (values - mean - centred @ slope) / np.clip(1 - leverage, 0.1, None)[:, None]
    spread = _spread(cluster, sites, error) if count > 1 else np.array(_TYPICAL)
    letters = "".join(site.position.letter for site in sites)
    return Geometry(letters, tuple(site.slot for site in sites), mean, slope, centre, spread), values


def _spread(cluster: Cluster, sites: list[_Site], error: np.ndarray) -> np.ndarray:
    """Root mean square errors of positions, log-strain and log volume."""
    count = len(cluster.slot)
    cell = np.linalg.cholesky(cluster.conventional @ cluster.metric @ cluster.conventional.T * count ** (2 / 3))
    square, first = 0.0, 0
    for site in sites:
        last = first + site.position.dof
        wide = error[:, first:last] @ site.position.basis.T @ cell
        square += site.position.multiplicity_primitive * float((wide**2).sum(1).mean())
        first = last
    strain = error[:, first:-1]
    return np.sqrt([square / count, float((strain**2).sum(1).mean()), float((error[:, -1] ** 2).mean())])


def _orbit(position: WyckoffPosition, point: np.ndarray, points: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Atoms of the orbit of a point: for each image the nearest of those left, as many as the position has in the primitive cell."""
    rotations, translations = position.setting.operations(primitive=False)
    images = rotations @ point + translations
    rows = np.flatnonzero(among)
    away = images[:, None] - points[rows][None]
    centrings = position.setting.centrings
    length = np.min([np.abs(away - c - np.rint(away - c)).max(-1) for c in centrings], axis=0).min(0)
    return rows[np.argsort(length, kind="stable")[: position.multiplicity_primitive]]


def _shape(system: str, metric: np.ndarray) -> np.ndarray:
    """Log-strain of a conventional cell against the reference cell of its system, without volume, shape (k − 1,)."""
    values = np.linalg.det(metric)
    inverse = np.linalg.inv(reference_cell(system))
    unit = inverse @ (metric / values ** (1 / 3)) @ inverse.T
    eigen, vectors = np.linalg.eigh(unit)
    strain = (vectors * (0.5 * np.log(eigen))) @ vectors.T
    packed = strain[VOIGT_ROWS, VOIGT_COLS] * np.array([1, 1, 1, 2**0.5, 2**0.5, 2**0.5])
    return STRAIN_BASES[system][1:] @ packed


__all__ = ["Geometry", "element_features", "fit_geometry", "locate"]
