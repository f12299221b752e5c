"""Phonons as files: band structure and density of states as a picture and as numbers, and phonopy's own file."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from ..calculators.potentials import quiet
from ..checkpoint import replacing
from .phonons import Phonons

_STEP = 0.03  # 1/Å with 2π, between points of the path


@dataclass(frozen=True)
class Bands:
    """Frequencies along the path through the Brillouin zone, and their density."""

    q_points: np.ndarray = field(repr=False)
    """Fractional, shape (p, 3)."""
    distances: np.ndarray = field(repr=False)
    """Length of the path up to each point, 1/Å (with 2π), shape (p,)."""
    frequencies: np.ndarray = field(repr=False)
    """THz, imaginary negative, shape (p, modes)."""
    ends: list[int]
    """Indices at which a section ends; a new one begins at the next point."""
    ticks: list[tuple[float, str]]
    """Special points: length of the path and label."""
    grid: np.ndarray = field(repr=False)
    """Frequencies of the density, THz, shape (g,)."""
    density: np.ndarray = field(repr=False)
    """States per THz and primitive cell on the mesh, shape (g,)."""


def bands(phonons: Phonons) -> Bands:
    """Frequencies along seekpath's path and their density on the mesh.

    Parameters
    ----------
    phonons : Phonons

    References
    ----------
    Hinuma et al., Comput. Mater. Sci. 128, 140 (2017).
    """
    reciprocal = 2 * np.pi * np.linalg.inv(phonons.cell.primitive.cell.array).T
    points: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    ends: list[int] = []
    ticks: list[tuple[float, str]] = []
    far, last = 0.0, ""
    for first, second in phonons.cell.path:
        start, stop = phonons.cell.points[first], phonons.cell.points[second]
        length = float(np.linalg.norm((stop - start) @ reciprocal))
        steps = max(4, int(np.ceil(length / _STEP)))
        points.append(start + np.linspace(0, 1, steps + 1)[:, None] * (stop - start))
        distances.append(far + np.linspace(0, length, steps + 1))
        if last and last != first:
            ticks[-1] = (far, f"{last}|{first}")
        elif not last:
            ticks.append((far, first))
        far, last = far + length, second
        ticks.append((far, second))
        ends.append(sum(map(len, points)) - 1)
    q = np.concatenate(points)
    grid, density = _density(phonons)
    return Bands(q, np.concatenate(distances), phonons.frequencies(q), ends, ticks, grid, density)


def plot(phonons: Phonons, path: str | Path, found: Bands | None = None) -> None:
    """Write band structure and density of states side by side as PNG; imaginary frequencies are drawn as negative.

    Parameters
    ----------
    phonons : Phonons
    path : path
    found : Bands, optional
        If they are known already.
    """
    from matplotlib.figure import Figure

    found = found or bands(phonons)
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3.5, 1))
    colour, bad = "tab:blue", "tab:red"
    begin = 0
    for end in found.ends:
        x, y = found.distances[begin : end + 1], found.frequencies[begin : end + 1]
        left.plot(x, y, color=colour, linewidth=1)
        left.plot(x, np.where(y < -phonons.tolerance, y, np.nan), color=bad, linewidth=1.4)
        begin = end + 1
    for x_tick, _ in found.ticks:
        left.axvline(x_tick, color="0.8", linewidth=0.6, zorder=0)
    left.set_xticks([x for x, _ in found.ticks], [_pretty(label) for _, label in found.ticks])
    left.set_xlim(0, found.distances[-1])
    left.set_ylabel("frequency (THz), imaginary below 0")
    left.set_title(str(phonons), fontsize=9)
    right.plot(found.density, found.grid, color=colour, linewidth=1)
    right.fill_betweenx(found.grid, 0, found.density, where=found.grid < -phonons.tolerance, color=bad, alpha=0.5)
    right.set_xlim(left=0)
    right.set_xlabel("states (1/THz)")
    for axis in (left, right):
        axis.axhline(0, color="0.4", linewidth=0.8, zorder=0)
    with replacing(path) as stream:
        figure.savefig(stream, format="png", dpi=130)


def write_phonons(phonons: Phonons, folder: str | Path, record: dict[str, Any] | None = None) -> list[Path]:
    """Write all that phonons are to a folder.

    ``bands.png`` and ``bands.npz`` (the arrays of `Bands`), ``phonopy_params.yaml`` (displacements, forces, force constants: load it with
    ``phonopy.load``), ``primitive.extxyz`` (the cell that wave vectors refer to) and, last, ``phonons.json`` (all numbers).

    Parameters
    ----------
    phonons : Phonons
    folder : path
    record : dict, optional
        What ``phonons.json`` is to hold; default: ``phonons.numbers()``.

    Returns
    -------
    list of Path
        The files, each complete.
    """
    folder = Path(folder)
    files = [folder / name for name in ("bands.png", "bands.npz", "phonopy_params.yaml", "primitive.extxyz", "phonons.json")]
    found = bands(phonons)
    plot(phonons, files[0], found)
    with replacing(files[1]) as stream:
        labels = np.array([label for _, label in found.ticks])
        arrays = {k: v for k, v in vars(found).items() if k != "ticks"}
        np.savez_compressed(stream, **arrays, tick_positions=np.array([x for x, _ in found.ticks]), tick_labels=labels)
    with replacing(files[2]) as stream:
        settings = {"force_sets": True, "displacements": True, "force_constants": True}
        stream.write(_yaml(phonons, settings))
    with replacing(files[3]) as stream:
        text = io.StringIO()
        ase.io.write(text, phonons.cell.primitive, format="extxyz")
        stream.write(text.getvalue().encode())
    with replacing(files[4]) as stream:
        stream.write((json.dumps(phonons.numbers() if record is None else record, indent=1) + "\n").encode())
    return files


def _yaml(phonons: Phonons, settings: dict[str, bool]) -> bytes:
    return (str(phonons.phonopy.to_phonopy_yaml(settings=settings)) + "\n").encode()


def _density(phonons: Phonons) -> tuple[np.ndarray, np.ndarray]:
    """Density of states, blurred by a hundredth of the range of frequencies."""
    with quiet():
        mesh = phonons.phonopy.run_mesh(phonons.mesh, is_gamma_center=True)
    lowest, highest = float(mesh.frequencies.min()), float(mesh.frequencies.max())
    width = max(0.02, 0.01 * (highest - lowest))
    grid = np.arange(min(lowest, 0.0) - 4 * width, highest + 4 * width, width / 2)
    density = np.zeros_like(grid)
    for frequencies, weight in zip(mesh.frequencies, mesh.weights / mesh.weights.sum(), strict=True):
        density += weight * np.exp(-0.5 * ((grid[:, None] - frequencies) / width) ** 2).sum(1)
    return grid, density / (width * np.sqrt(2 * np.pi))


def _pretty(label: str) -> str:
    """``H_2`` as H with a small 2."""
    return "|".join(f"${name.replace('_', '_{')}}}$" if "_" in name else name for name in label.split("|"))
