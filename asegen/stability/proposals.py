"""Which phases may exist in a chemical system: formulas and crystals of them, without any data from outside the package.

Formulas come from three sources: those that the training data of the prototype model hold, those that chemically similar systems
have, and those in which common oxidation states cancel. Crystals come from the prototypes in which the training data hold a
formula, from those that the prototype model ranks first, and from the AFLOW prototypes that pymatgen ships.
"""

from __future__ import annotations

import gzip
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import permutations, product
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from ..errors import AsegenError
from ..prior import atomic_volumes
from ..prototypes.model import load_prototypes
from ..prototypes.ranking import Candidate
from .entries import reduced_formula

Formula = tuple[tuple[str, int], ...]
"""Elements (sorted) with their counts, without a common divisor."""

MOST_ATOMS = 20
"""Atoms in the cell of a proposal, at most."""
_UNITS = (1, 2, 3, 4, 6)
_MOST_IN_AFLOW = 40  # atoms in a cell: more only cost
_LARGEST_BALANCED = 12  # atoms in a formula of balanced charges
_ALONE = frozenset(("H", "B", "C", "N", "O", "F"))  # too different from those below them to lend their formulas


@dataclass(frozen=True)
class Proposal:
    """A crystal that may exist."""

    formula: str
    """Reduced formula."""
    atoms: Atoms = field(repr=False)
    """The crystal as the prototype predicts it, not relaxed."""
    origin: str
    """Which prototype, and who proposed it."""
    known: bool
    """Whether the training data hold this formula in this prototype."""


@dataclass(frozen=True)
class Effort:
    """How many proposals are made and how many of them are relaxed, for every set of elements."""

    analogous: int
    """Formulas of similar systems, at most."""
    ranked: int
    """Prototypes that the model ranks first, for every formula and number of formula units."""
    aflow: int
    """AFLOW prototypes of a formula, at most; of one that the training data hold only those with larger cells than the model knows."""
    window: float
    """Only what lies at most so far above the unrelaxed hull is relaxed, eV/atom."""
    each: int
    """Crystals of one formula that are relaxed, at most."""
    most: int
    """Crystals that are relaxed, at most."""


EFFORTS = {
    "quick": Effort(analogous=4, ranked=1, aflow=2, window=0.10, each=1, most=6),
    "normal": Effort(analogous=10, ranked=2, aflow=6, window=0.15, each=2, most=12),
    "thorough": Effort(analogous=30, ranked=4, aflow=20, window=0.25, each=4, most=40),
}
"""Efforts by name."""


def proposals(elements: frozenset[str], effort: Effort) -> list[Proposal]:
    """Crystals that hold exactly these elements and may exist, known ones first.

    Parameters
    ----------
    elements : frozenset of str
    effort : Effort

    Returns
    -------
    list of Proposal
        Cells of at most 20 atoms, those of AFLOW prototypes of at most 40.
    """
    made: list[Proposal] = []
    known = known_candidates(elements)
    for formula, found in known.items():
        made += (one for candidate in found if (one := _of_candidate(formula, candidate, "in the training data")) is not None)
    if len(elements) == 1:
        return made
    others = [formula for formula in analogous_formulas(elements) if formula not in known][: effort.analogous]
    others += [formula for formula in balanced_formulas(elements) if formula not in known and formula not in others]
    for formula in (*known, *others):
        made += _ranked(formula, 1 if formula in known else effort.ranked)
    for formula in (*known, *others):
        made += aflow_proposals(formula, effort.aflow, MOST_ATOMS + 1 if formula in known else 1)
    return made


def known_candidates(elements: frozenset[str]) -> dict[Formula, list[Candidate]]:
    """What the training data of the packaged prototype model hold of exactly these elements, by formula."""
    table = load_prototypes().table
    found: dict[Formula, list[Candidate]] = {}
    for position, row in _by_system().get(frozenset(atomic_numbers[symbol] for symbol in elements), ()):
        prototype = table.prototypes[position]
        assigned = tuple(int(z) for z in prototype.examples[row])
        values = prototype.own[row] if len(prototype.own) else prototype.geometry.predict(np.array(assigned))
        counts: dict[str, int] = {}
        for z, n in zip(assigned, prototype.counts, strict=True):
            counts[chemical_symbols[z]] = counts.get(chemical_symbols[z], 0) + n
        candidate = Candidate(prototype, assigned, 1.0, True, values)
        found.setdefault(_formula(counts), []).append(candidate)
    return found


def analogous_formulas(elements: frozenset[str]) -> list[Formula]:
    """Formulas that the training data hold of chemically similar elements, the most frequent first.

    Elements of a group of the periodic table are similar, lanthanides are, actinides are; H, B, C, N, O, F only to themselves.
    """
    families: dict[Any, list[str]] = {}
    for symbol in sorted(elements):
        families.setdefault(_family(symbol), []).append(symbol)
    wanted = tuple(sorted((family, len(members)) for family, members in families.items()))
    counted: Counter[Formula] = Counter()
    for system, rows in _formulas_by_families().items():
        if system != wanted:
            continue
        for row, times in rows.items():
            # elements of one family may be exchanged
            choices = [permutations(members) for _, members in sorted(families.items())]
            for choice in product(*choices):
                names = [symbol for members in choice for symbol in members]
                counted[_formula(dict(zip(names, row, strict=True)))] += times
    return [formula for formula, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]


def balanced_formulas(elements: frozenset[str]) -> list[Formula]:
    """Formulas of exactly these elements in which common oxidation states cancel, small ones first; none for metals alone."""
    from pymatgen.core import Element

    symbols = sorted(elements)
    if len(symbols) > 3:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anion = max(symbols, key=lambda symbol: Element(symbol).X)
        states = [[q for q in Element(symbol).common_oxidation_states if (q < 0) == (symbol == anion)] for symbol in symbols]
    found = set()
    for charges in product(*states):
        for counts in product(*(range(1, _LARGEST_BALANCED) for _ in symbols)):
            if sum(counts) <= _LARGEST_BALANCED and sum(q * n for q, n in zip(charges, counts, strict=True)) == 0:
                found.add(_formula(dict(zip(symbols, counts, strict=True))))
    return sorted(found, key=lambda formula: (sum(n for _, n in formula), formula))[:16]


def aflow_proposals(formula: Formula, most: int, smallest: int = 1) -> list[Proposal]:
    """AFLOW prototypes (those that pymatgen ships) with the elements of a formula on their sites.

    Parameters
    ----------
    formula : Formula
    most : int
        At most so many: those whose own elements are nearest by Mendeleev number.
    smallest : int
        Atoms in the primitive cell, at least; at most there are 40.

    References
    ----------
    Mehl et al., Comput. Mater. Sci. 136, S1 (2017).
    """
    fitting = []
    for position, name, counts, symbols in _aflow().get(tuple(sorted(n for _, n in formula)), ()):
        for order in permutations(formula):
            if tuple(n for _, n in order) == counts:
                far = sum(n * abs(_mendeleev(ours) - _mendeleev(theirs)) for (ours, n), theirs in zip(order, symbols, strict=True))
                fitting.append((far, position, name, dict(zip(symbols, (ours for ours, _ in order), strict=True))))
    made: list[Proposal] = []
    for _, position, name, places in sorted(fitting, key=lambda item: item[:2]):
        if len(made) == most:
            break
        primitive = _primitive(position)
        if not smallest <= len(primitive) <= _MOST_IN_AFLOW:
            continue
        symbols = [places[site.specie.symbol] for site in primitive]
        atoms = Atoms(symbols, scaled_positions=primitive.frac_coords, cell=primitive.lattice.matrix, pbc=True)
        volume = float(np.nan_to_num(atomic_volumes(), nan=18.0)[atoms.numbers].sum())
        atoms.set_cell(atoms.cell * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
        made.append(Proposal(_text(formula), atoms, f"AFLOW {name}", False))
    return made


def _ranked(formula: Formula, most: int) -> Iterator[Proposal]:
    """What the prototype model ranks first for cells of 1, 2, … formula units."""
    size = sum(n for _, n in formula)
    for units in _UNITS:
        if size * units > MOST_ATOMS:
            return
        numbers = np.repeat([atomic_numbers[symbol] for symbol, _ in formula], [n * units for _, n in formula])
        ranked, _ = load_prototypes().rank(numbers, n=4 * most + 8, units=1, order="likely")
        for candidate in [candidate for candidate in ranked if not candidate.known][:most]:
            if (one := _of_candidate(formula, candidate, "predicted")) is not None:
                yield one


def _of_candidate(formula: Formula, candidate: Candidate, who: str) -> Proposal | None:
    try:
        atoms, _ = candidate.crystal()
    except (AsegenError, ValueError, np.linalg.LinAlgError):  # its free parameters, predicted far from any example, make no crystal
        return None
    bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    return Proposal(_text(formula), bare, f"space group {candidate.prototype.number}, {candidate.prototype.sites}, {who}", candidate.known)


@lru_cache(maxsize=1)
def _by_system() -> dict[frozenset[int], list[tuple[int, int]]]:
    """Prototype and example of every training crystal of at most `MOST_ATOMS` atoms, by its elements; of equal ones the most stable."""
    found: dict[frozenset[int], list[tuple[int, int]]] = {}
    for position, prototype in enumerate(load_prototypes().table.prototypes):
        if sum(prototype.counts) > MOST_ATOMS:
            continue
        rows: dict[tuple[int, ...], int] = {}
        hull = np.nan_to_num(prototype.hull, nan=np.inf) if len(prototype.hull) else np.zeros(len(prototype.examples))
        for k in np.argsort(hull, kind="stable").tolist():
            rows.setdefault(tuple(prototype.examples[k].tolist()), k)
        for row, k in rows.items():
            found.setdefault(frozenset(row), []).append((position, k))
    return found


@lru_cache(maxsize=1)
def _formulas_by_families() -> dict[tuple[Any, ...], Counter[tuple[int, ...]]]:
    """Reduced counts (in the order of the families) of all training formulas, by ((family, its elements), …)."""
    table = load_prototypes().table
    found: dict[tuple[Any, ...], Counter[tuple[int, ...]]] = {}
    for system, rows in _by_system().items():
        symbols = sorted((chemical_symbols[z] for z in system), key=lambda symbol: (_family(symbol), symbol))
        families = Counter(_family(symbol) for symbol in symbols)
        counter = found.setdefault(tuple(sorted(families.items())), Counter())
        formulas = set()
        for position, row in rows:
            counts = dict.fromkeys(symbols, 0)
            for z, n in zip(table.prototypes[position].examples[row].tolist(), table.prototypes[position].counts, strict=True):
                counts[chemical_symbols[z]] += n
            divisor = gcd(*counts.values())
            formulas.add(tuple(counts[symbol] // divisor for symbol in symbols))
        counter.update(formulas)
    return found


@cache
def _family(symbol: str) -> str:
    from pymatgen.core import Element

    element = Element(symbol)
    if symbol in _ALONE:
        return symbol
    return "lanthanide" if element.is_lanthanoid else "actinide" if element.is_actinoid else f"group {element.group:02d}"


@cache
def _mendeleev(symbol: str) -> float:
    from pymatgen.core import Element

    return float(Element(symbol).mendeleev_no or 0)


@lru_cache(maxsize=1)
def _library() -> list[tuple[str, Any]]:
    """Name and structure of every AFLOW prototype in pymatgen."""
    from pymatgen.core import Structure

    analysis = find_spec("pymatgen.analysis")
    folders = list(analysis.submodule_search_locations or ()) if analysis is not None else []
    path = next((p for folder in folders if (p := Path(folder) / "prototypes" / "aflow_prototypes.json.gz").is_file()), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path is None:  # another version of pymatgen keeps it elsewhere
            from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

            return [(item["tags"]["aflow"], item["snl"].structure) for item in AFLOW_PROTOTYPE_LIBRARY]
        # the file itself: on import pymatgen checks the bibliography of each of its structures, which takes seconds
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            return [(item["tags"]["aflow"], Structure.from_dict(item["snl"])) for item in json.load(stream)]


@lru_cache(maxsize=1)
def _aflow() -> dict[tuple[int, ...], list[tuple[int, str, tuple[int, ...], list[str]]]]:
    """AFLOW prototypes by the sorted counts of their reduced formula: place in the library, name, counts and species."""
    found: dict[tuple[int, ...], list[tuple[int, str, tuple[int, ...], list[str]]]] = {}
    for position, (name, structure) in enumerate(_library()):
        reduced = structure.composition.reduced_composition
        symbols = [element.symbol for element in reduced.elements]
        counts = tuple(int(reduced[symbol]) for symbol in symbols)
        found.setdefault(tuple(sorted(counts)), []).append((position, name, counts, symbols))
    return found


@cache
def _primitive(position: int) -> Any:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    # spglib's: pymatgen's own search takes seconds for large cells
    return SpacegroupAnalyzer(_library()[position][1], symprec=0.01).find_primitive()


def _formula(counts: dict[str, int]) -> Formula:
    divisor = gcd(*counts.values())
    return tuple((symbol, counts[symbol] // divisor) for symbol in sorted(counts))


def _text(formula: Formula) -> str:
    return reduced_formula("".join(f"{symbol}{n}" for symbol, n in formula))


__all__ = [
    "EFFORTS",
    "MOST_ATOMS",
    "Effort",
    "Proposal",
    "aflow_proposals",
    "analogous_formulas",
    "balanced_formulas",
    "known_candidates",
    "proposals",
]
