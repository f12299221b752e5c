"""Public data sets from their public home, checked on arrival."""

from __future__ import annotations

import csv
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from ..errors import DataError

HOME = "https://raw.githubusercontent.com/txie-93/cdvae/main/data"

#: Folder at the home of CDVAE's data, and rows of train, val and test.
DATA_SETS = {
    "mp-20": ("mp_20", {"train": 27136, "val": 9047, "test": 9046}),
    "perov-5": ("perov_5", {"train": 11356, "val": 3787, "test": 3785}),
    "carbon-24": ("carbon_24", {"train": 6091, "val": 2032, "test": 2030}),
}


def download(name: str, out: str | Path, source: str | None = None, *, progress: bool = False) -> dict[Path, int]:
    """Download the CSV files of a data set.

    Parameters
    ----------
    name : str
        ``mp-20``, ``perov-5`` or ``carbon-24`` (CDVAE's splits; MIT, structures from the Materials Project CC BY 4.0, Castelli
        et al. 2012, and AIRSS data for carbon by Pickard).
    out : path
    source : str, optional
        Another home (URL) with the same layout.
    progress : bool
        Say what is being fetched.

    Returns
    -------
    dict
        File to number of rows.

    Raises
    ------
    DataError
        Unknown name, no connection, or a file that is not what it should be; such a file is not kept.
    """
    if name not in DATA_SETS:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(DATA_SETS)}")
    folder, splits = DATA_SETS[name]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, rows in splits.items():
        target = out / f"{split}.csv"
        url = f"{(source or HOME).rstrip('/')}/{folder}/{split}.csv"
        if not (target.is_file() and _count_rows(target) == rows):
            if progress:
                print(f"fetching {url}", flush=True)
            _fetch(url, target, rows)
        found[target] = rows
    return found


def _fetch(url: str, target: Path, rows: int) -> None:
    with tempfile.NamedTemporaryFile(prefix=f".{target.name}-", dir=target.parent, delete=False) as stream:
        unfinished = Path(stream.name)
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                shutil.copyfileobj(response, stream)
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            unfinished.unlink(missing_ok=True)
            raise DataError(f"cannot fetch {url}: {getattr(error, 'reason', error)}") from error
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    try:
        count = _count_rows(unfinished)
        if count != rows:
            raise DataError(f"{url} has {count} rows instead of {rows}; it was not kept")
        unfinished.chmod(0o644)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _count_rows(path: Path) -> int:
    csv.field_size_limit(2**31 - 1)
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if "cif" not in (reader.fieldnames or []):
                return -1
            return sum(1 for row in reader if row["cif"])
    except (OSError, UnicodeDecodeError, csv.Error):
        return -1
