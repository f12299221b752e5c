"""Choices of Wyckoff positions that are the same crystal, seen from another origin or along other axes.

``Sr:1b Ti:1a O:3d`` of Pm-3m is ``Sr:1a Ti:1b O:3c`` moved by half a body diagonal. The maps that carry a space group into itself
(its affine normalizer) exchange letters; ``assets/normalizers.json``, made by ``data/make_normalizers.py``, holds how.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files

import numpy as np

from .groups import Group, space_group
from .sites import Sites, draw_sites, enumerate_sites, parse_sites

#: Number of a space group and occupied positions, the same for all equivalent ones.
SitesKey = tuple[int, Sites]

_TRIES = 64


def canonical_sites(group: Group | int | str, sites: str | Sequence[tuple[str, str]]) -> SitesKey:
    """Occupied positions in the one of all equivalent descriptions that comes first in the alphabet.

    Two choices with the same key are the same crystal if neither the positions nor the cell have free parameters, and the same
    family of crystals if they have. Mirror images count as the same. Different keys are different crystals, unless these have more
    symmetry than the group.

    Parameters
    ----------
    group : Group, int or str
    sites : str or sequence of (element, label)
        ``"Fe:4c,4a O:8d"``, or what :func:`asegen.symmetry.draw_sites` gives.

    Returns
    -------
    tuple of (number of the group, sites)
        The sites sorted by element, then letter: themselves a valid choice of the group.

    Raises
    ------
    GroupError, SitesError
        As :func:`asegen.symmetry.parse_sites`.

    Examples
    --------
    >>> canonical_sites(221, "Sr:1b Ti:1a O:3d") == canonical_sites(221, "Sr:1a Ti:1b O:3c")
    True
    """
    group = space_group(group)
    occupied: dict[str, str] = {}
    for element, label in parse_sites(sites, group):
        occupied[element] = occupied.get(element, "") + label[-1]
    elements = sorted(occupied)
    rank = {letter: k for k, letter in enumerate(group.letters)}
    best: list[list[int]] | None = None
    for exchange in letter_exchanges(group.number):
        renamed = [sorted(rank[exchange[rank[letter]]] for letter in occupied[element]) for element in elements]
        if best is None or renamed < best:
            best = renamed
    assert best is not None
    labels = [position.label for position in group.positions]
    return group.number, tuple((element, labels[k]) for element, own in zip(elements, best, strict=True) for k in own)


def distinct_sites(counts: Mapping[str, int] | str, group: Group | int | str, limit: int | None = None) -> Iterator[Sites]:
    """One combination of each class of equivalent ones, in the order of :func:`asegen.symmetry.enumerate_sites`.

    Parameters
    ----------
    counts : mapping of element to number, or formula
        Atoms in the primitive cell.
    group : Group, int or str
    limit : int, optional
        Stop after so many. Combinations can be beyond number (:func:`asegen.symmetry.count_sites`).

    Examples
    --------
    >>> len(list(distinct_sites("SrTiO3", "Pm-3m")))
    2
    """
    group = space_group(group)
    seen: set[SitesKey] = set()
    for sites in enumerate_sites(counts, group):
        if limit is not None and len(seen) >= limit:
            return
        key = canonical_sites(group, sites)
        if key not in seen:
            seen.add(key)
            yield sites


def draw_distinct_sites(
    counts: Mapping[str, int] | str, group: Group | int | str, random: np.random.Generator, avoid: Container[SitesKey] = ()
) -> Sites:
    """One combination at random, not equivalent to any of those to avoid as long as another is found.

    The first draw is that of :func:`asegen.symmetry.draw_sites`; it is repeated at most 64 times. If all are to be avoided, the first
    with free parameters is taken, for its crystals can still differ, else the first of all.

    Parameters
    ----------
    counts : mapping of element to number, or formula
        Atoms in the primitive cell.
    group : Group, int or str
    random : numpy.random.Generator
    avoid : container of SitesKey, optional
        From :func:`canonical_sites`.

    Raises
    ------
    SitesError
        The group cannot hold the formula.
    """
    group = space_group(group)
    first = free = None
    for _ in range(_TRIES):
        sites = draw_sites(counts, group, random)
        if canonical_sites(group, sites) not in avoid:
            return sites
        first = first or sites
        if free is None and any(group.position(label).dof for _, label in sites):
            free = sites
    chosen = free or first
    assert chosen is not None
    return chosen


@cache
def letter_exchanges(number: int) -> tuple[str, ...]:
    """All exchanges of letters by the normalizer of a group, each what a, b, c, … turn into; the first changes nothing."""
    return closure(space_group(number).letters, _table()[str(number)])


def closure(letters: str, generators: Sequence[str]) -> tuple[str, ...]:
    """All products of some exchanges of letters, the one that changes nothing first."""
    steps = [str.maketrans(letters, generator) for generator in generators]
    found = {letters: None}
    new = [letters]
    while new:
        new = [word for word in dict.fromkeys(word.translate(step) for word in new for step in steps) if word not in found]
        found.update(dict.fromkeys(new))
    return tuple(found)


@cache
def _table() -> dict[str, list[str]]:
    return json.loads((files("asegen") / "assets" / "normalizers.json").read_text())


__all__ = ["SitesKey", "canonical_sites", "closure", "distinct_sites", "draw_distinct_sites", "letter_exchanges"]
