"""Coordination fingerprints of crystals: CrystalNN's coordination numbers times order parameters, 61 numbers a site.

The bond weights are those of CrystalNN (Pan et al., Inorg. Chem. 2021, 60, 1590): solid angles of Voronoi facets, corrected for open
structures, electronegativity differences and long bonds, turned into probabilities of coordination numbers. Each probability comes
with the order parameters of its coordination number (Zimmermann & Jain, RSC Adv. 2020, 10, 6063). The numbers are those of matminer's
``CrystalNNFingerprint.from_preset("ops")``, whose mean over the sites is what CDVAE-style metrics compare; all crystals of a chunk
are evaluated together.

Where matminer's own numbers depend on floating-point noise, ours are the mean over the possible outcomes or those without noise:
the order of equivalent neighbours in "body-centered cubic", and facets without area. For two atoms at one place, where its numbers
depend on the order of the atoms, there is no fingerprint. Cells so open that matminer finds no neighbours within its search radius,
and refuses ("No Voronoi neighbors found"), have one here: the radius grows until the Voronoi cell is closed. He, Ne and Ar have no
electronegativity: their bonds count as if there were no difference.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ..errors import FingerprintError
from .order_parameters import ORDER_PARAMETERS, order_parameters
from .voronoi import Facets, VoronoiCell, voronoi_cells, voronoi_facets

_MOST_NEIGHBOURS = 24  # the largest coordination number with a feature
_ELECTRONEGATIVITY_WEIGHT, _LARGEST_DIFFERENCE = 3.0, 3.3
_FULL_BOND, _NO_BOND = 0.5, 1.0  # longer than the sum of radii, Å: from here weaker; from here none
_CHUNK = 2000  # sites evaluated together

#: Names of the 61 features, as in matminer.
FEATURES: tuple[str, ...] = tuple(
    f"{name} CN_{number}" for number in range(1, _MOST_NEIGHBOURS + 1) for name in ("wt", *ORDER_PARAMETERS.get(number, ()))
)
_FIRST = {number: FEATURES.index(f"wt CN_{number}") for number in range(1, _MOST_NEIGHBOURS + 1)}


def crystalnn_fingerprints(crystals: Sequence[Atoms]) -> tuple[np.ndarray, list[str]]:
    """Mean CrystalNN fingerprints of crystals.

    Parameters
    ----------
    crystals : sequence of ase.Atoms
        Taken as periodic in three directions.

    Returns
    -------
    fingerprints : ndarray, shape (b, 61)
        Means over the sites, columns as in `FEATURES`; NaN for a crystal without fingerprint.
    reasons : list of str
        Why a crystal has no fingerprint; empty for one that has.
    """
    means = np.full((len(crystals), len(FEATURES)), np.nan)
    reasons = [""] * len(crystals)
    for numbers, features, sizes in _chunks(crystals, reasons):
        starts = np.cumsum(sizes) - sizes
        means[numbers] = np.add.reduceat(features, starts, axis=0) / sizes[:, None]
    return means, reasons


def site_fingerprints(atoms: Atoms) -> np.ndarray:
    """CrystalNN fingerprints of the sites of a crystal.

    Parameters
    ----------
    atoms : ase.Atoms
        Taken as periodic in three directions.

    Returns
    -------
    ndarray, shape (n, 61)
        Columns as in `FEATURES`. A site without bonds has zeros.

    Raises
    ------
    FingerprintError
        No atoms, coordinates that are not finite, a cell without volume, two atoms at one place, an element without radius.
    """
    return _features([atoms], _cells_of(atoms))


def _chunks(crystals: Sequence[Atoms], reasons: list[str]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Positions in the sequence, site features and sizes of the crystals that have fingerprints; the others get their reason."""
    waiting: list[int] = []
    cells: list[VoronoiCell] = []
    for number, atoms in enumerate(crystals):
        try:
            cells.extend(_cells_of(atoms))
        except FingerprintError as error:
            reasons[number] = str(error)
        else:
            waiting.append(number)
        if waiting and (len(cells) >= _CHUNK or number == len(crystals) - 1):
            members = [crystals[k] for k in waiting]
            yield waiting, _features(members, cells), np.array([len(atoms) for atoms in members])
            waiting, cells = [], []


def _cells_of(atoms: Atoms) -> list[VoronoiCell]:
    inside = (atoms.numbers > 0) & (atoms.numbers < len(chemical_symbols))
    if not inside.all():
        raise FingerprintError(f"there is no element with atomic number {int(atoms.numbers[~inside][0])}")
    unknown = np.isnan(_elements()[1][atoms.numbers])
    if unknown.any():
        raise FingerprintError(f"{chemical_symbols[int(atoms.numbers[unknown][0])]} has no covalent radius")
    return voronoi_cells(atoms.positions, atoms.cell.array)


@lru_cache(maxsize=1)
def _elements() -> tuple[np.ndarray, np.ndarray]:
    """Pauling electronegativities and covalent radii (Å) by atomic number; NaN where there is none."""
    from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
    from pymatgen.core import Element

    electronegativity, radius = np.full(len(chemical_symbols), np.nan), np.full(len(chemical_symbols), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that He, Ne and Ar have no electronegativity
        for number, symbol in enumerate(chemical_symbols[1:], start=1):
            element = Element(symbol)
            electronegativity[number] = element.X
            known = CovalentRadius.radius.get(symbol, element.atomic_radius)
            radius[number] = np.nan if known is None else float(known)
    return electronegativity, radius


def _features(crystals: Sequence[Atoms], cells: Sequence[VoronoiCell]) -> np.ndarray:
    """Fingerprints of all sites of several crystals, shape (sites, 61)."""
    sizes = np.array([len(atoms) for atoms in crystals])
    elements = np.concatenate([atoms.numbers for atoms in crystals])
    facets = voronoi_facets(cells)
    behind = elements[facets.atom + np.repeat(np.cumsum(sizes) - sizes, sizes)[facets.site]]
    weight = bond_weights(facets, elements[facets.site], behind)

    order = np.lexsort((-weight, facets.site))
    site, weight, vectors = facets.site[order], weight[order], facets.vector[order]
    # Distinct up to three decimals: neighbours of (nearly) equal weight come into the coordination shell together.
    rounded = np.round(weight, 3)
    first = np.searchsorted(site, np.arange(len(elements)))
    rank = np.arange(len(site)) - first[site]
    following = np.zeros_like(rounded)
    following[:-1] = np.where(site[1:] == site[:-1], rounded[1:], 0.0)
    last = np.flatnonzero(rounded != following)
    probability = (_quarter_circle(rounded[last]) - _quarter_circle(following[last])) / (0.25 * math.pi)

    features = np.zeros((len(elements), len(FEATURES)))
    number = rank[last] + 1
    for count in np.unique(number[number <= _MOST_NEIGHBOURS]):
        chosen = number == count
        end, share = last[chosen], probability[chosen, None]
        shell = end[:, None] + np.arange(1 - count, 1)
        values = order_parameters(vectors[shell], weight[shell])
        column = _FIRST[int(count)]
        features[site[end], column : column + 1 + values.shape[1]] = np.hstack([share, share * values])
    return features


def bond_weights(facets: Facets, element: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """Weights of the bonds through Voronoi facets, between 0 and 1.

    Parameters
    ----------
    facets : Facets
    element, neighbour : ndarray, shape (f,)
        Atomic numbers of the site and of the atom behind each facet.

    Returns
    -------
    ndarray, shape (f,)
    """
    electronegativity, radius = _elements()
    starts = np.flatnonzero(np.diff(facets.site, prepend=-1))
    repeats = np.diff(np.append(starts, len(facets.site)))

    def largest(values: np.ndarray) -> np.ndarray:
        return np.repeat(np.maximum.reduceat(values, starts), repeats)

    # The second factor corrects for open structures, where a distant neighbour may fill much of the sphere.
    weight = facets.solid_angle / largest(facets.solid_angle) * (facets.solid_angle / facets.area)
    difference = np.abs(electronegativity[element] - electronegativity[neighbour])
    weight *= 1.0 + _ELECTRONEGATIVITY_WEIGHT * np.sqrt(np.nan_to_num(difference) / _LARGEST_DIFFERENCE)
    weight /= largest(weight)
    stretch = (facets.distance - radius[element] - radius[neighbour] - _FULL_BOND) / (_NO_BOND - _FULL_BOND)
    return weight * 0.5 * (np.cos(np.clip(stretch, 0.0, 1.0) * math.pi) + 1.0)


def _quarter_circle(x: np.ndarray) -> np.ndarray:
    """Area of the unit circle between 0 and x in the first quadrant."""
    x = np.minimum(x, 1.0)
    return 0.5 * (x * np.sqrt(1.0 - x * x) + np.arcsin(x))
