"""Which Wyckoff positions a formula can occupy: enumerating, counting and drawing combinations, and writing them as text.

A combination gives each element some positions whose multiplicities add up to its number of atoms. A position without free
parameters is one set of points and can be used once, by one element; one with free parameters any number of times.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice, product

import numpy as np

from ..formulas import parse_formula
from .errors import SitesError
from .groups import CRYSTAL_SYSTEMS, Group, describe_letters, multiplicities, space_group

#: Occupied positions: pairs of element and label (multiplicity in the conventional cell, and letter), ``("O", "8d")``.
Sites = tuple[tuple[str, str], ...]

Counts = Mapping[str, int]


class _Combinations:
    """Combinations for one group and one list of counts; elements are numbers here, in the order of the formula."""

    def __init__(self, group: int, counts: tuple[int, ...]) -> None:
        table = multiplicities(group)
        self.counts = counts
        self.letters = [letter for letter, _, _ in table]
        self.size = [m for _, m, _ in table]
        self.fixed = [dof == 0 for _, _, dof in table]
        self.free = [i for i, fixed in enumerate(self.fixed) if not fixed]
        # fixed positions of equal multiplicity are interchangeable for counting
        self.classes = sorted({m for m, fixed in zip(self.size, self.fixed, strict=True) if fixed})
        self.members = [[i for i, m in enumerate(self.size) if self.fixed[i] and m == c] for c in self.classes]
        self._ways: dict[tuple[int, tuple[int, ...]], int] = {}
        top = max(counts, default=0)
        # partial[i][n]: multisets of the free positions from the i-th on with n atoms
        self.partial = [[0] * (top + 1) for _ in range(len(self.free) + 1)]
        self.partial[-1][0] = 1
        for i in reversed(range(len(self.free))):
            step = self.size[self.free[i]]
            for n in range(top + 1):
                self.partial[i][n] = self.partial[i + 1][n] + (self.partial[i][n - step] if n >= step else 0)

    def ways(self, element: int, used: tuple[int, ...]) -> int:
        """Combinations for the elements from `element` on when so many fixed positions of each class are taken."""
        if element == len(self.counts):
            return 1
        key = element, used
        if key not in self._ways:
            self._ways[key] = sum(w for _, w in self.shares(element, used))
        return self._ways[key]

    def shares(self, element: int, used: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
        """How many fixed positions of each class the element may take, each with its number of combinations."""
        total = self.counts[element]
        spare = [len(m) - u for m, u in zip(self.members, used, strict=True)]
        ranges = [range(min(s, total // c) + 1) for s, c in zip(spare, self.classes, strict=True)]
        for taken in product(*ranges):
            rest = total - sum(t * c for t, c in zip(taken, self.classes, strict=True))
            if rest < 0 or not self.partial[0][rest]:
                continue
            here = self.partial[0][rest] * math.prod(math.comb(s, t) for s, t in zip(spare, taken, strict=True))
            after = self.ways(element + 1, tuple(u + t for u, t in zip(used, taken, strict=True)))
            if after:
                yield taken, here * after

    def none_used(self) -> tuple[int, ...]:
        return (0,) * len(self.classes)

    def of(self, taken: frozenset[int]) -> tuple[int, ...]:
        return tuple(sum(i in taken for i in members) for members in self.members)

    def walk(self, element: int, taken: frozenset[int]) -> Iterator[tuple[tuple[int, ...], ...]]:
        """All combinations from `element` on, as one tuple of positions per element, in order."""
        if element == len(self.counts):
            yield ()
            return
        for own in self.lists(self.counts[element], 0, taken, element):
            after = taken | {i for i in own if self.fixed[i]}
            for others in self.walk(element + 1, after):
                yield (own, *others)

    def lists(self, rest: int, start: int, taken: frozenset[int], element: int) -> Iterator[tuple[int, ...]]:
        """Lists of positions with `rest` atoms from the letter `start` on, in the order of a dictionary, none without a continuation."""
        if rest == 0:
            if self.ways(element + 1, self.of(taken)):
                yield ()
            return
        for i in range(start, len(self.size)):
            if self.size[i] > rest or i in taken:
                continue
            now = taken | {i} if self.fixed[i] else taken
            if self.reaches(rest - self.size[i], i, now):
                for more in self.lists(rest - self.size[i], i, now, element):
                    yield (i, *more)

    def reaches(self, rest: int, start: int, taken: frozenset[int]) -> bool:
        """Whether `rest` atoms can be made of positions from `start` on; cheap, so that no list is begun in vain."""
        sums = {0}
        for i in range(start, len(self.size)):
            if self.fixed[i] and i not in taken:
                sums |= {s + self.size[i] for s in sums if s + self.size[i] <= rest}
        later = next((k for k, i in enumerate(self.free) if i >= start), len(self.free))
        return any(self.partial[later][rest - s] for s in sums if rest >= s)


@cache
def _combinations(group: int, counts: tuple[int, ...]) -> _Combinations:
    return _Combinations(group, counts)


def enumerate_sites(counts: Counts | str, group: Group | int | str, limit: int | None = None) -> Iterator[Sites]:
    """All combinations of Wyckoff positions that hold a formula, one after the other.

    The order is fixed: that of a dictionary, the first element's letters first (in the order of the formula), then the second's;
    so the most symmetric positions come first. Nothing is stored: combinations are made when they are asked for.

    Parameters
    ----------
    counts : mapping of element to number, or formula
        Atoms in the primitive cell.
    group : Group, int or str
    limit : int, optional
        Stop after so many.

    Yields
    ------
    tuple of (element, label)
        Sorted by element, then letter; a position used twice appears twice.

    Examples
    --------
    >>> next(enumerate_sites("SrTiO3", "Pm-3m"))
    (('Sr', '1a'), ('Ti', '1b'), ('O', '3c'))
    """
    group, counts = space_group(group), _counts(counts)
    plan = _combinations(group.number, tuple(counts.values()))
    labels = [position.label for position in group.positions]

    def named() -> Iterator[Sites]:
        if plan.ways(0, plan.none_used()):
            for lists in plan.walk(0, frozenset()):
                yield tuple((element, labels[i]) for element, own in zip(counts, lists, strict=True) for i in own)

    return islice(named(), limit)


def count_sites(counts: Counts | str, group: Group | int | str) -> int:
    """Number of combinations that :func:`enumerate_sites` would give, exact, without making them."""
    group, counts = space_group(group), _counts(counts)
    plan = _combinations(group.number, tuple(counts.values()))
    return plan.ways(0, plan.none_used())


def groups_that_hold(counts: Counts | str) -> list[int]:
    """Numbers of the space groups in which some combination of Wyckoff positions holds a formula (primitive cell)."""
    amounts = tuple(_counts(counts).values())
    return [number for number in range(1, 231) if _holds(number, amounts)]


def _holds(number: int, amounts: tuple[int, ...]) -> bool:
    plan = _combinations(number, amounts)
    return plan.ways(0, plan.none_used()) > 0


def check_formula(counts: Counts | str, group: Group | int | str) -> None:
    """Raise :class:`SitesError` if the group cannot hold a formula; the message lists groups that can."""
    group, counts = space_group(group), _counts(counts)
    if not _holds(group.number, tuple(counts.values())):
        formula = "".join(f"{element}{count if count > 1 else ''}" for element, count in counts.items())
        raise SitesError(
            f"no combination of Wyckoff positions of {group.symbol} ({group.number}) holds {formula} in the primitive cell;"
            f" groups that do: {describe_groups(groups_that_hold(counts))}"
        )


def draw_sites(counts: Counts | str, group: Group | int | str, random: np.random.Generator) -> Sites:
    """One combination at random, each with the same probability, without enumerating them.

    Raises
    ------
    SitesError
        The group cannot hold the formula.
    """
    group, counts = space_group(group), _counts(counts)
    check_formula(counts, group)
    plan = _combinations(group.number, tuple(counts.values()))
    taken: set[int] = set()
    chosen: list[tuple[str, str]] = []
    for number, element in enumerate(counts):
        options = list(plan.shares(number, plan.of(frozenset(taken))))
        shares = options[_pick([w for _, w in options], random)][0]
        own: list[int] = []
        for members, share in zip(plan.members, shares, strict=True):
            spare = [i for i in members if i not in taken]
            own += [spare[k] for k in random.permutation(len(spare))[:share]]
        taken.update(own)
        rest, i = counts[element] - sum(plan.size[k] for k in own), 0
        while rest:
            step = plan.size[plan.free[i]]
            again = plan.partial[i][rest - step] if rest >= step else 0
            if _pick([again, plan.partial[i + 1][rest]], random) == 0:
                own.append(plan.free[i])
                rest -= step
            else:
                i += 1
        chosen += [(element, group.positions[k].label) for k in sorted(own)]
    return tuple(chosen)


def _pick(weights: Sequence[int], random: np.random.Generator) -> int:
    total = sum(weights)
    shares = np.array([w / total for w in weights])  # ratios of whole numbers of any size
    return int(np.searchsorted(shares.cumsum() / shares.sum(), random.random(), side="right"))


def parse_sites(text: str | Sequence[tuple[str, str]], group: Group | int | str, counts: Counts | str | None = None) -> Sites:
    """Read occupied positions, ``"Fe:4c,4a O:8d"``.

    Parameters
    ----------
    text : str or sequence of (element, label)
        Elements with their positions; the multiplicities (conventional cell) may be left out: ``"Fe:c,a O:d"``.
    group : Group, int or str
    counts : mapping or formula, optional
        What the primitive cell must hold; then elements come in this order.

    Returns
    -------
    tuple of (element, label)
        Elements in the order of `counts`, or of their appearance; letters sorted.

    Raises
    ------
    SitesError
        Not of this form, a letter that the group does not have, a wrong multiplicity, a position without free
        parameters used twice, or not the formula asked for.
    """
    group = space_group(group)
    occupied: dict[str, list[int]] = {}
    for element, label in _pairs(text):
        read = parse_formula(element)
        if list(read.values()) != [1]:
            raise SitesError(f"{element!r} in {text!r} is not an element; write sites like 'Fe:4c,4a O:8d'")
        (element,) = read  # D and T are hydrogen
        occupied.setdefault(element, []).append(group.positions.index(group.position(label)))
    users: dict[int, str] = {}
    for element, own in occupied.items():
        for i in own:
            position = group.positions[i]
            if position.dof == 0 and i in users:
                both = element if users[i] == element else f"{users[i]} and {element}"
                raise SitesError(
                    f"position {position.label} of {group.symbol} is used twice (by {both}); it has no free parameter,"
                    f" so the atoms would coincide at {position.coordinates}"
                )
            users[i] = element
    order = list(occupied)
    if counts is not None:
        wanted = _counts(counts)
        found = {element: sum(group.positions[i].multiplicity_primitive for i in own) for element, own in occupied.items()}
        if found != dict(wanted):
            raise SitesError(
                f"the sites hold {_show(found)} in the primitive cell, not {_show(wanted)}"
                f" ({group.symbol} has {describe_letters(group)}; {len(group.setting.centrings)} lattice points in the conventional cell)"
            )
        order = list(wanted)
    return tuple((element, group.positions[i].label) for element in order for i in sorted(occupied[element]))


def format_sites(sites: Sequence[tuple[str, str]]) -> str:
    """Occupied positions as text that :func:`parse_sites` reads: ``"Fe:4c,4a O:8d"``."""
    labels: dict[str, list[str]] = {}
    for element, label in sites:
        labels.setdefault(element, []).append(label)
    return " ".join(f"{element}:{','.join(own)}" for element, own in labels.items())


def describe_groups(numbers: Sequence[int]) -> str:
    """Numbers of groups by crystal system, runs shortened: ``cubic 195, 200–202``."""
    parts, before = [], 0
    for system, last in CRYSTAL_SYSTEMS.items():
        own = [n for n in numbers if before < n <= last]
        runs: list[list[int]] = []
        for n in own:
            if runs and runs[-1][-1] == n - 1:
                runs[-1].append(n)
            else:
                runs.append([n])
        if runs:
            parts.append(f"{system} " + ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs))
        before = last
    return "; ".join(reversed(parts))


def _pairs(text: str | Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    if not isinstance(text, str):
        return [(str(element), str(label)) for element, label in text]
    pairs = []
    for word in re.sub(r"\s*([:,])\s*", r"\1", text.strip()).split():
        match = re.fullmatch(r"([A-Za-z]+):(\w+(?:,\w+)*)", word)
        if match is None:
            raise SitesError(f"cannot read {word!r} in {text!r}; write sites like 'Fe:4c,4a O:8d'")
        pairs += [(match[1], label) for label in match[2].split(",")]
    if not pairs:
        raise SitesError("no sites given; write them like 'Fe:4c,4a O:8d'")
    return pairs


def _counts(counts: Counts | str) -> dict[str, int]:
    return parse_formula(counts) if isinstance(counts, str) else dict(counts)


def _show(counts: Counts) -> str:
    return "".join(f"{element}{count}" for element, count in counts.items())
