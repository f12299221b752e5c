"""Curves of a training run from its CSV log."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..checkpoint import replacing


def merge_logs(folder: str | Path) -> Path:
    """One ``metrics.csv`` of all runs that trained in a folder; where they overlap the later run counts."""
    rows: dict[tuple[int, bool], dict[str, str]] = {}
    columns: dict[str, None] = {"step": None}
    for log in sorted(Path(folder).glob("log*/metrics.csv"), key=lambda p: int(p.parent.name.removeprefix("log") or 0)):
        with open(log, newline="") as stream:
            for row in csv.DictReader(stream):
                columns.update(dict.fromkeys(row))
                rows[int(row["step"]), bool(row.get("val_total"))] = row
    target = Path(folder) / "metrics.csv"
    with replacing(target) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        writer = csv.DictWriter(text, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
        text.flush()
        text.detach()
    return target


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
