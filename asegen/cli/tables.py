"""Tables and progress bars of the commands that judge crystals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

_MOST = 200


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on the error stream; gives a function of (done, all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_rows(rows: Sequence[dict[str, Any]], columns: dict[str, tuple[str, str]], title: str) -> None:
    """A table of rows, and a sentence for each without a result.

    Parameters
    ----------
    rows : sequence of dict
        With ``position``, ``name``, perhaps ``formula`` and ``reason``.
    columns : dict
        Heading to (key, format).
    title : str
    """
    console = Console()
    table = Table(title=title, title_justify="left")
    table.add_column("#", justify="right", min_width=2)
    table.add_column("formula", min_width=7)
    for heading in columns:
        table.add_column(heading, justify="right")
    for row in rows[:_MOST]:
        cells = ["-" if row.get(key) is None else _cell(row[key], style) for key, style in columns.values()]
        table.add_row(str(row["position"]), row.get("formula", "-"), *cells, style="red" if row.get("reason") else None)
    console.print(table)
    if len(rows) > _MOST:
        console.print(f"… and {len(rows) - _MOST} more")
    for row in [row for row in rows if row.get("reason")][:20]:
        console.print(f"{row['position']} ({row['name']}): {row['reason']}", highlight=False, soft_wrap=True, markup=False)


def _cell(value: Any, style: str) -> str:
    """A value as text; what rounds to zero has no minus."""
    text = format(value, style)
    return text.replace("-", "+" if style.startswith("+") else "") if isinstance(value, float) and not text.strip("+-0.%") else text


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage of a run; gives a function of (stage, done, all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield tell
