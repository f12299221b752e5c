"""The store of earlier results."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from ase.build import bulk

from asegen.errors import AsegenError
from asegen.metrics.cache import Cache, cache_folder, pack, structure_key, unpack


def test_what_is_put_is_found_again_by_another_process_s_eyes(tmp_path):
    first = Cache(tmp_path)
    first.put("kind", {bytes([i, i]): bytes([i]) for i in range(200)})
    again = Cache(tmp_path)
    assert again.get("kind", [b"\x07\x07", b"nothing"]) == {b"\x07\x07": b"\x07"}
    assert again.get("other kind", [b"\x07\x07"]) == {}
    assert len(again.get("kind", [bytes([i, i]) for i in range(250)])) == 200


def test_in_memory_leaves_no_file(tmp_path):
    cache = Cache(tmp_path, keep=False)
    cache.put("kind", {b"a": b"b"})
    assert cache.get("kind", [b"a"]) == {b"a": b"b"}
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "metrics.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(AsegenError, match="delete it"):
        Cache(tmp_path)


def test_folder_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ASEGEN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ASEGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "asegen"


def test_key_tells_structures_apart():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    moved, swapped, strained = atoms.copy(), atoms.copy(), atoms.copy()
    moved.positions[0, 0] += 1e-9
    swapped.numbers = swapped.numbers[::-1]
    strained.set_cell(atoms.cell.array * (1 + 1e-9))
    assert structure_key(atoms) == structure_key(atoms.copy())
    assert len({structure_key(a) for a in (atoms, moved, swapped, strained)}) == 4
    assert len(structure_key(atoms)) == 16
    assert np.frombuffer(structure_key(atoms), np.uint8).any()


def test_numbers_and_reasons_are_told_apart_whatever_their_bytes():
    for first in range(256):
        numbers = np.frombuffer(bytes([first]) + bytes(15), "<f8")
        found, reason = unpack(pack(numbers, ""))
        assert np.array_equal(found, numbers) and reason == ""
    assert unpack(pack(np.zeros(2), "größer")) == (None, "größer")


def test_a_store_that_cannot_be_made_is_a_warning(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "folder")
    cache.put("kind", {b"a": b"b"})
    assert cache.get("kind", [b"a"]) == {b"a": b"b"}
    assert capsys.readouterr().err.count("kept in memory") == 1


def test_a_store_that_may_only_be_read_is_read(tmp_path, monkeypatch, capsys):
    Cache(tmp_path).put("kind", {b"a": b"b"})

    def refuse(self):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(Cache, "_open_to_write", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    shared = Cache(tmp_path)
    shared.put("kind", {b"c": b"d"})
    assert shared.get("kind", [b"a", b"c"]) == {b"a": b"b", b"c": b"d"}
    assert capsys.readouterr().err == ""
    monkeypatch.undo()
    assert Cache(tmp_path).get("kind", [b"a", b"c"]) == {b"a": b"b"}


def test_a_store_that_another_process_holds_is_left_alone_with_one_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("asegen.metrics.cache._PATIENCE", 0.1)
    cache = Cache(tmp_path)
    cache.put("kind", {b"a": b"b"})
    with closing(sqlite3.connect(tmp_path / "metrics.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        cache.put("kind", {b"c": b"d"})
        cache.put("kind", {b"e": b"f"})
        late = Cache(tmp_path)  # cannot be opened for writing
        assert late.get("kind", [b"a"]) == {b"a": b"b"}
        other.execute("ROLLBACK")
    assert cache.get("kind", [b"a", b"c", b"e"]) == {b"a": b"b", b"c": b"d", b"e": b"f"}
    assert capsys.readouterr().err.count("database is locked") == 2  # one for each of the two


def test_where_shared_memory_is_refused_a_journal_does(tmp_path, monkeypatch):
    class Stubborn(sqlite3.Connection):
        def execute(self, sql, *arguments):
            if "WAL" in sql:
                raise sqlite3.OperationalError("locking protocol")
            return super().execute(sql, *arguments)

    connect = sqlite3.connect
    monkeypatch.setattr("sqlite3.connect", lambda *a, **k: connect(*a, **k, factory=Stubborn))
    Cache(tmp_path).put("kind", {b"a": b"b"})
    assert Cache(tmp_path).get("kind", [b"a"]) == {b"a": b"b"}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.sqlite"]
