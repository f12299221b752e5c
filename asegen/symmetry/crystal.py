"""Crystals with a given space group: built from sites and parameters, or drawn at random."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from ..formulas import numbers_of
from ..prior import atomic_volumes
from .apart import Spacing
from .constraint import SpaceGroup
from .errors import SitesError
from .groups import Group, space_group
from .lattices import DIMENSIONS, conventional_cell
from .normalizer import SitesKey, draw_distinct_sites
from .sites import Sites, format_sites, parse_sites
from .symmetry import Symmetry
from .tables import site_of_position, symmetry_of_sites

#: Spread of the log-strains of random cells about the cube (or the hexagonal cell of a = c); about that of known crystals.
SHAPE_SPREAD = 0.2
#: Closest approach that a random crystal is redrawn for, as a fraction of the distance of atoms packed at their volumes.
CLOSEST = 0.6
_DRAWS = 30
_REDRAWS = 30


def crystal_from_sites(
    group: Group | int | str,
    sites: Sequence[tuple[str, str, Sequence[float] | np.ndarray]],
    cell: np.ndarray,
    primitive: bool = True,
) -> tuple[Atoms, Symmetry]:
    """The crystal of given Wyckoff positions, free parameters and conventional cell.

    Parameters
    ----------
    group : Group, int or str
    sites : sequence of (element, letter, parameters)
        Parameters in the order x, y, z, as many as the position has: ``[("Sr", "1a", ()), ("O", "2e", (0.3,))]``.
    cell : ndarray, shape (3, 3), Å
        Conventional cell, rows; must have the symmetry of the group's lattice system.
    primitive : bool
        Build the primitive cell, else the conventional one.

    Returns
    -------
    atoms : ase.Atoms
        Site by site, in the order given, no constraint attached.
    symmetry : Symmetry
        Of this one crystal.

    Raises
    ------
    SitesError
        A letter that the group does not have, or a wrong number of parameters.
    """
    group = space_group(group)
    tables, places, numbers = [], [], []
    inverse = np.linalg.inv(group.primitive) if primitive else np.eye(3)
    for element, letter, parameters in sites:
        position = group.position(letter)
        if len(parameters) != position.dof:
            raise SitesError(
                f"position {position.label} ({position.coordinates}) of {group.symbol} has {position.dof} free parameters,"
                f" {len(parameters)} were given"
            )
        table = site_of_position(position, primitive)
        tables.append(table)
        places.append(table.rotation @ (position.point(np.asarray(parameters)) @ inverse) + table.shift)
        numbers += [atomic_numbers[element]] * len(table.shift)
    lattice = group.primitive @ cell if primitive else np.asarray(cell, dtype=float)
    point = group.setting.operations(primitive=True)[0] if primitive else group.rotations
    atoms = Atoms(numbers=numbers, scaled_positions=np.concatenate(places), cell=lattice, pbc=True)
    return atoms, symmetry_of_sites(tables, point)


def symmetric_crystal(
    formula: str | Mapping[str, int] | Sequence[int] | np.ndarray,
    group: Group | int | str,
    sites: str | Sites | None = None,
    seed: int | None = 0,
    volume: float | None = None,
    avoid: Container[SitesKey] = (),
) -> Atoms:
    """A random crystal of a formula with a given space group, in its primitive cell, held there by a constraint.

    Parameters
    ----------
    formula : str, mapping or atomic numbers
        Content of the primitive cell, as written: ``"NaCl"`` in Fm-3m has two atoms.
    group : Group, int or str
    sites : str or sequence of (element, label), optional
        Wyckoff positions, such as ``"Na:4a Cl:4b"``; default: drawn, every combination that fits being equally likely.
    seed : int, optional
        The same seed gives the same crystal; None draws one.
    volume : float, optional
        Of the primitive cell, Å³; default: the sum of the elements' atomic volumes.
    avoid : container of SitesKey, optional
        Choices of positions that are not to be drawn again, nor anything equivalent, while there are others
        (:func:`asegen.symmetry.canonical_sites` of earlier crystals). No meaning if `sites` are given.

    Returns
    -------
    ase.Atoms
        With a :class:`SpaceGroup` constraint; ``info`` has ``seed``, ``spacegroup`` (number) and ``sites`` (text that
        :func:`parse_sites` reads). Elements in the order of the formula.

    Raises
    ------
    GroupError, FormulaError
        As :func:`space_group` and :func:`asegen.formulas.parse_formula`.
    SitesError
        The group cannot hold the formula, or the sites are not of the group or not of the formula.

    Examples
    --------
    >>> atoms = symmetric_crystal("SrTiO3", "Pm-3m", seed=1)
    >>> atoms.info["spacegroup"], len(atoms)
    (221, 5)
    """
    group = space_group(group)
    counts = content(formula)
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    random = np.random.default_rng(seed % 2**63)
    if sites is None:
        chosen = draw_distinct_sites(counts, group, random, avoid)
    else:
        chosen = parse_sites(sites, group, counts)
    if volume is None:
        volumes = np.nan_to_num(atomic_volumes(), nan=18.0)
        volume = float(sum(volumes[atomic_numbers[element]] * count for element, count in counts.items()))
    positions = [group.position(label) for _, label in chosen]
    best: tuple[float, np.ndarray, list[np.ndarray]] | None = None
    for _ in range(_DRAWS):
        shape = SHAPE_SPREAD * random.standard_normal(6)
        cell = conventional_cell(group.lattice_system, volume * len(group.setting.centrings), shape)
        parameters = [random.random(p.dof) for p in positions]
        closest = closest_approach(_build(group, chosen, parameters, cell)[0])
        if best is None or closest > best[0]:
            best = closest, cell, parameters
        movable = DIMENSIONS[group.lattice_system] > 1 or any(p.dof for p in positions)
        if closest >= CLOSEST or not movable:
            break
    assert best is not None
    closest, cell, parameters = best
    if closest < CLOSEST:
        parameters = _redrawn(group, chosen, parameters, cell, random)
    atoms, symmetry = _build(group, chosen, parameters, cell)
    if closest < CLOSEST:
        _push_apart(atoms, symmetry)
    atoms.set_constraint(SpaceGroup.of_symmetry(group, symmetry, atoms.numbers, chosen))
    atoms.info.update(seed=int(seed), spacegroup=group.number, sites=format_sites(chosen))
    return atoms


def _build(group: Group, sites: Sites, parameters: Sequence[np.ndarray], cell: np.ndarray) -> tuple[Atoms, Symmetry]:
    return crystal_from_sites(group, [(*site, own) for site, own in zip(sites, parameters, strict=True)], cell)


def _redrawn(
    group: Group, sites: Sites, parameters: Sequence[np.ndarray], cell: np.ndarray, random: np.random.Generator
) -> list[np.ndarray]:
    """Parameters with larger distances: site by site where they are smallest, what a site gains is kept.

    All sites at once hardly ever come out apart when there are many; the site that is worst off, alone, soon does.
    """
    kept = list(parameters)
    atoms, symmetry = _build(group, sites, kept, cell)
    site = symmetry.site.numpy()
    free = np.array([len(own) > 0 for own in kept])
    nearest = _nearest(atoms, site)
    for _ in range(_REDRAWS):
        # sites that can move among those of the smallest distance
        worst = np.flatnonzero(free & (nearest < min(CLOSEST, nearest.min() + 1e-9)))
        if not len(worst):
            break
        chosen = int(random.choice(worst))
        tried = [*kept[:chosen], random.random(len(kept[chosen])), *kept[chosen + 1 :]]
        found = _nearest(_build(group, sites, tried, cell)[0], site)
        if found[chosen] > nearest[chosen]:
            kept, nearest = tried, found
    return kept


def _push_apart(atoms: Atoms, symmetry: Symmetry) -> None:
    """Move atoms that still are on each other apart, as every step of a walk does (:mod:`asegen.symmetry.apart`)."""
    frac, cell = torch.from_numpy(atoms.get_scaled_positions(wrap=False)), torch.from_numpy(atoms.cell.array.copy())[None]
    pushed = Spacing(symmetry).push(frac, cell, torch.from_numpy(atoms.numbers.astype(np.int64)))
    atoms.set_scaled_positions(pushed.numpy())


def _nearest(atoms: Atoms, site: np.ndarray) -> np.ndarray:
    """Smallest distance of the atoms of each site as in :func:`closest_approach`, shape (s,)."""
    nearest = np.full(int(site.max()) + 1, np.inf)
    np.minimum.at(nearest, site, _distances(atoms).min(1))
    return nearest


def content(formula: str | Mapping[str, int] | Sequence[int] | np.ndarray) -> dict[str, int]:
    """Elements and counts of a formula, a mapping, or a list of atomic numbers, in the order of first appearance."""
    if isinstance(formula, (str, Mapping)):
        numbers: Any = numbers_of(formula)
    else:
        numbers = np.asarray(formula, dtype=int)
    counts: dict[str, int] = {}
    for number in numbers:
        symbol = chemical_symbols[int(number)]
        counts[symbol] = counts.get(symbol, 0) + 1
    return counts


def closest_approach(atoms: Atoms) -> float:
    """Smallest distance of two atoms over that of atoms packed at their volumes, ``((v_i + v_j) / 2)^(1/3)``; images included."""
    return float(_distances(atoms).min())


def _distances(atoms: Atoms) -> np.ndarray:
    """Distances of all atoms to the nearest images of all, themselves included, in units of their packing, shape (n, n)."""
    frac, cell = atoms.get_scaled_positions(wrap=False), atoms.cell.array
    away = frac[:, None] - frac[None]
    away -= np.rint(away)
    steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(away[:, :, None] @ cell + steps @ cell, axis=-1)
    length[np.arange(len(frac)), np.arange(len(frac)), 13] = np.inf  # an atom and itself
    volumes = np.nan_to_num(atomic_volumes(), nan=18.0)[atoms.numbers]
    typical = ((volumes[:, None] + volumes[None]) / 2) ** (1 / 3)
    return np.asarray(length.min(-1) / typical)
