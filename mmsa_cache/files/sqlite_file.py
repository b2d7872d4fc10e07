"""Checks untrusted SQLite files before a library opens them.

Opening a file, SQLite plays back a journal beside it and deletes a further file that the journal
may name; it writes to files beside it, also through links; it runs views, triggers and virtual
tables. Files that mmsa has written contain none of that.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mmsa_cache.errors import ModelError

from .paths import check_target
from .table_owners import check_owner
from .untrusted import open_regular

Schema = frozenset[tuple[str, str, str, str | None]]
"""Kind, name, table and statement of each table and index; automatic indexes have no statement."""
MOST_ROWS = 1_000_000
"""Most rows of all tables together, if the schema is known."""
MOST_BYTES = 1 << 29
"""Most bytes of a file."""
LONGEST = 1 << 20
"""Most characters of one value, if the schema is known."""
SECONDS = 90.0
"""Most seconds for a file that is locked or takes long to read."""
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")
"""Last bytes of a journal that names a further file, see sqlite.org/fileformat2.html, section 3."""
_STEPS = 10_000
"""Instructions of SQLite between two checks of the time."""
_MOST_NAMES = 1000
_REFUSES = re.compile(
    r"CREATE TRIGGER \w+ BEFORE \w+ ON \w+ FOR EACH ROW WHEN [^()]+ "
    r"BEGIN SELECT RAISE\(ABORT, '[^']*'\); END",
)
"""A trigger as MLflow has it: it calls no function and reads no other row."""
_GROWS = re.compile(
    r"\|\||/\*|--|\b(zeroblob|randomblob|hex|quote|replace|printf|format|json_\w+|concat\w*)\W*\(",
    re.IGNORECASE,
)
"""Functions that make long values of short ones, in checks, defaults or generated columns."""
_ANEW = "Restore it, or begin anew in another file (--storage sqlite:///FILE)."
"""``--storage`` is an option of searches; other databases begin anew when they are moved away."""


def sqlite_uri(file: Path) -> str:
    """The URI of a file for SQLite."""
    return f"file:{quote(str(file.absolute()))}"


def check_sqlite(file: Path, known: Schema | None = None, *, write: bool) -> dict[str, int]:
    """Checks a SQLite file before it is opened.

    Args:
        file: The file; it need not exist.
        known: The whole schema that it may have (Optuna's); None: it is MLflow's, with any tables
            and indexes, and triggers that only refuse changes.
        write: Whether it will be written to; only then an unfinished write is rolled back.

    Returns:
        Number of rows by table, if the schema is known.

    Raises:
        LinkError: It, or a file that SQLite keeps beside it, is a link.
        ModelError: It is another program's, damaged, or too large.
    """
    _check_files(file)
    if not file.exists() or file.stat().st_size == 0:
        return {}
    _check_header(file)
    deadline = time.monotonic() + SECONDS
    mode = "ro"
    while True:
        try:
            rows = _read_counts(file, mode, known, deadline)
            _check_header(file)  # again: playing back a journal may change it
            return rows
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's message may not be UTF-8
            name = getattr(error, "sqlite_errorname", "")
            if name == "SQLITE_INTERRUPT" and time.monotonic() < deadline:
                raise KeyboardInterrupt from None  # Ctrl-C during a query
            if name == "SQLITE_READONLY_ROLLBACK" and write:
                mode = "rw"
            elif name != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise _explain(file, name, error) from error


def _check_files(file: Path) -> None:
    """Checks the files beside a database, and whether its journal names another file."""
    check_target(file)
    for end in ("-wal", "-shm"):
        beside = file.with_name(file.name + end)
        check_target(beside)
        if beside.exists():
            raise ModelError(
                f"{beside} is not of mmsa, which keeps no such file beside a database.",
                "Close the program that wrote it, with which it may go away; else remove it, or "
                "name another database (--storage sqlite:///FILE).",
            )
    journal = file.with_name(f"{file.name}-journal")
    check_target(journal)
    # Another process may remove its journal at any time.
    with contextlib.suppress(FileNotFoundError), open_regular(journal, links=False) as content:
        size = os.fstat(content.fileno()).st_size
        content.seek(max(0, size - len(_NAMES_ANOTHER)))
        if content.read() == _NAMES_ANOTHER:
            raise ModelError(
                f"{journal} is not of mmsa: it names another file, which SQLite would delete.",
                f"Remove {journal.name}, or name another database (--storage sqlite:///FILE).",
            )


def _check_header(file: Path) -> None:
    """Refuses files that are too large or have a write-ahead log, which even readers write to.

    Closing the file drops all locks of this process on it: none of its connections may be in a
    transaction.
    """
    with open_regular(file, links=False) as content:
        size = os.fstat(content.fileno()).st_size
        writer, reader = (content.read(20)[18:] + b"\0\0")[:2]
    if size > MOST_BYTES:
        raise ModelError(f"{file} is larger than {MOST_BYTES >> 20} MiB.", _ANEW)
    if 2 in (writer, reader):
        raise ModelError(f"{file} is another program's: it has a write-ahead log.", _ANEW)


def _read_counts(file: Path, mode: str, known: Schema | None, deadline: float) -> dict[str, int]:
    opened = sqlite3.connect(f"{sqlite_uri(file)}?mode={mode}", timeout=1.0, uri=True)
    with contextlib.closing(opened) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        for pragma in ("trusted_schema = off", "cell_size_check = on"):
            connection.execute(f"pragma {pragma}")
        schema = connection.execute("select type, name, tbl_name, sql from sqlite_master")
        rows = schema.fetchmany(_MOST_NAMES + 1)
        _check_schema(file, rows, known)
        (found,) = connection.execute("pragma quick_check(1)").fetchone()
        if found != "ok":
            raise ModelError(f"{file} is no database, or a damaged one: {found}", _ANEW)
        tables = [row[1] for row in rows if row[0] == "table"] if known else []
        counts = dict(_counts(connection, file, tables))
        if sum(counts.values()) > MOST_ROWS:
            raise ModelError(f"{file} has more than {MOST_ROWS} rows.", _ANEW)
        return counts


def _check_schema(file: Path, rows: list[Any], known: Schema | None) -> None:
    """Refuses unknown tables, and schema entries that could run expensive or unsafe code."""
    tables = {row[1] for row in rows if row[0] == "table"}
    check_owner(str(file), tables, "MLflow" if known is None else "Optuna")
    for row in rows:
        kind, name, _, statement = row
        if known is not None:
            allowed = row in known
        elif kind == "trigger":
            allowed = _REFUSES.fullmatch(" ".join(str(statement).split())) is not None
        else:
            plain = not str(statement).upper().startswith("CREATE VIRTUAL")
            allowed = kind in ("table", "index") and plain and not _GROWS.search(str(statement))
        if len(rows) > _MOST_NAMES or not allowed:
            raise ModelError(
                f"The database {file} holds what mmsa did not write: {kind} {name!r:.100}.", _ANEW
            )


def _counts(
    connection: sqlite3.Connection, file: Path, tables: list[str]
) -> Iterator[tuple[str, int]]:
    for table in tables:
        quoted = '"{}"'.format(table.replace('"', '""'))
        columns = [row[1] for row in connection.execute(f"pragma table_info({quoted})")]
        lengths = ", ".join('max(length("{}"))'.format(c.replace('"', '""')) for c in columns)
        count, *longest = connection.execute(f"select count(*), {lengths} from {quoted}").fetchone()
        if max((length or 0 for length in longest), default=0) > LONGEST:
            raise ModelError(
                f"{file} has a value of more than {LONGEST} characters in {table!r}.", _ANEW
            )
        yield table, count


def _explain(file: Path, name: str, error: Exception) -> ModelError:
    """The error that explains one of SQLite."""
    if name == "SQLITE_READONLY_ROLLBACK":
        return ModelError(
            f"{file} was left in the middle of a write, by a process that was killed.",
            "Run the same command that wrote it again (mmsa search …): it goes on from what was "
            "finished before.",
        )
    if name == "SQLITE_BUSY":
        return ModelError(f"{file} is locked by another process.", "Wait until that has ended.")
    if name == "SQLITE_INTERRUPT":
        return ModelError(f"Reading {file} takes more than {SECONDS:g} seconds.", _ANEW)
    return ModelError(f"{file} is no database, or a damaged one: {error}", _ANEW)
