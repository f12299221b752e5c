"""The 230 space groups in the standard settings of International Tables, with their Wyckoff positions.

Standard: unique axis b (cell choice 1), hexagonal axes for R groups, origin choice 2 where there are two. (spglib's own default
is origin choice 1.) ``assets/wyckoff.json`` is made by ``data/make_wyckoff.py``.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np

from .errors import GroupError, SitesError
from .settings import LATTICE_POINTS, Setting, setting
from .wyckoff import WyckoffPosition

#: Last number of each crystal system.
CRYSTAL_SYSTEMS = {"triclinic": 2, "monoclinic": 15, "orthorhombic": 74, "tetragonal": 142, "trigonal": 167, "hexagonal": 194, "cubic": 230}

# symbols from before the letter e for double glide planes (1992)
_OLD_SYMBOLS = {"Abm2": 39, "Aba2": 41, "Cmca": 64, "Cmma": 67, "Ccca": 68}
_CHOICES = {"": "", "b1": "b", "b": "b", "2": "2", "H": "H"}


@dataclass(frozen=True, eq=False)
class Group:
    """A space group in its standard setting."""

    number: int
    """1 to 230."""
    symbol: str
    """Short Hermann–Mauguin symbol, such as ``Pm-3m`` or ``P2_1/c``."""
    hall_number: int
    """spglib's number of the standard setting, 1 to 530."""

    def __repr__(self) -> str:
        return f"Group({self.number}, {self.symbol})"

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return space_group, (self.number,)  # a copy of a group is the group

    @property
    def crystal_system(self) -> str:
        """triclinic, monoclinic, orthorhombic, tetragonal, trigonal, hexagonal or cubic."""
        return next(name for name, last in CRYSTAL_SYSTEMS.items() if self.number <= last)

    @property
    def lattice_system(self) -> str:
        """As the crystal system, but trigonal groups are rhombohedral (R) or hexagonal (P)."""
        system = self.crystal_system
        if system == "trigonal":
            return "rhombohedral" if self.centring == "R" else "hexagonal"
        return system

    @property
    def centring(self) -> str:
        """Letter of the lattice: P, A, C, I, F or R."""
        return self.symbol[0]

    @property
    def setting(self) -> Setting:
        """Operations of the standard setting."""
        return setting(self.hall_number)

    @property
    def rotations(self) -> np.ndarray:
        """Rotations in the conventional cell, without repeats by centring, shape (g, 3, 3), int (columns: ``f' = W f + w``)."""
        return self.setting.rotations

    @property
    def translations(self) -> np.ndarray:
        """Translations that belong to the rotations, shape (g, 3)."""
        return self.setting.translations

    @property
    def primitive(self) -> np.ndarray:
        """spglib's standard primitive cell: ``primitive_cell = primitive @ conventional_cell`` (rows), shape (3, 3)."""
        return self.setting.primitive

    @cached_property
    def positions(self) -> tuple[WyckoffPosition, ...]:
        """Wyckoff positions in the order a, b, c, …"""
        points = LATTICE_POINTS[self.centring]
        return tuple(
            WyckoffPosition(letter, multiplicity, multiplicity // points, symmetry, coordinates, self.setting)
            for letter, multiplicity, symmetry, coordinates in _entry(self.number)["positions"]
        )

    @cached_property
    def letters(self) -> str:
        """Letters of all positions."""
        return "".join(letter for letter, *_ in _entry(self.number)["positions"])

    def position(self, letter: str) -> WyckoffPosition:
        """The Wyckoff position of a letter (``"c"``) or label (``"4c"``).

        Raises
        ------
        SitesError
            The group has no such letter, or the letter another multiplicity.
        """
        match = re.fullmatch(r"\s*(\d*)([a-zA])\s*", str(letter))
        if match is None or match[2] not in self.letters:
            raise SitesError(f"{self.symbol} ({self.number}) has no Wyckoff position {str(letter)!r}; it has {describe_letters(self)}")
        found = self.positions[self.letters.index(match[2])]
        if match[1] and int(match[1]) != found.multiplicity:
            raise SitesError(
                f"position {match[2]} of {self.symbol} ({self.number}) is {found.label}, not {match[0].strip()}"
                " (multiplicities are those of the conventional cell)"
            )
        return found


def describe_letters(group: Group) -> str:
    """The labels of a group in a sentence: ``1a, 1b, 3c, …``."""
    return ", ".join(position.label for position in group.positions)


def space_group(name: int | str | Group) -> Group:
    """A space group by number or symbol.

    Parameters
    ----------
    name : int or str
        1 to 230, or a Hermann–Mauguin symbol in any common spelling: ``"Pm-3m"``, ``"P m -3 m"``, ``"P2_1/c"``, ``"P21/c"``,
        ``"P 1 21/c 1"``. A symbol of another choice of axes (``"Pbnm"``) names the same group; its standard setting
        (Pnma) is what is returned.

    Returns
    -------
    Group

    Raises
    ------
    GroupError
        No such number or symbol; the message suggests similar ones.

    Examples
    --------
    >>> space_group("Fm-3m")
    Group(225, Fm-3m)
    >>> space_group(62).position("4c").coordinates
    'x,1/4,z'
    """
    if isinstance(name, Group):
        return name
    if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
        return _by_number(int(name))
    if not isinstance(name, str) or not name.strip():
        raise GroupError(f"{name!r} is not a space group; give a number from 1 to 230 or a symbol such as 'Pm-3m'")
    if re.fullmatch(r"\s*-?\d+\s*", name):
        return _by_number(int(name))
    text, _, choice = name.partition(":")
    symbol = _plain(text)
    number = _standard_symbols().get(symbol) or _all_symbols().get(symbol)
    if number is None:
        shown = {key: _entry(n)["symbol"] for key, n in _standard_symbols().items()}
        close = [shown[key] for key in difflib.get_close_matches(symbol, shown, n=4, cutoff=0.5)]
        hint = f"did you mean {', '.join(dict.fromkeys(close))}?" if close else "symbols look like Pm-3m, P2_1/c or R-3m"
        raise GroupError(f"there is no space group {name!r}; {hint} (numbers from 1 to 230 work too)")
    group = _by_number(number)
    if choice and choice.strip() not in (group.setting.choice, _CHOICES.get(group.setting.choice)):
        has = f"setting {group.setting.choice!r}" if group.setting.choice else "one setting only"
        raise GroupError(f"{name!r}: {group.symbol} ({number}) is used in its standard setting ({has}); leave out {':' + choice!r}")
    return group


@cache
def _by_number(number: int) -> Group:
    if not 1 <= number <= 230:
        raise GroupError(f"there is no space group {number}; numbers run from 1 (P1) to 230 (Ia-3d)")
    entry = _entry(number)
    return Group(number, entry["symbol"], entry["hall"])


def _plain(symbol: str) -> str:
    """Spelling without what people leave out: spaces, underscores, case."""
    return re.sub(r"[\s_]+", "", symbol).lower()


@cache
def _table() -> dict[str, Any]:
    return json.loads((files("asegen") / "assets" / "wyckoff.json").read_text())


def _entry(number: int) -> dict[str, Any]:
    return _table()[str(number)]


@cache
def _standard_symbols() -> dict[str, int]:
    symbols = {_plain(_entry(number)["symbol"]): number for number in range(1, 231)}
    symbols.update({_plain(symbol): number for symbol, number in _OLD_SYMBOLS.items()})
    return symbols


@cache
def _all_symbols() -> dict[str, int]:
    """Symbols of all 530 settings, long and short."""
    import spglib

    symbols: dict[str, int] = {}
    for hall in range(1, 531):
        kind: Any = spglib.get_spacegroup_type(hall)
        for text in (kind.international_short, kind.international_full, *kind.international.split("=")):
            symbols.setdefault(_plain(text), int(kind.number))
    return symbols


@cache
def multiplicities(number: int) -> tuple[tuple[str, int, int], ...]:
    """Letter, multiplicity in the primitive cell and free parameters of each position, without loading spglib."""
    entry = _entry(number)
    points = LATTICE_POINTS[entry["symbol"][0]]
    return tuple((letter, m // points, len(set("xyz") & set(xyz))) for letter, m, _, xyz in entry["positions"])
