"""Chemical formulas as people type them, read strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from .errors import FormulaError

_TOKEN = re.compile(r"([A-Z][a-z]?)(\d+\.\d*|\.\d+|-?\d+)?|([(\[])|([)\]])(\d+\.\d*|\.\d+|-?\d+)?")


def parse_formula(formula: str) -> dict[str, int]:
    """Elements and counts of a formula, in the order of their first appearance.

    Parameters
    ----------
    formula : str
        Such as ``"SrTiO3"``, ``"Ca3(PO4)2"``, ``"Li2 O"``. Counts are whole and positive.

    Returns
    -------
    dict of str to int

    Raises
    ------
    FormulaError
        Unknown element, fraction, zero or negative count, unbalanced bracket, anything else that is not a formula.
    """
    text = re.sub(r"\s+", "", formula) if isinstance(formula, str) else ""
    if not text:
        raise FormulaError(f"empty formula: {formula!r}; write one such as 'SrTiO3'")
    levels: list[dict[str, int]] = [{}]
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise FormulaError(f"{formula!r} is not a formula: cannot read {text[position:]!r} (symbols start with a capital)")
        symbol, count, opening, closing, group_count = match.groups()
        if opening:
            levels.append({})
        elif closing:
            if len(levels) == 1:
                raise FormulaError(f"{formula!r}: a bracket is closed that was never opened")
            inner, factor = levels.pop(), _count(group_count, formula, ")")
            for element, number in inner.items():
                levels[-1][element] = levels[-1].get(element, 0) + number * factor
        else:
            if symbol not in atomic_numbers or symbol == "X":
                raise FormulaError(f"{formula!r}: there is no element {symbol!r}")
            levels[-1][symbol] = levels[-1].get(symbol, 0) + _count(count, formula, symbol)
        position = match.end()
    if len(levels) > 1:
        raise FormulaError(f"{formula!r}: a bracket is never closed")
    if not levels[0]:
        raise FormulaError(f"{formula!r} holds no element")
    return levels[0]


def _count(text: str | None, formula: str, what: str) -> int:
    if text is None:
        return 1
    if "." in text:
        raise FormulaError(f"{formula!r}: {what}{text} is a fraction of an atom; multiply the formula until all counts are whole")
    number = int(text)
    if number <= 0:
        raise FormulaError(f"{formula!r}: {what}{text} is not a positive number of atoms")
    if number > 10_000:
        raise FormulaError(f"{formula!r}: {number} atoms of {what} are too many for one cell")
    return number


def numbers_of(formula: str | Mapping[str, int], units: int = 1) -> np.ndarray:
    """Atomic numbers of `units` formula units, in the order of the formula, shape (n,).

    Raises
    ------
    FormulaError
        As :func:`parse_formula`, or `units` is not a positive whole number.
    """
    if isinstance(units, bool) or not isinstance(units, (int, np.integer)) or units < 1:
        raise FormulaError(f"units = {units!r} is not a positive whole number of formula units")
    counts = parse_formula(formula) if isinstance(formula, str) else dict(formula)
    return np.concatenate([np.full(count * units, atomic_numbers[element]) for element, count in counts.items()])


def formula_of(numbers: np.ndarray) -> str:
    """Formula of atomic numbers as they stand, elements in the order of first appearance: ``Sr2Ti2O6``."""
    counts: dict[int, int] = {}
    for number in numbers:
        counts[int(number)] = counts.get(int(number), 0) + 1
    return "".join(chemical_symbols[z] + (str(c) if c > 1 else "") for z, c in counts.items())
