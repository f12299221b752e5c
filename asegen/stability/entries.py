"""Competing phases as numbers: a composition, an energy, and the scale that the energy is on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, Protocol

from ase import Atoms

from ..calculators.potentials import POTENTIALS
from ..errors import StabilityError


@dataclass(frozen=True)
class Entry:
    """A phase of known energy."""

    formula: str
    """As written in the source; only the ratios matter."""
    energy_per_atom: float
    """eV/atom, not of formation."""
    scale: str
    """Energy scale, see :mod:`asegen.stability.scales`."""
    source: str
    """Where the energy comes from: a file, the Materials Project, a potential."""
    name: str = ""
    """What it is called there."""
    atoms: Atoms | None = field(default=None, repr=False, compare=False)
    """Its structure, where it is known."""
    potential: str | None = None
    """Name of the potential that computed it; None: DFT, or not known."""

    @property
    def computed_with(self) -> str | None:
        """Name of its potential, also where only `source` names one."""
        return self.potential or (self.source if self.source.lower() in POTENTIALS else None)

    @cached_property
    def fractions(self) -> dict[str, float]:
        """Share of the atoms that each element has; they sum to 1."""
        return fractions_of(self.formula)

    @cached_property
    def elements(self) -> frozenset[str]:
        """Symbols of its elements."""
        return frozenset(self.fractions)

    @cached_property
    def reduced_formula(self) -> str:
        """As pymatgen writes it, such as SrTiO3."""
        return reduced_formula(self.formula)


@dataclass(frozen=True)
class Phases:
    """What competes in one chemical system."""

    entries: tuple[Entry, ...]
    """Phases of the system and of all systems within it."""
    protocol: str
    """Where they come from, and what was left out."""
    missing: tuple[str, ...] = ()
    """Phases that should be there and are not, each with the reason."""


class Reference(Protocol):
    """What can name the competing phases of a chemical system: a file, the Materials Project, phases that are made."""

    @property
    def scale(self) -> str:
        """Energy scale of its entries."""

    @property
    def name(self) -> str:
        """What errors and protocols call it."""

    def prepare(self, systems: Iterable[frozenset[str]]) -> None:
        """Called before `phases` with all chemical systems that will be asked for."""

    def phases(self, elements: frozenset[str]) -> Phases:
        """Phases that hold no other elements than these."""


class EntrySet:
    """Entries of one energy scale, found by chemical system.

    Parameters
    ----------
    entries : iterable of Entry
    name : str
        What errors and protocols call it.
    note : str
        What a protocol has to say of them: how the scale is known, what was converted.
    broken : sequence of str
        Rows that could not be read, each with the reason.

    Raises
    ------
    StabilityError
        Entries of different scales or of different potentials, or none.
    """

    def __init__(self, entries: Iterable[Entry], name: str = "entries given", note: str = "", broken: Sequence[str] = ()) -> None:
        self._by_system: dict[frozenset[str], list[Entry]] = {}
        scales: dict[str, Entry] = {}
        self._size = 0
        potentials: dict[str, Entry] = {}
        for entry in entries:
            if not isinstance(entry, Entry):
                raise StabilityError(f"{name} holds a {type(entry).__name__}; an Entry (formula, energy_per_atom, scale, source) is needed")
            if entry.computed_with is not None:
                potentials.setdefault(entry.computed_with, entry)
            self._by_system.setdefault(entry.elements, []).append(entry)
            scales.setdefault(entry.scale, entry)
            self._size += 1
        if not scales:
            raise StabilityError(f"{name} holds no phase with an energy{_of_broken(broken)}")
        if len(scales) > 1:
            (one, first), (two, second) = list(scales.items())[:2]
            raise StabilityError(
                f"{name} mixes energy scales: {first.formula} is on {one}, {second.formula} on {two}; one hull needs one scale"
            )
        if len(potentials) > 1:
            (one, first), (two, second) = list(potentials.items())[:2]
            raise StabilityError(
                f"{name} mixes potentials: {first.formula} is of {one}, {second.formula} of {two}; one hull needs one potential"
            )
        self.scale = next(iter(scales))
        self.potential = next(iter(potentials), None)
        self.name = name
        self.broken = tuple(broken)
        self._note = note

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Entry]:
        for entries in self._by_system.values():
            yield from entries

    def prepare(self, systems: Iterable[frozenset[str]]) -> None:
        """Nothing is to be prepared: all entries are here."""

    def phases(self, elements: frozenset[str]) -> Phases:
        """Phases that hold no other elements than these."""
        found = [entry for system in _systems_within(elements, self._by_system) for entry in self._by_system[system]]
        protocol = f"{self.name}, scale {self.scale}{f' ({self._note})' if self._note else ''}"
        if self.broken:
            protocol += f"; {len(self.broken)} rows of it could not be read (first: {self.broken[0]})"
        return Phases(tuple(found), protocol)


def fractions_of(formula: str) -> dict[str, float]:
    """Share of the atoms that each element of a formula has.

    Raises
    ------
    StabilityError
        It is not a formula of chemical elements; fractions of atoms are.
    """
    from pymatgen.core import Composition, Element

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            composition: Any = Composition(formula)
            if not composition.num_atoms > 0 or not all(isinstance(element, Element) for element in composition.elements):
                raise ValueError
    except (ValueError, TypeError, KeyError) as error:
        raise StabilityError(f"{formula!r} is not a formula") from error
    total = float(composition.num_atoms)
    return {symbol: float(amount) / total for symbol, amount in composition.get_el_amt_dict().items() if amount > 0}


def reduced_formula(formula: str) -> str:
    """A formula as pymatgen reduces it, such as SrTiO3."""
    from pymatgen.core import Composition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(Composition(formula).get_reduced_formula_and_factor(iupac_ordering=False)[0])


def _systems_within(elements: frozenset[str], known: dict[frozenset[str], list[Entry]]) -> list[frozenset[str]]:
    if 2 ** len(elements) > len(known):
        return [system for system in known if system <= elements]
    sizes = range(1, len(elements) + 1)
    subsets = (frozenset(chosen) for size in sizes for chosen in combinations(sorted(elements), size))
    return [system for system in subsets if system in known]


def _of_broken(broken: Sequence[str]) -> str:
    return f" ({len(broken)} could not be read; first: {broken[0]})" if broken else ""


__all__ = ["Entry", "EntrySet", "Phases", "Reference", "fractions_of", "reduced_formula"]
