"""Cells and wave vectors of a phonon calculation: standard cell, supercell by length, special points, stars."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import spglib
from ase import Atoms

from ..errors import MissingPackageError, StabilityError

SYMPREC = 0.01
"""Symprec, Å, at which the symmetry of a crystal is found; the crystal is then put exactly on it."""
_SAME = 1e-4  # wave vectors closer than this are one


@dataclass(frozen=True)
class StandardCell:
    """A crystal in its standard orientation, with the path through its Brillouin zone."""

    conventional: Atoms = field(repr=False)
    """Conventional cell (the reduced cell where there is no symmetry), exactly symmetric."""
    primitive: Atoms = field(repr=False)
    """Primitive cell."""
    to_primitive: np.ndarray
    """Columns: primitive lattice vectors in terms of the conventional ones, shape (3, 3); phonopy's ``primitive_matrix``."""
    rotations: np.ndarray = field(repr=False)
    """Rotations of the point group in the primitive basis, of columns of fractional coordinates, shape (g, 3, 3)."""
    points: dict[str, np.ndarray]
    """Special points by label, fractional in the primitive reciprocal cell."""
    path: list[tuple[str, str]]
    """Sections of the path, by the labels of their ends."""
    spacegroup: int
    """International number."""
    symbol: str
    """Its Hermann-Mauguin symbol."""


def standard_cell(atoms: Atoms, symprec: float = SYMPREC) -> StandardCell:
    """The standard cells of a crystal and its path.

    Parameters
    ----------
    atoms : ase.Atoms
    symprec : float, Å

    Raises
    ------
    StabilityError
        No symmetry can be found (atoms that overlap).
    MissingPackageError
        seekpath is not installed.

    References
    ----------
    Hinuma et al., Comput. Mater. Sci. 128, 140 (2017) (seekpath).
    """
    try:
        import seekpath
    except ImportError as error:
        raise MissingPackageError("phonons need the packages phonopy and seekpath: pip install 'asegen[phonons]'") from error
    crystal = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        found = seekpath.get_path(crystal, symprec=symprec)
    except Exception as error:  # its own exceptions and spglib's have no common base
        raise StabilityError(f"no standard cell of the crystal can be found at symprec {symprec:g} Å ({error})".rstrip(" ()")) from error
    primitive = _atoms(found["primitive_lattice"], found["primitive_positions"], found["primitive_types"])
    symmetry = spglib.get_symmetry_dataset((primitive.cell.array, primitive.get_scaled_positions(), primitive.numbers), symprec=symprec)
    if symmetry is None:
        raise StabilityError(f"no symmetry of the crystal can be found at symprec {symprec:g} Å")
    return StandardCell(
        conventional=_atoms(found["conv_lattice"], found["conv_positions"], found["conv_types"]),
        primitive=primitive,
        to_primitive=np.array(found["primitive_transformation_matrix"], dtype=float),
        rotations=np.unique(symmetry.rotations, axis=0),
        points={_label(name): np.array(point, dtype=float) for name, point in found["point_coords"].items()},
        path=[(_label(a), _label(b)) for a, b in found["path"]],
        spacegroup=int(symmetry.number),
        symbol=str(symmetry.international),
    )


def multiples(cell: np.ndarray, min_length: float) -> tuple[int, int, int]:
    """Smallest multiples of lattice vectors that reach a length; even where above 1.

    Odd multiples miss the zone boundary, where perovskites tilt and chains dimerise.

    Parameters
    ----------
    cell : array, shape (3, 3), Å
    min_length : float, Å
    """
    counts = [max(1, math.ceil(min_length / float(np.linalg.norm(vector)) - 1e-6)) for vector in cell]
    first, second, third = (count + count % 2 if count > 1 else 1 for count in counts)
    return first, second, third


def mesh_of(cell: StandardCell, length: float) -> tuple[int, int, int]:
    """Even divisions of the primitive reciprocal cell that have its symmetry, at least as fine as the points of a supercell of `length` Å.

    Parameters
    ----------
    cell : StandardCell
    length : float, Å
    """
    heights = 1 / np.linalg.norm(np.linalg.inv(cell.primitive.cell.array), axis=0)
    counts = np.array([2 * max(1, math.ceil(round(length / float(height) / 2, 6))) for height in heights])
    turned = cell.rotations.transpose(0, 2, 1) * counts[:, None] / counts
    if not np.allclose(turned, np.round(turned)):
        counts[:] = counts.max()  # body-centred cells: only equal divisions have the symmetry
    return int(counts[0]), int(counts[1]), int(counts[2])


@dataclass(frozen=True)
class Star:
    """Wave vectors that symmetry and time reversal make equal."""

    q: np.ndarray
    """One of them, fractional in the primitive reciprocal cell, shape (3,): the labelled one if there is one."""
    label: str
    """``"Γ"``, ``"R"``, …; empty where it is no special point."""
    size: int
    """How many there are."""


def stars(points: np.ndarray, cell: StandardCell) -> list[Star]:
    """The stars that wave vectors belong to, each once.

    Parameters
    ----------
    points : array, shape (n, 3)
        Fractional in the primitive reciprocal cell.
    cell : StandardCell
    """
    found: list[Star] = []
    seen: dict[tuple[int, ...], None] = {}
    for point in points:
        if _key(point) in seen:
            continue
        arms = {_key(sign * point @ rotation): sign * point @ rotation for rotation in cell.rotations for sign in (1, -1)}
        seen.update(dict.fromkeys(arms))
        # seekpath names some points twice (X and X_1): the first name counts
        name, q = next(((name, special) for name, special in cell.points.items() if _key(special) in arms), ("", _folded(point)))
        found.append(Star(np.asarray(q, dtype=float), name, len(arms)))
    return found


def commensurate_cell(q: np.ndarray, most: int = 64) -> np.ndarray:
    """Smallest supercell in which a wave vector is periodic, as rows of multiples of the primitive vectors, shape (3, 3).

    Raises
    ------
    StabilityError
        It would hold more than `most` primitive cells.
    """
    denominators = [next((d for d in range(1, most + 1) if abs(d * x - round(d * x)) < 1e-4), 0) for x in q]
    size = math.lcm(*denominators)
    if not 0 < size <= most:
        raise StabilityError(f"the mode at q = {spelled(q)} needs a supercell of more than {most} primitive cells")
    for a, b in itertools.product(range(1, size + 1), repeat=2):
        if size % (a * b):
            continue
        c = size // (a * b)
        for d, e, f in itertools.product(range(b), range(c), range(c)):
            rows = np.array([[a, d, e], [0, b, f], [0, 0, c]])
            if np.abs(rows @ q - np.round(rows @ q)).max() < 1e-3:
                return rows
    raise StabilityError(f"no supercell is commensurate with q = {spelled(q)}")  # cannot be: the sublattice exists


def spelled(q: Sequence[float] | np.ndarray) -> str:
    """A wave vector for a person: ``(1/2, 0, 0.3721)``."""
    words = []
    for x in q:
        d = next((d for d in range(1, 9) if abs(d * x - round(d * x)) < 1e-5), 0)
        words.append(f"{x:.4f}" if d == 0 else f"{round(d * x)}" if d == 1 else f"{round(d * x)}/{d}")
    return f"({', '.join(words)})"


def _atoms(cell: np.ndarray, frac: np.ndarray, numbers: np.ndarray) -> Atoms:
    return Atoms(numbers=numbers, scaled_positions=frac, cell=cell, pbc=True)


def _label(name: str) -> str:
    return "Γ" if name == "GAMMA" else name


def _folded(q: np.ndarray) -> np.ndarray:
    return np.asarray(q - np.ceil(q - 0.5 - _SAME), dtype=float) + 0.0


def _key(q: np.ndarray) -> tuple[int, ...]:
    """The same for wave vectors that differ by a reciprocal lattice vector."""
    steps = round(1 / _SAME)
    return tuple((np.round(np.asarray(q) * steps).astype(int) % steps).tolist())
