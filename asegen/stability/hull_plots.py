"""Pictures of convex hulls: the line of a binary system, the triangle of a ternary one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import replacing
from ..errors import StabilityError
from .entries import Entry, fractions_of
from .hull import Hull, HullResult
from .scales import formation_energy

_MOST_LABELS = 25
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


def plot_hull(hull: Hull, results: Sequence[HullResult], path: str | Path, stable_below: float = 0.05) -> None:
    """PNG of a binary or ternary hull with the crystals that were judged.

    Parameters
    ----------
    hull : Hull
        Of the chemical system.
    results : sequence of HullResult
        Those of other systems and those without an energy are left out.
    path : path
        The file appears when it is complete.
    stable_below : float
        End of the blue part of the colours, eV/atom.

    Raises
    ------
    StabilityError
        The system does not have two or three elements.
    """
    from matplotlib.figure import Figure

    symbols = sorted(hull.elements)
    if len(symbols) not in (2, 3):
        raise StabilityError(f"a hull of {len(symbols)} elements ({'-'.join(symbols)}) cannot be drawn; those of two and three can")
    shown = [result for result in results if result.ok and set(fractions_of(result.formula)) <= set(symbols)]
    shown.sort(key=_above, reverse=True)  # of crystals at the same place the most stable is seen
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axes = figure.subplots()
    spread = max(2 * stable_below, 1e-3)
    colours = {"c": [_above(result) for result in shown], "cmap": "coolwarm", "vmin": 0.0, "vmax": spread}
    points = (_draw_binary if len(symbols) == 2 else _draw_ternary)(axes, hull, symbols, shown, colours)
    if points is not None:
        figure.colorbar(points, ax=axes, label="energy above the hull (eV/atom)", extend="both")
    axes.set_title(f"{'-'.join(symbols)}: {len(hull.entries)} competing phases, crystals: {len(shown)}; scale {hull.scale}", fontsize=10)
    with replacing(path) as stream:
        figure.savefig(stream, format="png", dpi=140)


def _draw_binary(axes: Any, hull: Hull, symbols: list[str], shown: list[HullResult], colours: dict[str, Any]) -> Any:
    second = symbols[1]
    stable = sorted(hull.stable, key=lambda entry: entry.fractions.get(second, 0.0))
    axes.plot([e.fractions.get(second, 0.0) for e in stable], [_formation(hull, e) for e in stable], "-o", color="0.2", ms=5, zorder=2)
    others = [entry for entry in hull.entries if entry not in stable and _formation(hull, entry) < 0.3]
    axes.scatter(
        [e.fractions.get(second, 0.0) for e in others], [_formation(hull, e) for e in others], marker="x", s=18, color="0.6", zorder=1
    )
    for entry in stable:
        _label(axes, (entry.fractions.get(second, 0.0), _formation(hull, entry)), entry.reduced_formula, "0.2", below=True)
    places = np.array([(fractions_of(result.formula).get(second, 0.0), result.formation_energy_per_atom) for result in shown])
    axes.set_xlabel(f"share of {second}")
    axes.set_ylabel("formation energy (eV/atom)")
    axes.axhline(0.0, color="0.8", lw=0.8, zorder=0)
    axes.set_xlim(-0.05, 1.05)
    return _candidates(axes, places, shown, colours)


def _draw_ternary(axes: Any, hull: Hull, symbols: list[str], shown: list[HullResult], colours: dict[str, Any]) -> Any:
    for first, second in hull.edges:
        ends = np.array([_corner(first.fractions, symbols), _corner(second.fractions, symbols)])
        axes.plot(*ends.T, color="0.55", lw=0.8, zorder=1)
    for entry in hull.stable:
        place = _corner(entry.fractions, symbols)
        axes.plot(*place, "o", color="0.2", ms=5, zorder=2)
        _label(axes, place, entry.reduced_formula, "0.2", below=True)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.margins(0.08)
    return _candidates(axes, np.array([_corner(fractions_of(result.formula), symbols) for result in shown]), shown, colours)


def _candidates(axes: Any, places: np.ndarray, shown: list[HullResult], colours: dict[str, Any]) -> Any:
    if not shown:
        return None
    points = axes.scatter(*places.T, marker="D", s=46, edgecolors="black", linewidths=0.7, zorder=3, **colours)
    names: dict[tuple[float, ...], list[str]] = {}
    for place, result in [*zip(places, shown, strict=True)][-_MOST_LABELS:]:
        names.setdefault(tuple(np.round(place, 3).tolist()), []).insert(0, result.name)
    for place, called in names.items():
        more = f" … {len(called) - 3} more" if len(called) > 3 else ""
        _label(axes, place, ", ".join(called[:3]) + more, "black", below=False)
    return points


def _label(axes: Any, place: Any, text: str, colour: str, below: bool) -> None:
    offset, side = ((0, -6), "top") if below else ((0, 7), "bottom")
    axes.annotate(text, place, textcoords="offset points", xytext=offset, ha="center", va=side, fontsize=7, color=colour, zorder=4)


def _corner(fractions: dict[str, float], symbols: list[str]) -> np.ndarray:
    place: np.ndarray = np.array([fractions.get(symbol, 0.0) for symbol in symbols]) @ _CORNERS
    return place


def _formation(hull: Hull, entry: Entry) -> float:
    return formation_energy(entry.fractions, entry.energy_per_atom, hull.elements)


def _above(result: HullResult) -> float:
    assert result.e_above_hull is not None
    return result.e_above_hull


__all__ = ["plot_hull"]
