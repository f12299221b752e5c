"""Random crystals as AIRSS makes them: a volume about that of the atoms, any cell or a space group, atoms pushed apart."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import spglib
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from ...errors import FormulaError, StabilityError
from ...formulas import numbers_of
from ...symmetry.crystal import content, symmetric_crystal
from ...symmetry.groups import space_group
from ...symmetry.sites import groups_that_hold
from .soft_spheres import CLOSEST, push_apart

PACKING = 0.68
"""Share of a crystal that spheres of the covalent radii fill: the median of the MP-20 training crystals (5 to 95 %: 0.29 to 0.96)."""
VOLUMES = (0.4, 1.2)
"""Range of the volume that is drawn, over the estimate from the radii (UniMat, appendix 8)."""
OPERATIONS = (2, 48)
"""Operations (without translations) of the space groups of symmetric starts: all groups but P1. Few operations (2 to 8) found the
structures of 4 of 14 MP-20 formulas of at most 5 atoms in 8 starts each, all groups those of 10, in fewer calls."""
_ANGLES = (60.0, 120.0)
_LENGTHS = (0.5, 1.5)
_FLAT = 0.45  # distance of opposite faces over the cube root of the volume
_GROWN = 2.5  # a start that needs more than so many estimated volumes is drawn again
_TRIES = 20


def estimated_volume(numbers: np.ndarray) -> float:
    """Volume of atoms from their covalent radii, Å³: the volume of the spheres over `PACKING`.

    Parameters
    ----------
    numbers : ndarray of int, shape (N,)

    Raises
    ------
    FormulaError
        An element without a covalent radius.

    References
    ----------
    Radii: Cordero et al., Dalton Trans. 2832 (2008), as in ``ase.data.covalent_radii``.
    """
    unknown = sorted({int(z) for z in numbers if not 1 <= z <= 96})
    if unknown:
        raise FormulaError(f"{', '.join(chemical_symbols[z] for z in unknown)} has no covalent radius, so no volume can be estimated")
    return float((4 / 3 * np.pi * covalent_radii[numbers] ** 3).sum() / PACKING)


def random_start(
    formula: str,
    units: int = 1,
    seed: int = 0,
    symmetric: bool = False,
    *,
    volumes: tuple[float, float] = VOLUMES,
    operations: tuple[int, int] = OPERATIONS,
    closest: float = CLOSEST,
) -> Atoms:
    """A random start of a structure search.

    The volume is uniform in a range about :func:`estimated_volume`; the cell and the positions are random, all of them or those
    that a random space group leaves free; then atoms that overlap are pushed apart as soft spheres, in the cell that was drawn
    if there is room, else the cell grows.

    Parameters
    ----------
    formula : str
        Content of the cell, as written: ``"SrTiO3"`` has five atoms.
    units : int
        Formula units in the cell.
    seed : int
        The same seed gives the same crystal.
    symmetric : bool
        On random Wyckoff positions of a random space group. Every number of operations in `operations` that a group which can
        hold the formula has is equally likely, then every such group; without any, every group that holds the formula but P1.
    volumes : (float, float)
        Range of the volume over the estimate.
    operations : (int, int)
        Least and most operations of the group, translations not counted; AIRSS is often run with few.
    closest : float
        Least distance over the sum of the covalent radii.

    Returns
    -------
    ase.Atoms
        ``info``: ``seed``, ``start`` (``"free"`` or ``"symmetric"``), ``drawn_volume`` (Å³, before atoms were pushed apart), and for
        symmetric ones ``spacegroup`` and ``sites``; these have a :class:`asegen.SpaceGroup` constraint.

    Raises
    ------
    FormulaError
        A formula that cannot be read, or an element without a radius.
    StabilityError
        A range that is none, or atoms that cannot be pushed apart.

    References
    ----------
    Pickard and Needs, J. Phys.: Condens. Matter 23, 053201 (2011); Yang et al. (UniMat), arXiv:2311.09235, appendix 8.

    Examples
    --------
    >>> atoms = random_start("SrTiO3", seed=1, symmetric=True)
    >>> atoms.info["spacegroup"], atoms.constraints
    """
    if not 0 < volumes[0] <= volumes[1]:
        raise StabilityError(f"volumes = {volumes} must be two numbers above 0, the smaller one first")
    if seed < 0:
        raise StabilityError(f"seed = {seed} must not be negative")
    numbers = numbers_of(formula, units)
    estimate = estimated_volume(numbers)
    volume = estimate * float(np.random.default_rng([seed, 0]).uniform(*volumes))
    groups = _groups(tuple(content(numbers).items()), *operations) if symmetric else ()
    for attempt in range(1, _TRIES + 1):
        random = np.random.default_rng([seed, attempt])
        atoms = _symmetric(numbers, volume, groups, random) if groups else _free(numbers, volume, random)
        if push_apart(atoms, closest) and atoms.get_volume() < _GROWN * max(estimate, volume) and not is_flat(atoms.cell.array):
            atoms.wrap()
            atoms.info.update(seed=int(seed), start="symmetric" if groups else "free", drawn_volume=volume)
            return atoms
    raise StabilityError(
        f"no random {'symmetric ' if groups else ''}start of {formula} in {_TRIES} tries whose atoms keep {closest:g} times the sum of "
        "their covalent radii; ask for a smaller distance or a larger volume"
    )


def is_flat(cell: np.ndarray) -> bool:
    """Whether two opposite faces of a cell, shape (3, 3), are much closer than those of a cube of its volume."""
    volume = abs(float(np.linalg.det(cell)))
    areas = np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    return float((volume / areas).min()) < _FLAT * volume ** (1 / 3)


def _free(numbers: np.ndarray, volume: float, random: np.random.Generator) -> Atoms:
    """Random positions in a random Niggli cell that is not flat."""
    while True:
        lengths, angles = random.uniform(*_LENGTHS, 3), np.radians(random.uniform(*_ANGLES, 3))
        a, b, c = np.cos(angles)
        metric = np.outer(lengths, lengths) * np.array([[1, c, b], [c, 1, a], [b, a, 1]])
        if np.linalg.det(metric) <= 1e-3:
            continue
        cell = np.linalg.cholesky(metric)
        cell *= (volume / np.linalg.det(cell)) ** (1 / 3)
        niggli = spglib.niggli_reduce(cell)
        if niggli is not None and not is_flat(niggli):
            break
    niggli = niggli if np.linalg.det(niggli) > 0 else -niggli
    return Atoms(numbers=numbers, scaled_positions=random.random((len(numbers), 3)), cell=niggli, pbc=True)


def _symmetric(numbers: np.ndarray, volume: float, groups: tuple[tuple[int, ...], ...], random: np.random.Generator) -> Atoms:
    """Random Wyckoff positions of a random group."""
    same_order = groups[random.integers(len(groups))]
    group = same_order[random.integers(len(same_order))]
    return symmetric_crystal(numbers, group, seed=int(random.integers(2**31)), volume=volume)


@lru_cache(maxsize=64)
def _groups(counts: tuple[tuple[str, int], ...], least: int, most: int) -> tuple[tuple[int, ...], ...]:
    """Groups that hold a formula, without P1, a tuple for each number of operations in the range, or for each there is."""
    orders: dict[int, list[int]] = {}
    for number in groups_that_hold(dict(counts)):
        if number > 1:
            orders.setdefault(len(space_group(number).rotations), []).append(number)
    wanted = {order: own for order, own in orders.items() if least <= order <= most} or orders
    return tuple(tuple(own) for _, own in sorted(wanted.items()))
