"""Voronoi cells of the sites of a crystal: which images bound a cell, at which distance, with which area and solid angle.

Neighbour planes and the vertices of the cell are polar to each other: with the points 2p/|p|² in place of the neighbours p, the cell's
vertices are the faces of a convex hull and its facets the corners of that hull. One small hull per site (qhull) therefore gives the
cell, and all facets of all sites are measured together from the hull's edges. Facets without area, which floating-point noise makes
of highly symmetric environments, have contributions that cancel and disappear without any tolerance on shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from ..errors import FingerprintError

#: Radius of the sphere around a site in which neighbours are looked for first (search_cutoff of pymatgen's CrystalNN), Å.
SEARCH_CUTOFF = 7.0
# A cell that reaches farther than this is open, up to floating-point noise in flat layers, Å.
_OPEN = 1e6
_MOST_NEIGHBOURS, _MOST_IMAGES = 20_000, 20_000_000
# Points farther than this beyond a sphere are outside it: neighbours at exactly the search radius must not depend on noise, Å.
_SLACK = 1e-8
_COINCIDENT = 1e-5  # Å
_NO_AREA = 1e-14  # Å²


@dataclass(frozen=True)
class VoronoiCell:
    """The Voronoi cell of one site, as the convex hull polar to it."""

    atoms: np.ndarray
    """Atoms of which images were considered, shape (k,)."""
    vectors: np.ndarray
    """From the site to those images, shape (k, 3), Å."""
    corners: np.ndarray
    """The three images whose planes meet in each vertex of the cell, shape (v, 3)."""
    adjacent: np.ndarray
    """Vertices next to a vertex; entry i shares with it all images but the i-th, shape (v, 3)."""
    vertices: np.ndarray
    """From the site to the vertices of the cell, shape (v, 3), Å."""

    @property
    def reach(self) -> float:
        """Distance from the site to the farthest vertex, Å."""
        return float(np.sqrt((self.vertices**2).sum(1).max()))


@dataclass(frozen=True)
class Facets:
    """Facets of many Voronoi cells, those of one site next to each other, sites ascending."""

    site: np.ndarray
    """Cell that a facet belongs to, shape (f,)."""
    atom: np.ndarray
    """Atom of which an image lies behind the facet, shape (f,)."""
    vector: np.ndarray
    """From the site to that image, shape (f, 3), Å."""
    distance: np.ndarray
    """From the site to that image, twice the distance to the facet, shape (f,), Å."""
    solid_angle: np.ndarray
    """Seen from the site, shape (f,), sr."""
    area: np.ndarray
    """Shape (f,), Å²."""


def voronoi_cells(positions: np.ndarray, lattice: np.ndarray, cutoff: float = SEARCH_CUTOFF, exact: bool = False) -> list[VoronoiCell]:
    """Voronoi cells of all sites of a crystal.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), Å
    lattice : ndarray, shape (3, 3), Å
        Lattice vectors as rows.
    cutoff : float, Å
        Only images within this distance bound a cell. It is doubled for a site whose cell is then open (layers, molecules, single
        atoms in a large box), as in pymatgen's VoronoiNN.
    exact : bool
        Enlarge the cutoff further until no image can be missing, that is to twice the distance of the farthest vertex. pymatgen does
        not: where a vertex is farther than half the cutoff, its cells may be somewhat too large, and bond weights are defined with
        those.

    Returns
    -------
    list of VoronoiCell

    Raises
    ------
    FingerprintError
        Coordinates that are not finite, a cell without volume, two atoms at one place, or so many images within the cutoff that the
        structure is no crystal.
    """
    positions, lattice = _checked(positions, lattice, cutoff)
    from vesin import NeighborList

    finder = NeighborList(cutoff=cutoff + _SLACK, full_list=True)
    source, target, vector = finder.compute(points=positions, box=lattice, periodic=True, quantities="ijD")
    if len(source) and (np.diff(source.astype(np.int64)) < 0).any():
        order = np.argsort(source, kind="stable")
        source, target, vector = source[order], target[order], vector[order]
    bounds = np.searchsorted(source, np.arange(len(positions) + 1))
    if len(source) and (np.einsum("ij,ij->i", vector, vector) < _COINCIDENT**2).any():
        raise FingerprintError("two atoms are at the same place")
    polar = vector * (2.0 / np.einsum("ij,ij->i", vector, vector))[:, None]
    cells = []
    for site, (lo, hi) in enumerate(pairwise(bounds)):
        cell = _cell(target[lo:hi], vector[lo:hi], polar[lo:hi])
        if cell is None or (exact and 2 * cell.reach > cutoff):
            cell = _enlarged(positions, lattice, site, cutoff, exact)
        cells.append(cell)
    return cells


def _checked(positions: np.ndarray, lattice: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    positions, lattice = np.asarray(positions, dtype=float), np.asarray(lattice, dtype=float)
    if len(positions) == 0:
        raise FingerprintError("there are no atoms")
    if not (np.isfinite(positions).all() and np.isfinite(lattice).all()):
        raise FingerprintError("a coordinate or a lattice vector is not a finite number")
    volume, lengths = abs(np.linalg.det(lattice)), np.linalg.norm(lattice, axis=1)
    if volume <= 1e-6 * max(1.0, float(lengths.prod())):
        raise FingerprintError(f"the cell has no volume ({volume:.3g} Å³)")
    if len(positions) * 4.19 * cutoff**3 / volume > _MOST_NEIGHBOURS:
        raise FingerprintError(f"a cell of {volume:.3g} Å³ is too small for {len(positions)} atoms")
    frac = positions @ np.linalg.inv(lattice)
    return (frac - np.floor(frac)) @ lattice, lattice


def _cell(atoms: np.ndarray, vectors: np.ndarray, polar: np.ndarray) -> VoronoiCell | None:
    """The cell bounded by the given images, or None if it is open."""
    if len(vectors) < 4:
        return None
    try:
        hull = ConvexHull(polar)
    except QhullError:  # all images in one plane or line with the site
        return None
    offset = hull.equations[:, 3]
    if offset.max() > -1.0 / _OPEN:
        return None
    return VoronoiCell(atoms, vectors, hull.simplices, hull.neighbors, hull.equations[:, :3] / -offset[:, None])


def _enlarged(positions: np.ndarray, lattice: np.ndarray, site: int, cutoff: float, exact: bool) -> VoronoiCell:
    signs = np.array([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    enough = float(np.linalg.norm(signs @ lattice, axis=1).max()) + 0.011  # contains ± every lattice vector: the cell is closed
    cell = _cell(*_images(positions, lattice, site, cutoff))
    while cell is None and cutoff < enough:
        cutoff = min(2 * cutoff, enough)
        cell = _cell(*_images(positions, lattice, site, cutoff))
    if cell is None:
        raise FingerprintError(f"the Voronoi cell of atom {site} is open")
    # The cell only shrinks when images are added, and no cell reaches farther than half of sqrt(a² + b² + c²).
    while exact and cutoff < min(2 * cell.reach, enough):
        cutoff = min(2 * cutoff, 2 * cell.reach * (1 + 1e-9), enough)
        cell = _cell(*_images(positions, lattice, site, cutoff)) or cell
    return cell


def _images(positions: np.ndarray, lattice: np.ndarray, site: int, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms, vectors and polar points of all images within a sphere around one site."""
    extent = np.ceil(cutoff * np.linalg.norm(np.linalg.inv(lattice), axis=0) + 1e-6).astype(int) + 1
    if float(np.prod(2.0 * extent + 1.0)) * len(positions) > _MOST_IMAGES:
        raise FingerprintError(f"the Voronoi cell of atom {site} is open and needs too many images within {cutoff:.0f} Å")
    spans = np.meshgrid(*(np.arange(-count, count + 1) for count in extent), indexing="ij")
    shifts = np.stack(spans, axis=-1).reshape(-1, 3) @ lattice
    # Only translations that can bring some atom into the sphere.
    spread = float(np.linalg.norm(positions - positions[site], axis=1).max())
    shifts = shifts[np.linalg.norm(shifts, axis=1) <= cutoff + spread + _SLACK]
    vectors = ((positions - positions[site])[None] + shifts[:, None]).reshape(-1, 3)
    square = np.einsum("ij,ij->i", vectors, vectors)
    inside = np.flatnonzero((square <= (cutoff + _SLACK) ** 2) & (square > _COINCIDENT**2))
    vectors = vectors[inside]
    return inside % len(positions), vectors, vectors * (2.0 / square[inside])[:, None]


def voronoi_facets(cells: Sequence[VoronoiCell]) -> Facets:
    """Measures of all facets of Voronoi cells.

    Every edge of a cell lies between two facets. In each of them, it spans a triangle with the foot of the perpendicular from the
    site; the triangles of a facet, with sign, add up to its area and its solid angle.

    Parameters
    ----------
    cells : sequence of VoronoiCell
        At least one, of one or of many crystals; ``Facets.site`` counts through this sequence.
    """
    images = np.array([len(cell.vectors) for cell in cells])
    first_image = np.cumsum(images) - images
    count = np.array([len(cell.vertices) for cell in cells])
    first_vertex = np.cumsum(count) - count
    owner = np.repeat(np.arange(len(cells)), count)
    vectors = np.concatenate([cell.vectors for cell in cells])
    vertices = np.concatenate([cell.vertices for cell in cells])
    corners = np.concatenate([cell.corners for cell in cells]) + first_image[owner, None]
    adjacent = np.concatenate([cell.adjacent for cell in cells]) + first_vertex[owner, None]

    begin, place = np.nonzero(adjacent > np.arange(len(adjacent))[:, None])
    end = adjacent[begin, place]
    sides = corners[begin, (place + 1) % 3], corners[begin, (place + 2) % 3]
    used = np.unique(np.concatenate(sides))
    compact = np.zeros(len(vectors), dtype=np.int64)
    compact[used] = np.arange(len(used))
    sides = compact[sides[0]], compact[sides[1]]
    vectors = vectors[used]
    distance = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    normal, height = vectors / distance[:, None], 0.5 * distance

    cosine = np.einsum("ij,ij->i", normal[sides[0]], normal[sides[1]])
    along = np.cross(normal[sides[0]], normal[sides[1]])
    sine = np.sqrt(np.einsum("ij,ij->i", along, along))
    kept = sine > 1e-12  # planes of images in line with the site never meet
    begin, end, cosine, sine = begin[kept], end[kept], cosine[kept], sine[kept]
    sides = sides[0][kept], sides[1][kept]
    along = along[kept] / sine[:, None]
    position = np.einsum("ij,ij->i", vertices[begin], along), np.einsum("ij,ij->i", vertices[end], along)
    low, high = np.minimum(*position), np.maximum(*position)

    area, solid_angle = np.zeros(len(used)), np.zeros(len(used))
    for this, that in (sides, sides[::-1]):
        lever = (height[that] - cosine * height[this]) / sine
        area += np.bincount(this, 0.5 * lever * (high - low), len(used))
        angle = _triangle(lever, high, height[this]) - _triangle(lever, low, height[this])
        solid_angle += np.bincount(this, angle, len(used))
    real = np.flatnonzero(area > _NO_AREA)
    site = np.repeat(np.arange(len(cells)), images)[used]
    atom = np.concatenate([cell.atoms for cell in cells])[used]
    return Facets(site[real], atom[real].astype(np.int64), vectors[real], distance[real], solid_angle[real], area[real])


def _triangle(lever: np.ndarray, along: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Solid angle of a right triangle with legs `lever` and `along`, seen from `height` above the corner between hypotenuse and lever."""
    far = np.sqrt(lever**2 + along**2 + height**2)
    return np.arctan2(along * lever * (far - height), lever**2 * far + along**2 * height)
