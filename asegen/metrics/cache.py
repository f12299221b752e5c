"""Results that took long are kept on disk: by structure, so that a second evaluation or a killed one goes on at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from ase import Atoms

from ..errors import AsegenError


def cache_folder() -> Path:
    """Where results are kept: ``$ASEGEN_CACHE``, else ``$XDG_CACHE_HOME/asegen``, else ``~/.cache/asegen``."""
    if named := os.environ.get("ASEGEN_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asegen"


def structure_key(atoms: Atoms) -> bytes:
    """16 bytes that name a structure: elements, cell and positions to the last bit."""
    digest = blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(atoms.numbers, dtype="<i4").tobytes())
    digest.update(np.ascontiguousarray(atoms.cell.array, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(atoms.positions, dtype="<f8").tobytes())
    return digest.digest()


def pack(numbers: np.ndarray, reason: str) -> bytes:
    """Numbers, or the reason why there are none, as bytes."""
    return b"r" + reason.encode() if reason else b"n" + np.asarray(numbers, dtype="<f8").tobytes()


def unpack(value: bytes) -> tuple[np.ndarray | None, str]:
    """What `pack` was given: numbers and an empty text, or None and the reason."""
    return (None, value[1:].decode()) if value[:1] == b"r" else (np.frombuffer(value, "<f8", offset=1), "")


class Cache:
    """Values by kind and key in one SQLite file; several processes may use it at once.

    Parameters
    ----------
    folder : Path or str, optional
        Default: `cache_folder`. The file in it is named ``metrics.sqlite``.
    keep : bool
        False: keep nothing on disk, only in memory for this run.
    """

    def __init__(self, folder: str | Path | None = None, keep: bool = True):
        self.path = Path(folder) / "metrics.sqlite" if folder else cache_folder() / "metrics.sqlite"
        try:
            if keep:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(str(self.path) if keep else ":memory:", timeout=60.0)
            if keep:
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS results (kind TEXT, key BLOB, value BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise self._error(error) from error

    def get(self, kind: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Values of those keys that are there."""
        found: dict[bytes, bytes] = {}
        wanted = list(dict.fromkeys(keys))
        try:
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                found.update(self._database.execute(f"SELECT key, value FROM results WHERE kind = ? AND key IN ({marks})", [kind, *part]))
        except sqlite3.Error as error:
            raise self._error(error) from error
        return found

    def put(self, kind: str, values: Mapping[bytes, bytes]) -> None:
        """Store values; they are on disk when this returns."""
        rows: Iterable[tuple[str, bytes, bytes]] = ((kind, key, value) for key, value in values.items())
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _error(self, error: Exception) -> AsegenError:
        return AsegenError(
            f"the store of earlier results {self.path} cannot be used: {error}; delete it, name another folder (--cache or "
            "ASEGEN_CACHE), or go without (--no-cache)"
        )
