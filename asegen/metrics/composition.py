"""Whether a composition can be neutral: CDVAE's composition validity, which is SMACT's rule, without a product over states.

A composition passes if it is one element, or metals only, or if every element can take one of its oxidation states so that
the charges add up to zero and every cation is less electronegative than every anion (Pauling's ordering; Davies et al.,
Chem 1, 617 (2016); Xie et al., ICLR 2022, section 5.2). SMACT tries all choices of states, millions for ten elements. Here
the ordering itself is used: with the elements sorted by electronegativity, the first few are the cations and the others
the anions, and for each place to cut only the reachable sums of charges of both sides have to meet.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from ..errors import FormulaError
from ..formulas import parse_formula

#: ``smact14``: the oxidation states that CDVAE and those after it used; ``smact``: what SMACT 4 uses unless told otherwise (ICSD 2024).
Rule = Literal["smact14", "smact"]
#: A formula, the atomic numbers of all atoms, or the number of atoms of each element (symbol or atomic number).
Composition = str | Sequence[int] | np.ndarray | Mapping[str, int] | Mapping[int, int]

# the sums of charges are kept as bits of one number: more atoms than this are no formula, but would fill the memory
_MOST_ATOMS = 1_000_000


@dataclass(frozen=True)
class OxidationCheck:
    """Answer of :func:`oxidation_valid`; true or false where a truth value is asked."""

    valid: bool
    """Whether the composition passes."""
    reason: str
    """In words: ``neutral and Pauling-ordered``, ``one element``, ``metals only``, ``no neutral combination``,
    ``neutral only against the Pauling order``, ``no oxidation states for He``, ``no electronegativity of Pm``,
    ``SMACT does not know Rf``, ``119 is no atomic number``."""

    def __bool__(self) -> bool:
        return self.valid


@dataclass(frozen=True)
class _Ions:
    """What the rule knows about one element."""

    electronegativity: float | None
    """Pauling's scale; None where SMACT has no value."""
    states: tuple[int, ...]
    """Oxidation states; none is zero."""


@cache
def composition_tables() -> dict[str, Any]:
    """The content of ``assets/composition.json``, made by ``data/make_composition_tables.py``."""
    return json.loads((files("asegen") / "assets" / "composition.json").read_text())


def oxidation_valid(composition: Composition, rule: Rule = "smact14") -> OxidationCheck:
    """Whether a composition passes CDVAE's validity rule, and why or why not.

    The same answers as ``smact.screening.smact_validity`` of SMACT 4: with ``oxidation_states_set="smact14"``, or as it is.

    Parameters
    ----------
    composition : str, sequence of int, or mapping
        A formula; or the atomic numbers of all atoms, in any order; or counts per element. Only ratios matter.
    rule : {"smact14", "smact"}
        Which set of oxidation states.

    Returns
    -------
    OxidationCheck

    Raises
    ------
    FormulaError
        No atoms, or a count that is not whole and positive.

    Notes
    -----
    CDVAE pinned SMACT 2.2.1, which differs in three ways. Its electronegativity of Zr was 0.33, a typing error for 1.33; its Ir
    had the state -2 in place of -3; and where an electronegativity is missing (Pm, Lr) it let a neutral combination pass if the
    first ion that it compared with that element's had the opposite charge. SMACT 4, and this function, let none pass. On the
    training and validation set of MP-20 the three change 58 of 35,333 answers.
    """
    counts = dict(sorted(_counts(composition).items()))
    ions = _ions(rule)
    divisor = math.gcd(*counts.values())
    for number in counts:
        if not 1 <= number < len(chemical_symbols):
            return OxidationCheck(False, f"{number} is no atomic number")
    if len(counts) == 1:
        return OxidationCheck(True, "one element")
    if counts.keys() <= _metals():
        return OxidationCheck(True, "metals only")
    for number in counts:
        if number not in ions:
            return OxidationCheck(False, f"SMACT does not know {chemical_symbols[number]}")
        if not ions[number].states:
            return OxidationCheck(False, f"no oxidation states for {chemical_symbols[number]}")
    charges = []
    for number, count in counts.items():
        electronegativity = ions[number].electronegativity
        if electronegativity is None:
            return OxidationCheck(False, f"no electronegativity of {chemical_symbols[number]}")
        charges.append((electronegativity, [count // divisor * state for state in ions[number].states]))
    if sum(counts.values()) // divisor > _MOST_ATOMS:
        raise FormulaError(f"a formula of {sum(counts.values()) // divisor} atoms is too large; {_MOST_ATOMS} are allowed")
    if _ordered(sorted(charges)):
        return OxidationCheck(True, "neutral and Pauling-ordered")
    if _neutral(charges):
        return OxidationCheck(False, "neutral only against the Pauling order")
    return OxidationCheck(False, "no neutral combination")


def _ordered(charges: Sequence[tuple[float, list[int]]]) -> bool:
    """Whether charges can add up to zero with all cations below all anions; elements sorted by electronegativity.

    Bit q of a number is set if the charge q can be reached. Elements of one electronegativity are on the same side of the cut.
    """
    anions = list(_sums([[-charge for charge in options if charge < 0] for _, options in reversed(charges)]))[::-1]
    cations = _sums([[charge for charge in options if charge > 0] for _, options in charges])
    for cut, reached in enumerate(cations):
        if 0 < cut < len(charges) and reached & anions[cut] and charges[cut - 1][0] < charges[cut][0]:
            return True
    return False


def _sums(options: Sequence[Sequence[int]]) -> Iterator[int]:
    """Reachable sums, as bits, of the first 0, 1, … elements with one charge each, none negative."""
    reached = 1
    yield reached
    for charges in options:
        extended = 0
        for charge in charges:
            extended |= reached << charge
        reached = extended
        yield reached


def _neutral(charges: Sequence[tuple[float, list[int]]]) -> bool:
    """Whether charges can add up to zero in any way."""
    # measured from the lowest charge of each element, no charge is negative
    lowest = sum(min(options) for _, options in charges)
    *_, reached = _sums([[charge - min(options) for charge in options] for _, options in charges])
    return lowest <= 0 and bool(reached >> -lowest & 1)


def _counts(composition: Composition) -> dict[int, int]:
    """Atoms per atomic number."""
    if isinstance(composition, str):
        return {atomic_numbers[symbol]: count for symbol, count in parse_formula(composition).items()}
    if not isinstance(composition, Mapping):
        numbers = composition.tolist() if isinstance(composition, np.ndarray) else composition
        if len(numbers) == 0:
            raise FormulaError("a composition without atoms")
        return dict(Counter(numbers))
    counts: dict[int, int] = {}
    for element, count in composition.items():
        if isinstance(element, str) and element not in atomic_numbers:
            raise FormulaError(f"there is no element {element!r}")
        if count < 1 or count != int(count):
            raise FormulaError(f"{count} atoms of {element}: counts are whole and positive")
        number = atomic_numbers[element] if isinstance(element, str) else int(element)
        counts[number] = counts.get(number, 0) + int(count)
    if not counts:
        raise FormulaError("a composition without atoms")
    return counts


@cache
def _ions(rule: Rule) -> dict[int, _Ions]:
    columns = {"smact14": 1, "smact": 2}
    if rule not in columns:
        raise FormulaError(f"there is no rule {rule!r}; the rules are 'smact14' and 'smact'")
    rows = composition_tables()["oxidation"]
    return {atomic_numbers[symbol]: _Ions(row[0], tuple(row[columns[rule]])) for symbol, row in rows.items()}


@cache
def _metals() -> frozenset[int]:
    return frozenset(atomic_numbers[symbol] for symbol in composition_tables()["metals"])
