"""What SQLite computes or plays back when a file is only opened: none of it is large."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from pathlib import Path

import pytest

from fuse.search.ledger import Ledger
from mmsa_cache.errors import ModelError
from mmsa_cache.files.sqlite_file import MOST_BYTES, check_sqlite
from tests.support.fake_search import run, start_thread

MAGIC = bytes.fromhex("d9d505f920a163d7")
LARGE = "hex(zeroblob(300000000))"
GROWING = [
    f"create table t (x, y as ({LARGE}))",
    f"create table t (x, y as ({LARGE}) stored)",
    f"create table t (x, check (length({LARGE}) > 0))",
    f"create table t (x default ({LARGE}))",
    'create table t (x, check (length("hex" /* " */ (x)) > 0))',
    "create table t (x, a as (x || x), b as (a || a))",
    "create table t (x, check (length(printf('%900000000d', x)) > 0))",
    "create table t (x); create index i on t (length(replace(x, 'a', x)))",
]


@pytest.mark.parametrize("statements", GROWING)
def test_a_schema_that_makes_long_values_is_refused(tmp_path: Path, statements: str) -> None:
    file = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(statements)
    before = file.read_bytes()
    with pytest.raises(ModelError, match=r"holds what mmsa did not write: (table 't'|index 'i')"):
        check_sqlite(file, write=True)
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["write-ahead log", "size"])
def test_a_journal_does_not_bring_what_is_refused(tmp_path: Path, kind: str) -> None:
    """It is played back by the next search, and may change the header and the size."""
    file = tmp_path / "s.db"
    run(file, tmp_path, 1, start=start_thread)
    data = file.read_bytes()
    (page,) = struct.unpack(">H", data[16:18])
    first, pages = bytearray(data[:page]), len(data) // page
    if kind == "size":
        pages = 2 * MOST_BYTES // page
    else:
        first[18:20] = b"\2\2"
    checksum = (7 + sum(first[place] for place in range(page - 200, 0, -200))) & 0xFFFFFFFF
    header = struct.pack(">8s5I", MAGIC, 1, 7, pages, 512, page).ljust(512, b"\0")
    record = struct.pack(">I", 1) + first + struct.pack(">I", checksum)
    (tmp_path / "s.db-journal").write_bytes(header + record)
    said = "write-ahead log" if kind != "size" else "larger than 512 MiB"
    with pytest.raises(ModelError, match=said):
        Ledger(file, "fake")
