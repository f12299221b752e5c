"""The folder of an export: built beside its final place and moved there when complete."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import HandoffError

LISTING = "asegen-export.json"


@contextmanager
def building(out: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, and vanishes when it does not.

    With `overwrite`, what the new export names takes the place of what bears its name, and folders of an earlier export that
    the new one has not are removed; files that asegen did not write stay.

    Raises
    ------
    HandoffError
        `out` is a file, or holds something and `overwrite` is not set.
    """
    target = Path(out).absolute()
    if target.exists() and not target.is_dir():
        raise HandoffError(f"{out} is a file, not a folder to write calculations to")
    full = target.is_dir() and any(target.iterdir())
    if full and not overwrite:
        raise HandoffError(f"{out} is not empty; give another --out, or --overwrite")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        new = work / "new"
        new.mkdir()
        yield new
        if full:
            _replace(target, new, work / "old")
        else:
            os.replace(new, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace(target: Path, new: Path, old: Path) -> None:
    old.mkdir()
    entries = [path.name for path in new.iterdir()]
    for name in {*entries, *_written_before(target)}:
        if (target / name).exists():
            os.replace(target / name, old / name)
    # the listing last: without it the folder is no export
    for name in sorted(entries, key=lambda entry: entry == LISTING):
        os.replace(new / name, target / name)


def _written_before(target: Path) -> list[str]:
    try:
        found = json.loads((target / LISTING).read_text(encoding="utf-8"))["entries"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    # a name, never a path that leads elsewhere
    return [name for name in found if isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name]
