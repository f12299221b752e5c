"""Building the tensors of :class:`Symmetry` for one crystal, from Wyckoff positions or from operations and atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from .groups import Group
from .symmetry import Symmetry
from .wyckoff import WyckoffPosition, quotient


@dataclass(frozen=True)
class SiteTable:
    """What a site contributes to a :class:`Symmetry`."""

    rotation: np.ndarray
    shift: np.ndarray
    stabilizer: np.ndarray
    origin: np.ndarray
    lift: np.ndarray
    fold: np.ndarray


def site_of_position(position: WyckoffPosition, primitive: bool) -> SiteTable:
    """The site of a Wyckoff position in the standard primitive or conventional cell."""
    return _site_of_position(position, primitive)


@cache
def _site_of_position(position: WyckoffPosition, primitive: bool) -> SiteTable:
    rotation, shift = position.orbit_operations(primitive)
    return site_of_operations(rotation, shift, *position.stabilizer(primitive))


def site_of_operations(
    rotation: np.ndarray, shift: np.ndarray, fixing_rotations: np.ndarray, fixing_shifts: np.ndarray
) -> SiteTable:  # fmt: skip
    """A site from the operations to its atoms, shapes (m, 3, 3) and (m, 3), and all that fix the representative, (h, 3, 3) and (h, 3)."""
    # the average image of the zero vector under a group of operations is one of its fixed points
    origin = fixing_shifts.mean(0)
    lift, fold = quotient(fixing_rotations)
    return SiteTable(rotation, shift, fixing_rotations.mean(0), origin, lift, fold)


def symmetry_of_sites(sites: Sequence[SiteTable], point: np.ndarray, order: np.ndarray | None = None) -> Symmetry:
    """Symmetry of one crystal whose atoms come site by site.

    Parameters
    ----------
    sites : sequence of SiteTable
    point : ndarray, shape (g, 3, 3), int
        Rotations of the point group.
    order : ndarray, shape (n,), int, optional
        The atom, counted site by site, that stands at each place; default: they stand that way.
    """
    counts = [len(s.shift) for s in sites]
    take = slice(None) if order is None else order

    def tensor(arrays: Sequence[np.ndarray], rows: slice | np.ndarray = slice(None)) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays).astype(float)[rows])

    return Symmetry(
        num_atoms=torch.tensor([sum(counts)]),
        site=torch.from_numpy(np.repeat(np.arange(len(sites)), counts)[take]),
        rotation=tensor([s.rotation for s in sites], take),
        shift=tensor([s.shift for s in sites], take),
        stabilizer=tensor([s.stabilizer[None] for s in sites]),
        origin=tensor([s.origin[None] for s in sites]),
        lift=tensor([s.lift[None] for s in sites]),
        fold=tensor([s.fold[None] for s in sites]),
        point=torch.from_numpy(point.astype(float))[None],
        point_count=torch.tensor([len(point)]),
    )


def symmetry_of_letters(group: Group, letters: Sequence[str], primitive: bool = True) -> Symmetry:
    """Symmetry of a crystal whose sites are Wyckoff positions, the atoms site by site as in :func:`crystal_from_sites`."""
    sites = [site_of_position(group.position(letter), primitive) for letter in letters]
    return symmetry_of_sites(sites, group.setting.operations(primitive=True)[0] if primitive else group.rotations)


def match_atoms(
    frac: np.ndarray, numbers: np.ndarray, cell: np.ndarray, rotations: np.ndarray, translations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each operation takes each atom.

    Parameters
    ----------
    frac : ndarray, shape (n, 3)
    numbers : ndarray, shape (n,)
    cell : ndarray, shape (3, 3), Å
    rotations, translations : ndarray, shapes (g, 3, 3) and (g, 3)

    Returns
    -------
    image : ndarray, shape (g, n), int
        The atom of the same element that lies nearest to the image of atom j under operation i.
    distance : ndarray, shape (g, n), Å
        How far off it is.
    """
    places = np.einsum("gij,nj->gni", rotations, frac) + translations[:, None]
    image = np.empty(places.shape[:2], dtype=np.int64)
    distance = np.empty(places.shape[:2])
    for z in np.unique(numbers):
        own = np.flatnonzero(numbers == z)
        for g in range(len(rotations)):
            away = places[g, own][:, None] - frac[own][None]
            length = np.linalg.norm((away - np.rint(away)) @ cell, axis=-1)
            nearest = length.argmin(1)
            image[g, own], distance[g, own] = own[nearest], length[np.arange(len(own)), nearest]
    return image, distance


def symmetry_of_atoms(frac: np.ndarray, rotations: np.ndarray, translations: np.ndarray, image: np.ndarray) -> Symmetry:
    """Symmetry of one crystal from operations (a group modulo the lattice) and the permutations they make of its atoms.

    Parameters
    ----------
    frac : ndarray, shape (n, 3)
        Close to symmetric; decides only which lattice translates are meant.
    rotations, translations : ndarray, shapes (g, 3, 3) and (g, 3)
    image : ndarray, shape (g, n)
        From :func:`match_atoms`; each row a permutation.
    """
    sites: list[SiteTable] = []
    order: list[np.ndarray] = []
    left = np.ones(len(frac), dtype=bool)
    for atom in range(len(frac)):
        if not left[atom]:
            continue
        members, operation = np.unique(image[:, atom], return_index=True)
        left[members] = False
        landing = rotations[operation] @ frac[atom] + translations[operation]
        shift = translations[operation] - np.rint(landing - frac[members])
        fixing = np.flatnonzero(image[:, atom] == atom)
        moved = rotations[fixing] @ frac[atom] + translations[fixing]
        fixing_shift = translations[fixing] - np.rint(moved - frac[atom])
        # pure translations of a larger cell move every atom; operations that fix one are told apart by their rotations
        sites.append(site_of_operations(rotations[operation], shift, rotations[fixing], fixing_shift))
        order.append(members)
    place = np.empty(len(frac), dtype=np.int64)
    place[np.concatenate(order)] = np.arange(len(frac))
    return symmetry_of_sites(sites, np.unique(rotations, axis=0), place)
