"""Aligning crystals of one prototype: which atom of one is which of the other, and how far they are apart.

Lengths are in units of (V/N)^(1/3), so that crystals of large and small atoms compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from scipy.optimize import linear_sum_assignment

from .standard import Key, StandardCrystal

#: Two crystals with the same key share a prototype if their atoms are closer than this (root mean square) …
POSITION_TOLERANCE = 0.12
#: … and the log-strain between their cells, at equal volume, is smaller than this.
STRAIN_TOLERANCE = 0.15
_STRAIN_WEIGHT = 0.25
_MOST_ORDERS, _MOST_TRIALS, _MOST_ASSIGNMENTS = 24, 600, 40
_NEVER = 1e3


@dataclass
class Aligned:
    """A crystal as a member of a prototype."""

    elements: tuple[int, ...]
    """Atomic numbers in the prototype's slots."""
    frac: np.ndarray
    """Fractional coordinates in the order of the prototype's atoms, next to them, shape (n, 3)."""
    metric: np.ndarray
    """Metric tensor at volume 1, shape (3, 3)."""
    volume: float
    """Å³."""
    distance: float
    """Mean square distance of the atoms plus a quarter of the squared strain."""
    source: int = -1
    """Position in the training data."""


@dataclass
class Cluster:
    """Crystals of one prototype, described by their first."""

    key: Key
    slot: np.ndarray
    """Slot (element) of each atom, shape (n,)."""
    letters: np.ndarray
    """Wyckoff letter of each atom, shape (n,)."""
    frac: np.ndarray
    metric: np.ndarray
    conventional: np.ndarray
    members: list[Aligned] = field(default_factory=list)
    swaps: list[tuple[int, ...]] = field(default_factory=list)
    """Exchanges of slots that leave the prototype as it is, other than none."""

    @classmethod
    def of(cls, crystal: StandardCrystal, source: int) -> Cluster:
        """A prototype with one member."""
        order = crystal.orders[0][0]
        slot = np.array([order.index(int(z)) for z in crystal.numbers])
        made = cls(crystal.key, slot, crystal.letters[0], crystal.frac[0], crystal.metric[0], crystal.conventional)
        made.members.append(Aligned(tuple(order), crystal.frac[0], crystal.metric[0], crystal.volume, 0.0, source))
        made.swaps = self_exchanges(made, crystal)
        return made

    @property
    def counts(self) -> tuple[int, ...]:
        """Atoms per slot."""
        return tuple(-entry[0] for entry in self.key[1])


@cache
def polar_projection(number: int) -> np.ndarray | None:
    """Projection onto the directions in which the origin of a group is free (primitive cell), or None."""
    from ..symmetry.groups import space_group

    mean = space_group(number).setting.operations(primitive=True)[0].mean(0)
    return mean if np.abs(mean).max() > 1e-6 else None


def strains(from_metric: np.ndarray, to_metric: np.ndarray) -> np.ndarray:
    """Log-strains between cells, symmetric, in the Cartesian frame of the first, shape (…, 3, 3)."""
    inverse = np.linalg.inv(np.linalg.cholesky(from_metric))
    values, vectors = np.linalg.eigh(inverse @ to_metric @ inverse.T)
    return (vectors * (0.5 * np.log(values))[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def align(cluster: Cluster, crystal: StandardCrystal, source: int = -1) -> Aligned | None:
    """The description of a crystal that lies closest to a prototype of the same key, or None if none is close enough."""
    size = np.sqrt((strains(cluster.metric, crystal.metric) ** 2).sum((1, 2)))
    trials = [(int(k), order) for k in np.flatnonzero(size < STRAIN_TOLERANCE) for order in crystal.orders[k][:_MOST_ORDERS]][:_MOST_TRIALS]
    if not trials:
        return None
    found = _closest(cluster, crystal, trials, size, POSITION_TOLERANCE)
    if found is None:
        return None
    (description, order), frac, distance = found
    return Aligned(tuple(order), frac, crystal.metric[description], crystal.volume, distance, source)


def self_exchanges(cluster: Cluster, crystal: StandardCrystal) -> list[tuple[int, ...]]:
    """Exchanges of elements between the slots of a prototype that give the same crystal up to a motion."""
    size = np.sqrt((strains(cluster.metric, crystal.metric) ** 2).sum((1, 2)))
    orders = {tuple(order) for k in np.flatnonzero(size < 0.02) for order in crystal.orders[k][:_MOST_ORDERS]}
    base = list(cluster.members[0].elements)
    swaps = []
    for order in sorted(orders - {tuple(base)}):
        trials = [(int(k), list(order)) for k in np.flatnonzero(size < 0.02) if list(order) in crystal.orders[k]]
        if _closest(cluster, crystal, trials[:_MOST_TRIALS], size, 0.02) is not None:
            swaps.append(tuple(base.index(z) for z in order))
    return swaps


def _closest(
    cluster: Cluster, crystal: StandardCrystal, trials: list[tuple[int, list[int]]], size: np.ndarray, tolerance: float
) -> tuple[tuple[int, list[int]], np.ndarray, float] | None:
    count = len(cluster.slot)
    descriptions = np.array([k for k, _ in trials])
    places = crystal.frac[descriptions]
    # atoms can only be exchanged with those of the same slot and letter
    kinds = np.array([[order.index(int(z)) for z in crystal.numbers] for _, order in trials]) * 1000 + _codes(crystal.letters[descriptions])
    own = cluster.slot * 1000 + _codes(cluster.letters)
    polar = polar_projection(cluster.key[0])
    if polar is not None:
        # the origin is free: bring one atom of the rarest kind onto each of its possible partners
        values, counts = np.unique(own, return_counts=True)
        rarest = values[counts.argmin()]
        partners = np.flatnonzero(own == rarest)
        anchors = [places[t][kinds[t] == rarest][0] for t in range(len(trials))]
        anchored = [(t, places[t] + polar @ (cluster.frac[p] - anchor)) for t, anchor in enumerate(anchors) for p in partners]
        if not anchored:
            return None
        keep = np.array([t for t, _ in anchored])
        places, kinds, descriptions = np.array([x for _, x in anchored]), kinds[keep], descriptions[keep]
        trials = [trials[t] for t in keep]
    away = places[:, :, None, :] - cluster.frac[None, None]
    away -= np.rint(away)
    frame = np.linalg.cholesky(cluster.metric * count ** (2 / 3))
    square = np.where(kinds[:, :, None] != own, _NEVER, ((away @ frame) ** 2).sum(-1))
    strain_part = _STRAIN_WEIGHT * size[descriptions] ** 2
    bound = np.maximum(square.min(2).mean(1), square.min(1).mean(1)) + strain_part
    best: tuple[int, np.ndarray] | None = None
    least = tolerance**2 + _STRAIN_WEIGHT * STRAIN_TOLERANCE**2
    for t in np.argsort(bound, kind="stable")[:_MOST_ASSIGNMENTS]:
        if bound[t] >= least:
            break
        rows, partner = linear_sum_assignment(square[t])
        mean = square[t][rows, partner].mean()
        if mean <= tolerance**2 and mean + strain_part[t] < least:
            least, best = float(mean + strain_part[t]), (int(t), partner)
    if best is None:
        return None
    t, partner = best
    frac = np.empty((count, 3))
    frac[partner] = cluster.frac[partner] + away[t][np.arange(count), partner]
    if polar is not None:
        frac = frac - polar @ (frac - cluster.frac).mean(0)
    return trials[t], frac, least


def _codes(letters: np.ndarray) -> np.ndarray:
    return np.vectorize(ord)(letters)


def gather(crystals: list[tuple[int, StandardCrystal]]) -> list[Cluster]:
    """Sort crystals of one key into prototypes, in the order given: each joins the closest, or founds one."""
    clusters: list[Cluster] = []
    for source, crystal in crystals:
        fits = [(found.distance, k, found) for k, cluster in enumerate(clusters) if (found := align(cluster, crystal, source)) is not None]
        if fits:
            _, k, member = min(fits, key=lambda fit: fit[:2])
            clusters[k].members.append(member)
        else:
            clusters.append(Cluster.of(crystal, source))
    return clusters


__all__ = ["Aligned", "Cluster", "align", "gather", "polar_projection", "self_exchanges", "strains"]
