"""Results that took long are kept on disk: by structure, so that a second evaluation or a killed one goes on at once."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np
from ase import Atoms

from ..errors import AsegenError

_PATIENCE = 30.0  # seconds to wait for another process that writes


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

    A file that may only be read, such as one that is shared, is read and not written. Where it cannot be used at all, or
    no longer (a full disk, another process that holds it), one sentence on stderr says so, and what is computed from then
    on is kept in memory: no evaluation fails for its cache.

    Parameters
    ----------
    folder : Path or str, optional
        Default: `cache_folder`. The file in it is named ``metrics.sqlite``.
    keep : bool
        False: keep nothing on disk, only in memory for this run.

    Raises
    ------
    AsegenError
        The file is damaged, or no such file at all.
    """

    def __init__(self, folder: str | Path | None = None, keep: bool = True):
        self.path = Path(folder) / "metrics.sqlite" if folder else cache_folder() / "metrics.sqlite"
        self._memory: dict[str, dict[bytes, bytes]] = {}
        self._database: sqlite3.Connection | None = None
        self._writes = self._warned = False
        if not keep:
            return
        try:
            self._database, self._writes = self._open_to_write(), True
        except (sqlite3.Error, OSError) as error:
            self._refuse_damaged(error)
            self._database = self._open_to_read()
            if self._database is None or os.access(self.path, os.W_OK):  # a file that is not ours to write needs no word
                self._warn(error)

    def get(self, kind: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Values of those keys that are there."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, bytes] = {}
        try:
            for start in range(0, len(wanted) if self._database else 0, 500):
                assert self._database is not None
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                found.update(self._database.execute(f"SELECT key, value FROM results WHERE kind = ? AND key IN ({marks})", [kind, *part]))
        except sqlite3.Error as error:
            self._refuse_damaged(error)
            self._database = None
            self._warn(error)
        memory = self._memory.get(kind, {})
        return found | {key: memory[key] for key in wanted if key in memory}

    def put(self, kind: str, values: Mapping[bytes, bytes]) -> None:
        """Store values; they are on disk when this returns, if the file can be written."""
        if self._database is not None and self._writes:
            try:
                with self._database:
                    rows = ((kind, key, value) for key, value in values.items())
                    self._database.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)
                return
            except sqlite3.Error as error:
                self._refuse_damaged(error)
                self._writes = False
                self._warn(error)
        self._memory.setdefault(kind, {}).update(values)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()

    def _open_to_write(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(str(self.path), timeout=_PATIENCE)
        try:
            try:
                database.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:  # some network disks have no shared memory
                database.execute("PRAGMA journal_mode=DELETE")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute("CREATE TABLE IF NOT EXISTS results (kind TEXT, key BLOB, value BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID")
            # a file that may only be read is noticed here, not after an hour of computing
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _open_to_read(self) -> sqlite3.Connection | None:
        # beside a file in a folder that cannot be written there may be no room for what readers share: `immutable` needs none
        for how in ("mode=ro", "immutable=1"):
            with suppress(sqlite3.Error, OSError):
                database = sqlite3.connect(f"{self.path.resolve().as_uri()}?{how}", uri=True, timeout=_PATIENCE)
                database.execute("SELECT kind, key, value FROM results LIMIT 1").fetchall()
                return database
        return None

    def _warn(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        print(f"asegen: results cannot be kept in {self.path} ({error}); they are kept in memory, for this run only", file=sys.stderr)

    def _refuse_damaged(self, error: Exception) -> None:
        # SQLite's other troubles (locked, full, read-only, cannot be opened) are subclasses of this one
        if type(error) is sqlite3.DatabaseError:
            raise AsegenError(
                f"the store of earlier results {self.path} is damaged ({error}); delete it, name another folder (--cache or "
                "ASEGEN_CACHE), or go without (--no-cache)"
            ) from error
