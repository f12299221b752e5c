"""`asegen reconstruct`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..roundtrip import Roundtrip, reconstruct


def run_reconstruct(file: Path, n: int | None, out: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    """Turn structures into descriptors and back, and print how many came back."""
    err = Console(stderr=True)
    columns = (TextColumn("reconstructing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None)
        found = reconstruct(file, n, out=out, progress=lambda done, total: bar.update(task, completed=done, total=total), **options)
    numbers = {name: value for name, value in vars(found).items() if name not in ("crystals", "protocol")}
    if as_json:
        print(json.dumps({**numbers, "protocol": found.protocol}, indent=1))
        return
    _print(found, Console())
    if out is not None:
        err.print(f"wrote {out / 'structures.extxyz'}", highlight=False)


def _print(found: Roundtrip, console: Console) -> None:
    rmse = "-" if found.rmse is None else f"{found.rmse:.4f}"
    for line in (
        f"{found.n} structures: {100 * found.match_rate:.1f} % match, rmse {rmse}, rms < 0.1: {100 * found.strict_01:.1f} %",
        f"descriptor reached: {100 * found.solved:.1f} % ({100 * found.from_prototypes:.1f} % by a prototype, without search), "
        f"{found.solved_but_wrong} of them another structure",
        f"{found.seconds_per_structure:.2f} s per structure ({found.seconds_each:.2f} s in its process), {found.failed} failed",
        found.protocol,
    ):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
