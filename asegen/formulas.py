"""Chemical formulas as people type them, read strictly: what may mean two things is refused, with what to write instead."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from ase.data import atomic_names, atomic_numbers, chemical_symbols

from .errors import FormulaError

_MOST_ATOMS = 10_000
_COMMON = {*chemical_symbols[1:84], "Th", "U"}  # what a mistyped formula is likely to hold
_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_NUMBER = r"([0-9]{0,9}[.,][0-9]{1,30}|-?[0-9]{1,9}(?:/[1-9][0-9]{0,8})?)"
# TI is Ti in capitals, not tritium and iodine
_TOKEN = re.compile(rf"((?!(?:T[BCHI]|DY)(?![a-z]))[A-Z][a-z]?){_NUMBER}?|([(\[{{])|([)\]}}]){_NUMBER}?|(·){_NUMBER}?")
# a dot before water, as in CuSO4.5H2O but not in Li0.5H2O or LiF·1.5H2O; dots of fractions for certain: Li0.5CoO2, SrTiO3.5, 1.5H2O
_WATER_DOT = re.compile(r"(?<![A-Za-z)\]}·]0)(?<!·[0-9])(?<!^[0-9])\.(?=([0-9]+)(?:[HD]2O|\([HD]2O\))(?:$|[·.]))")
_FRACTION = re.compile(r",[0-9]|(?<![0-9])0\.[0-9]|\.(?:0|[0-9]+(?:$|[)\]}·]))|(?:^|·)[0-9]+\.[0-9]")
_EMPTY = "there is no element in a bracket or beside a dot; write one there, such as in 'Ca(OH)2' or 'CuSO4·5H2O'"
_REFUSED = (
    (r"\^\{?[0-9]*[+-]+[0-9]*\}?|[0-9]{0,2}\+(?![xyzδ])|[0-9]{0,2}-[0-9]?$",
     "reads like a charge; crystals are neutral, so write the neutral formula of the whole, such as 'Na2SO4'"),
    (r"\^(?:\{[0-9]+\}|[0-9]+)(?=[A-Z])", "marks an isotope, and isotopes are not told apart; write the symbol without it, such as 'H2O'"),
    (r"\^.*", "is raised; write counts on the line, such as 'SiO2'"),
    (r"(?<=[A-Za-z])[(\[{](?:I{1,3}|IV|VI{0,3})[)\]}]", "reads like an oxidation number; write the formula without it, such as 'Fe2O3'"),
    # a number after a gap: CuSO4 5H2O, NaCl 2H2O, and NaCl 2 H2O but not Fe 2 O 3, where every number stands apart
    (r"(?<=[0-9])\s+[0-9].*|(?<=[A-Za-z)\]}])\s+[0-9]+[A-Z(\[{].*|\s\.[0-9].*"
     r"|^(?=.*[A-Za-z)\]}][0-9]).*?[A-Za-z)\]}]\s+([0-9]+\s+[A-Z(\[{].*)",
     "has a gap before a number, which then may mean two things; write 'CuSO4·5H2O' where it multiplies, 'Fe2O3' where it counts"),
)  # fmt: skip
# names of phases and states around a formula: alpha-SiO2, α-Al2O3, 2H-MoS2, rutile TiO2, TiO2-rutile, TiO2(s)
_LABEL = re.compile(
    r"^(?:[a-zα-ω]\w*'?-|[A-Z]?[a-z]{3,}[-\s]|[0-9]{1,2}[HTRC]-|[α-ω])\s*"
    r"|\s*(?:-[a-z]{2,}|-[α-γε-ω]|[-,\s]\s*[A-Z]?[a-z]{3,}|-[0-9]{1,2}[HTRC]|[(\[{][a-z]+[)\]}])$"
)


def parse_formula(formula: str) -> dict[str, int]:
    """Elements and counts of a formula, in the order of their first appearance.

    Parameters
    ----------
    formula : str
        Such as ``"SrTiO3"``, ``"Ca3(PO4)2"``, ``"K4[Fe(CN)6]"``, ``"Li2 O"``, ``"SiO₂"``, ``"SiO_{2}"``, ``"CuSO4·5H2O"``. Counts
        are whole and positive; a number after a dot counts what follows, up to the next dot. ``.`` is such a dot where no digit or
        1 to 24 water follow, ``"CuSO4.5H2O"``. D (deuterium) and T (tritium) are read as hydrogen: isotopes are not told apart.
        Capitals count: ``"SIO2"`` is sulfur, iodine and oxygen.

    Returns
    -------
    dict of str to int

    Raises
    ------
    FormulaError
        Unknown element, wrong capitals, fraction, zero or negative count, unbalanced bracket, charge, isotope, number in front,
        name or prefix (``"quartz"``, ``"alpha-SiO2"``), a dot or gap that may mean two things; the message says what to write.
    """
    plain = text = _plain(formula) if isinstance(formula, str) else ""
    if not plain:
        raise FormulaError(f"empty formula: {formula!r}; write one such as 'SrTiO3'")
    try:
        text = _settled(plain)
        _refuse_leading_number(text)
        counts = _read(text)
        if found := re.search(r"(?:[A-Z][a-z]?|[)\]}·])[0-9]*[.,/][0-9]+", text):
            scale = math.lcm(*(count.denominator for count in counts.values()))
            whole = f", such as {_show({e: count * scale for e, count in counts.items()})!r}" if scale <= 25 else ""
            raise FormulaError(f"{found[0]} is a fraction of an atom; multiply the formula until all counts are whole{whole}")
        if (most := max(counts.values())) > _MOST_ATOMS:
            raise FormulaError(f"{most} atoms of an element are too many for one cell; write at most {_MOST_ATOMS}")
    except FormulaError as error:
        reason, *rest = error.args
        raise FormulaError(f"{formula!r}: {_advice(plain, text, reason, *rest) if rest else reason}") from None
    return {element: int(count) for element, count in counts.items()}


def _plain(formula: str) -> str:
    """The text in plain letters and digits, gaps kept, signs for dots made ``·``, raised signs ``^{...}``."""
    text = "".join(c for c in formula if unicodedata.category(c) != "Cf")  # zero-width signs, soft hyphens
    text = re.sub(r"\\(?:cdot|bullet|times)(?![a-z])|[•∙⋅・･‧*＊∗×]", "·", text)
    text = re.sub(r"\$|\\(?:mathrm|text|ce|rm)(?![a-z])", "", text)
    text = re.sub(r"_\{([0-9.]+)\}|_([0-9]+)", lambda m: (m[1] or m[2]).translate(_LOWERED), text)
    # NFKC would make counts of raised signs, and one number of CuSO₄5H₂O or 1½; a dot beside lowered digits has one meaning
    text = re.sub(r"[⁰¹²³⁴-⁹⁺⁻]+", r"^{\g<0>}", text)
    text = re.sub(r"\.(?=[₀-₉])", ",", re.sub(r"(?<=[₀-₉])\.(?=\d)", "·", text))
    text = re.sub(r"(?<=[₀-₉])(?=[\d¼-¾⅐-⅞])|(?<=\d)(?=[₀-₉¼-¾⅐-⅞])", " ", text)
    return re.sub("[‐‑‒–—−]", "-", unicodedata.normalize("NFKC", text)).replace("⁄", "/").strip()


def _settled(plain: str) -> str:
    """The text without gaps, every dot between formulas made ``·``; signs and dots that may not stand are refused."""
    for pattern, reason in _REFUSED:
        if found := re.search(pattern, plain):
            raise FormulaError(f"{found[found.lastindex or 0].strip()!r} {reason}")
    text = re.sub(r"\s", "", re.sub(r"\.\s+", "·", plain))
    text = re.sub(r"\.(?![0-9])|\.(?=[0-9]+\.[0-9])", "·", text)
    fraction = _FRACTION.search(text)
    if not fraction:
        text = _WATER_DOT.sub(lambda m: "·" if int(m[1][:9]) <= 24 else ".", text)
    if "." in text and (not fraction or _WATER_DOT.search(text)):
        instead = _WATER_DOT.sub("·", text) if fraction else text.replace(".", "·")
        raise FormulaError(f"a dot here may divide formulas or mark a fraction; write {instead!r}, or whole counts for a fraction")
    return text


def _refuse_leading_number(text: str) -> None:
    match = re.match(r"([1-9][0-9]{0,3})·?(.+)", text)
    if match is None or not _reads(match[2]):
        return
    number, rest = int(match[1]), match[2]
    first, dot, others = rest.partition("·")
    if dot:
        raise FormulaError(f"the {number} in front may count {first!r} or all; write '({first}){number}·{others}' or '({rest}){number}'")
    times = _show({element: count * number for element, count in _read(rest).items()})
    z = atomic_numbers.get(rest[:2], atomic_numbers.get(rest[0], 0))
    if z <= number <= 3 * z:  # as mass numbers are
        raise FormulaError(f"isotopes are not told apart; write {rest!r}, or {times!r} where {number} formula units are meant")
    raise FormulaError(f"no number stands in front of a formula; write {times!r}, or {rest!r} with units={number}")


def _read(text: str) -> dict[str, Fraction]:
    """Counts of a settled text, fractions included."""
    levels: list[tuple[str, Fraction, dict[str, Fraction]]] = [("", Fraction(1), defaultdict(Fraction))]  # opened by, times, counts

    def close(times: Fraction) -> None:
        _, own, inner = levels.pop()
        if not inner:
            raise FormulaError(_EMPTY)
        for element, count in inner.items():
            levels[-1][2][element] += count * own * times

    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise FormulaError(f"cannot read {text[position:]!r}", text[position:])
        symbol, count, opening, closing, times, dot, factor = match.groups()
        if (closing or dot) and levels[-1][0] == "·":
            close(Fraction(1))
        if symbol:
            element = "H" if symbol in ("D", "T") else symbol
            if element not in atomic_numbers or element == "X":
                raise FormulaError(f"there is no element {symbol!r}", text[position:])
            levels[-1][2][element] += _number(count, symbol)
        elif closing:
            if levels[-1][0] + closing not in ("()", "[]", "{}"):
                raise FormulaError(f"{closing!r} closes a bracket that was never opened; write brackets in pairs, such as in 'Ca(OH)2'")
            close(_number(times, closing))
        elif dot and not levels[-1][2]:
            raise FormulaError(_EMPTY)
        else:
            levels.append((opening or dot, _number(factor, "·"), defaultdict(Fraction)))
        position = match.end()
    if levels[-1][0] == "·":
        close(Fraction(1))
    if len(levels) > 1:
        raise FormulaError("a bracket is never closed; write brackets in pairs, such as in 'Ca(OH)2'")
    return levels[0][2]


def _reads(text: str) -> bool:
    try:
        return bool(_read(text)) and not re.search("[.,/]", text)
    except FormulaError:
        return False


def _number(text: str | None, what: str) -> Fraction:
    number = Fraction("1" if text is None else text.replace(",", "."))
    if number <= 0:
        raise FormulaError(f"{what}{text} is not a positive number of atoms", text)
    return number


def _show(counts: Mapping[str, Fraction] | Mapping[str, int]) -> str:
    return "".join(element + (str(count) if count != 1 else "") for element, count in counts.items())


def _advice(plain: str, text: str, reason: str, rest: str) -> str:
    """A sentence that says what to write instead of a text that cannot be read from `rest` on."""
    bare = re.sub(r"\s", "", _LABEL.sub("", plain))
    if bare != text and _reads(bare):
        return f"names of phases and states are not read; write the bare formula {bare!r}"
    # x, y, n in place of a number; a y elsewhere may be a Y in lower case
    if re.compile(r"[+-]?[xzδ](?![a-z])|(?:[+-]|(?<=[)\]}·]))[yn](?![a-z])|,").match(text, len(text) - len(rest)):
        return f"{rest.lstrip('+-')[0]!r} leaves a count open; write a whole number for every element, such as 'Ca3(PO4)2'"
    spelled = _respelled(text)
    if re.fullmatch("[A-Z]{3,}|[A-Z]?[a-z]{2,}|[A-Za-z]*[a-z]{3}[A-Za-z]*", text):
        long = "".join(f", or {option!r} for its symbols" for option in spelled[:1] if len(re.findall("[A-Z]", option)) == 3)
        spelled = [option for option in spelled if len(re.findall("[A-Z]", option)) <= 2]
        spelled[:0] = [s for s, name in zip(chemical_symbols, atomic_names, strict=True) if name.lower() == text.lower()]
        if not spelled:
            return f"names are not read; write a formula with capitals, such as 'SiO2' for quartz{long}"
    if 0 < len(spelled) <= 3:
        return f"{reason}; did you mean {' or '.join(map(repr, spelled))}?"
    unknown = "" if rest[0].isascii() else f" ({unicodedata.name(rest[0], 'a sign without a name')})"
    return f"{reason}{unknown}; write element symbols and whole numbers after them, such as 'Ca3(PO4)2' or 'CuSO4·5H2O'"


def _respelled(text: str) -> list[str]:
    """Formulas of common elements that differ from a text in capitals only, those of the fewest symbols first."""
    ways: list[list[str]] = [[""], *([] for _ in text)]
    for i, sign in enumerate(text if len(text) <= 20 else ""):
        for piece in {sign, text[i : i + 2]}:
            if piece.capitalize() in _COMMON or (piece == sign and not sign.isalpha()):
                ways[i + len(piece)] += [way + piece.capitalize() for way in ways[i]]
    return sorted(filter(_reads, ways[-1]), key=lambda way: (len(re.findall("[A-Z]", way)), way))


def reduced(counts: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Counts of one formula unit, in the order given, and the number of formula units: Ti2O4 is 2 TiO2.

    Raises
    ------
    FormulaError
        No counts, or one that is not whole and positive.
    """
    if not counts or any(count < 1 or count != int(count) for count in counts.values()):
        raise FormulaError(f"{dict(counts)} is no composition; write whole and positive counts, such as {{'Ti': 2, 'O': 4}}")
    units = math.gcd(*map(int, counts.values()))
    return {element: int(count) // units for element, count in counts.items()}, units


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
    return _show(Counter(chemical_symbols[int(number)] for number in numbers))
