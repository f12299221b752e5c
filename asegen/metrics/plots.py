"""Pictures of an evaluation: where people would rather look than read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import replacing
from .evaluation import Evaluation

_LABELS = {
    "density": "density (g/cm³)",
    "n_elements": "number of elements",
    "energy": "energy (eV/atom)",
    "volume_per_atom": "volume per atom (Å³)",
    "n_atoms": "atoms per cell",
}


def write_report(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Write ``metrics.json``, ``crystals.csv`` (a line for each crystal) and the pictures that the results allow.

    Returns
    -------
    list of Path
        The files, each complete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "metrics.json", folder / "crystals.csv"]
    with replacing(written[0]) as stream:
        stream.write((json.dumps(evaluation.to_dict(), indent=1) + "\n").encode())
    with replacing(written[1]) as stream:
        stream.write(_table(evaluation).encode())
    results = evaluation.results
    if "distributions" in results:
        written.append(_distributions(results["distributions"], folder / "distributions.png"))
    if "space_groups" in results and results["space_groups"].share_p1 is not None:
        written.append(_space_groups(results["space_groups"], folder / "space_groups.png"))
    if "sun" in results and np.isfinite(results["sun"].e_above_hull).any():
        written.append(_hull(results["sun"].e_above_hull, folder / "e_above_hull.png"))
    if "match" in results and np.isfinite(results["match"].row_rms).any():
        written.append(_rms(results["match"], folder / "rms.png"))
    return written


def _table(evaluation: Evaluation) -> str:
    """One line for each crystal with what is known of it; rows count from 0, as the arrays of the results do."""
    results = evaluation.results
    columns: dict[str, list[Any]] = {
        "row": list(range(len(evaluation.crystals))),
        "name": [row.name for row in evaluation.crystals],
        "formula": ["" if atoms is None else atoms.get_chemical_formula("metal") for atoms in evaluation.crystals.atoms],
        "error": [row.error for row in evaluation.crystals],
    }
    if "validity" in results:
        columns["valid_structure"] = results["validity"].structure_rows.astype(int).tolist()
        columns["valid_composition"] = results["validity"].composition_rows.astype(int).tolist()
        columns["has_fingerprint"] = results["validity"].fingerprint_rows.astype(int).tolist()
    if "space_groups" in results:
        columns["space_group"] = results["space_groups"].numbers.tolist()
    if "uniqueness" in results:
        columns["repeats"] = _names(results["uniqueness"].repeats, [row.name for row in evaluation.crystals])
        columns["repeats_row"] = _rows(results["uniqueness"].repeats)
    if "novelty" in results:
        columns["in_training"] = _names(results["novelty"].matches, list(results["novelty"].training_names))
        columns["in_training_row"] = _rows(results["novelty"].matches)
    if "sun" in results:
        columns["e_above_hull"] = [f"{e:.6g}" for e in results["sun"].e_above_hull]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _names(indices: np.ndarray, names: list[str]) -> list[str]:
    return [names[i] if i >= 0 else "" if i == -1 else "not compared" for i in indices.tolist()]


def _rows(indices: np.ndarray) -> list[Any]:
    """Names of crystals need not be unique, rows are."""
    return [i if i >= 0 else "" for i in indices.tolist()]


def _figure(columns: int, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _save(figure: Any, path: Path) -> Path:
    with replacing(path) as stream:
        figure.savefig(stream, format="png", dpi=110)
    return path


def _distributions(result: Any, path: Path) -> Path:
    shown = {name: pair for name, pair in result.values.items() if all(np.isfinite(x).any() for x in pair)}
    figure, axes = _figure(max(1, len(shown)))
    for axis, (name, pair) in zip(axes, shown.items(), strict=False):
        ours, theirs = (x[np.isfinite(x)] for x in pair)
        both = np.concatenate([ours, theirs])
        if name in ("n_elements", "n_atoms"):
            edges = np.arange(both.min(), both.max() + 2) - 0.5
        else:  # the outermost thousandths would squeeze everything else
            low, high = np.quantile(both, [0.001, 0.999])
            edges = np.linspace(low, high if high > low else low + 1.0, 41)
        axis.hist(theirs, edges, density=True, color="0.75", label="reference")
        axis.hist(ours, edges, density=True, histtype="step", color="C0", linewidth=1.6, label="generated")
        distance = getattr(result, name)
        axis.set_title("" if distance is None else f"distance {distance:.3g}", fontsize=9)
        axis.set_xlabel(_LABELS[name])
        axis.set_yticks([])
    if shown:
        axes[0].legend(fontsize=8)
    return _save(figure, path)


def _space_groups(result: Any, path: Path) -> Path:
    figure, (axis,) = _figure(1)
    figure.set_size_inches(9, 2.9)
    width = 0.9
    if result.reference_numbers is not None:
        shares = np.bincount(result.reference_numbers, minlength=231)[1:] / max(1, (result.reference_numbers > 0).sum())
        axis.bar(np.arange(1, 231), shares, width, color="0.75", label="reference")
    shares = np.bincount(result.numbers, minlength=231)[1:] / max(1, (result.numbers > 0).sum())
    axis.bar(np.arange(1, 231), shares, 0.45, color="C0", label="generated")
    for start in (1, 3, 16, 75, 143, 168, 195):  # where a crystal system begins
        axis.axvline(start - 0.5, color="0.85", linewidth=0.8, zorder=0)
    axis.set_xlim(0, 231)
    axis.set_xlabel("space group")
    axis.set_ylabel("share")
    axis.legend(fontsize=8)
    return _save(figure, path)


def _hull(energies: np.ndarray, path: Path) -> Path:
    figure, (axis,) = _figure(1)
    finite = energies[np.isfinite(energies)]
    low, high = np.quantile(finite, [0.0, 0.99])
    axis.hist(finite, np.linspace(min(low, 0.0), max(high, 0.1), 51), color="C0")
    for limit in (0.0, 0.1):
        axis.axvline(limit, color="0.4", linewidth=0.8, linestyle="--")
    axis.set_xlabel("energy above the hull (eV/atom)")
    axis.set_ylabel("crystals")
    return _save(figure, path)


def _rms(result: Any, path: Path) -> Path:
    figure, (axis,) = _figure(1)
    rms = np.sort(result.row_rms[np.isfinite(result.row_rms)])
    axis.step(rms, np.arange(1, len(rms) + 1) / result.n, where="post", color="C0")
    axis.set_xlim(0, 0.5)
    axis.set_ylim(0, 1)
    axis.set_xlabel("rms displacement / (V/N)$^{1/3}$")
    axis.set_ylabel("share of rows below")
    axis.set_title(f"match rate {100 * result.rate:.1f} %", fontsize=9)
    return _save(figure, path)
