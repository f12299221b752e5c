"""From files to training arrays: read, check, standardise, on all cores, with every bad row named."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .arrays import write_arrays
from .readers import Row, read_rows
from .standardize import standard_primitive


def convert(
    sources: list[str | Path],
    folder: str | Path,
    *,
    max_atoms: int = 0,
    standardize: bool = True,
    processes: int | None = None,
    progress: Callable[[int], None] | None = None,
    keep: Callable[[Row], bool] | None = None,
) -> dict[str, Any]:
    """Read crystals, bring them into standard primitive cells, and write training arrays.

    Parameters
    ----------
    sources : list of paths
        Files or folders that :func:`asegen.datasets.read_rows` reads.
    folder : path
        Where the arrays go; must not exist.
    max_atoms : int
        Crystals with more atoms are left out (0: no limit).
    standardize : bool
        Bring every crystal into its standard primitive cell.
    processes : int, optional
        Default: one per core.
    progress : callable, optional
        Called with the number of rows done so far.
    keep : callable, optional
        Rows for which it returns False are left out.

    Returns
    -------
    dict
        As :func:`asegen.datasets.write_arrays`.
    """

    def wanted() -> Iterator[Row]:
        for source in sources:
            for row in read_rows(source):
                if keep is None or keep(row):
                    yield row

    def counted(rows: Iterator[Row]) -> Iterator[Row]:
        for number, row in enumerate(rows, start=1):
            if progress is not None and number % 100 == 0:
                progress(number)
            yield row

    source = ", ".join(Path(s).name for s in sources)
    if not standardize:
        return write_arrays(counted(wanted()), folder, max_atoms=max_atoms, source=source)
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "fork")
    with context.Pool(processes or os.cpu_count() or 1) as pool:
        rows = pool.imap(standardized, wanted(), chunksize=64)
        return write_arrays(counted(iter(rows)), folder, max_atoms=max_atoms, source=source)


def standardized(row: Row) -> Row:
    """The row in its standard primitive cell."""
    if row.error:
        return row
    cell, frac, numbers = standard_primitive(row.cell, row.frac, row.numbers)
    return replace(row, cell=cell, frac=frac, numbers=numbers)
