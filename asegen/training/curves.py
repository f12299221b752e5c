"""Curves of a training run from its CSV log."""

from __future__ import annotations

import csv
from pathlib import Path


def plot_curves(log: str | Path, picture: str | Path, title: str = "") -> None:
    """Training and validation losses against steps, one panel per variable, as PNG."""
    from matplotlib.figure import Figure

    with open(log, newline="") as stream:
        rows = list(csv.DictReader(stream))
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axis, part in zip(figure.subplots(1, 3), ("position", "lattice", "elements"), strict=True):
        for kind, style in (("train", {"lw": 0.6, "alpha": 0.5}), ("val", {"marker": "o", "ms": 3})):
            points = [(int(r["step"]), float(r[f"{kind}_{part}"])) for r in rows if r.get(f"{kind}_{part}")]
            if points:
                axis.plot(*zip(*points, strict=True), label="training" if kind == "train" else "validation", **style)  # type: ignore[arg-type]
        axis.set_title(f"{title} {part}".strip())
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.savefig(picture, dpi=110)
