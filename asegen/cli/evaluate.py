"""`asegen evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..metrics.cache import Cache
from ..metrics.evaluation import Evaluation, evaluate, read, truth_of
from ..metrics.plots import write_report

_MEANING = {
    "validity.structure": "no atoms too close, a volume",
    "validity.composition": "neutral in smact14 (CDVAE's rule)",
    "validity.composition_smact": "neutral in SMACT 4's default states",
    "validity.both": "valid in structure and composition",
    "coverage.recall": "COV-R",
    "coverage.precision": "COV-P",
    "distributions.density": "earth mover's distance, g/cm³",
    "distributions.n_elements": "earth mover's distance",
    "distributions.energy": "earth mover's distance, eV/atom",
    "diversity.structure": "mean distance of CrystalNN fingerprints",
    "diversity.composition": "mean distance of Magpie fingerprints",
    "frechet.crystalnn": "squared Fréchet distance, CrystalNN",
    "frechet.learned": "squared Fréchet distance, network",
    "uniqueness": "share that repeats no earlier one",
    "novelty": "share that is not in the training set",
    "space_groups.share_p1": "share without symmetry",
    "space_groups.distance": "Jensen-Shannon distance to the reference",
    "sun.sun": "stable, unique, novel",
    "sun.metastable_sun": "metastable, unique, novel",
    "match.rate": "match rate",
    "match.rms": "mean rms of the matched",
    "match.strict_02": "share with rms < 0.2",
    "match.strict_01": "share with rms < 0.1",
    "match.rate_valid": "match rate, answer must be valid (CDVAE)",
    "match.rate_both_valid": "match rate, both must be valid (DiffCSP)",
    "match.metre": "METRe",
    "match.crmse": "cRMSE",
}


def run_evaluate(file: Path, reference: Path | None, train: Path | None, out: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    """Evaluate a file of crystals and print a table or JSON."""
    cache = Cache(options.pop("cache"), keep=options.pop("keep"))
    err = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        shown: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            for name, task in shown.items():
                if name != what:
                    bar.update(task, visible=False)
            if what not in shown:
                shown[what] = bar.add_task(what, total=total or None)
            bar.update(shown[what], completed=done, total=total or None, visible=True)

        progress("reading", 0, 0)
        sets = [None if path is None else read(path) for path in (file, reference, train)]
        assert sets[0] is not None
        if reference is None:
            sets[1] = truth_of(file)
        found = evaluate(sets[0], sets[1], sets[2], cache=cache, progress=progress, **options)
    written = write_report(found, out) if out is not None else []
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
        return
    _print(found, Console())
    for path in written:
        err.print(f"wrote {path}", highlight=False)


def _print(found: Evaluation, console: Console) -> None:
    unreadable = f", {found.unreadable} of them no crystals" if found.unreadable else ""
    table = Table(title=f"{found.settings['crystals']}: {found.n} crystals{unreadable}", title_justify="left")
    for heading, side in (("metric", "left"), ("value", "right"), ("", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for name, value in found.numbers().items():
        if name in _MEANING:
            table.add_row(name, "-" if value is None else f"{value:.4f}", _MEANING[name])
    console.print(table)
    plain: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}
    for task, result in found.results.items():
        console.print(f"{task}: {result.protocol}", **plain)
        for name in ("late", "failed"):
            if getattr(result, name, 0):
                meaning = "comparisons stopped by the time limit" if name == "late" else "comparisons that failed"
                console.print(f"  {getattr(result, name)} {meaning}", style="yellow", **plain)
    if "validity" in found.results:
        reasons = list(found.results["validity"].reasons.items())
        for reason, count in reasons[:8]:
            console.print(f"  {count} × {reason}", **plain)
        if len(reasons) > 8:
            console.print(f"  and {len(reasons) - 8} other reasons (--json)", **plain)
    for name, why in found.missing.items():
        console.print(f"not computed: {name} ({why})", style="yellow", **plain)
