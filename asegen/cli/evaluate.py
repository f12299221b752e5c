"""`asegen evaluate`."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..metrics.cache import Cache
from ..metrics.crystalset import crystal_set, reference_set, truth_of
from ..metrics.evaluation import Evaluation, evaluate
from ..metrics.plots import write_report

_MEANING = {
    "validity.structure": "no atoms too close, a volume",
    "validity.composition": "neutral in smact14 (CDVAE's rule)",
    "validity.composition_smact": "neutral in SMACT 4's default states",
    "validity.both": "valid in both, with fingerprints (CDVAE's valid)",
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
    "uniqueness.share_of_all": "the same of all, comparable or not",
    "novelty": "share that is not in the training set",
    "novelty.share_of_all": "the same of all, comparable or not",
    "space_groups.share_p1": "share without symmetry",
    "space_groups.distance": "Jensen-Shannon distance to the reference",
    "sun.sun": "stable, unique, novel",
    "sun.metastable_sun": "metastable, unique, novel",
    "match.rate": "match rate",
    "match.rms": "mean rms of the matched",
    "match.strict_02": "share with rms < 0.2",
    "match.strict_01": "share with rms < 0.1",
    "match.rate_valid": "match rate, answer must be valid (CDVAE)",
    "match.rms_valid": "mean rms of those (CDVAE)",
    "match.rate_both_valid": "match rate, both must be valid (DiffCSP)",
    "match.rms_both_valid": "mean rms of those (DiffCSP)",
    "match.metre": "METRe",
    "match.crmse": "cRMSE",
}


def run_evaluate(file: Path, reference: Path | None, train: Path | None, out: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    """Evaluate a file of crystals and print a table or JSON."""
    cutoffs = options.pop("cutoffs")
    options["cutoffs"] = None if cutoffs is None else _cutoffs(cutoffs)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise OSError(errno.EACCES, "cannot be written", str(out))
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
        given = crystal_set(file)
        true = truth_of(file) if reference is None else reference_set(reference)
        found = evaluate(given, true, None if train is None else crystal_set(train), cache=cache, progress=progress, **options)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1), flush=True)
    else:
        _print(found, Console())
    # printed first: a disk that is full must not cost the numbers
    for path in write_report(found, out) if out is not None else []:
        if not as_json:
            err.print(f"wrote {path}", highlight=False, soft_wrap=True)


def _cutoffs(text: str) -> tuple[float, float]:
    try:
        near, alike = (float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"--cutoffs {text!r} are not two numbers such as 0.4,10 (structure, composition)") from None
    return near, alike


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
    if found.settings["evaluations"] != "one":
        console.print(f"evaluations: {found.settings['evaluations']}", **plain)
    ignored = found.settings["ignored"]
    if ignored:
        more = f" and {len(ignored) - 3} more (--json)" if len(ignored) > 3 else ""
        console.print(f"ignored, for they hold no crystals: {'; '.join(ignored[:3])}{more}", style="yellow", **plain)
    for task, result in found.results.items():
        console.print(f"{task}: {result.protocol}", **plain)
        for name in ("late", "failed"):
            if getattr(result, name, 0):
                meaning = "comparisons stopped by the time limit" if name == "late" else "comparisons that failed"
                console.print(f"  {getattr(result, name)} {meaning}", style="yellow", **plain)
        if task in ("uniqueness", "novelty") and result.compared < result.n:
            console.print(f"  only {result.compared} of {result.n} compared", style="yellow", **plain)
    if "validity" in found.results:
        reasons = list(found.results["validity"].reasons.items())
        for reason, count in reasons[:8]:
            console.print(f"  {count} × {reason}", **plain)
        if len(reasons) > 8:
            console.print(f"  and {len(reasons) - 8} other reasons (--json)", **plain)
    for name, why in found.missing.items():
        console.print(f"not computed: {name} ({why})", style="yellow", **plain)
