"""SQLite files of anybody, checked before a library opens them.

What SQLite itself does for whoever opens a file: it plays back a journal that lies beside it, and
deletes the file that the journal may name; it writes to files beside it, through links too; it runs
views, triggers and virtual tables. None of that is in files that mmsa has written.
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
"""Kind, name, table and statement of each table and index; no statement where it comes with one."""
MOST_ROWS = 1_000_000
"""Of all tables together, where they are known."""
MOST_BYTES = 1 << 29
"""Of a file."""
LONGEST = 1 << 20
"""Characters of one value, where the tables are known."""
SECONDS = 90.0
"""After which a file that is locked, or never ends, is given up."""
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")
"""The end of a journal that names a further file, see sqlite.org/fileformat2.html, section 3."""
_STEPS = 10_000
"""Of SQLite's machine, between two looks at the clock."""
_MOST_NAMES = 1000
_REFUSES = re.compile(
    r"CREATE TRIGGER \w+ BEFORE \w+ ON \w+ FOR EACH ROW WHEN [^()]+ "
    r"BEGIN SELECT RAISE\(ABORT, '[^']*'\); END",
)
"""MLflow has such a trigger; it calls nothing and reads no other row."""
_GROWS = re.compile(
    r"\|\||/\*|--|\b(zeroblob|randomblob|hex|quote|replace|printf|format|json_\w+|concat\w*)\W*\(",
    re.IGNORECASE,
)
"""What makes a long value of a short one, in a check, a default or a generated column."""
_ANEW = "Restore it, or begin anew in another file (--storage sqlite:///FILE)."
"""A search can; what else is kept in a database begins anew when that is moved away."""


def sqlite_uri(file: Path) -> str:
    """A file's address for SQLite."""
    return f"file:{quote(str(file.absolute()))}"


def check_sqlite(file: Path, known: Schema | None = None, *, write: bool) -> dict[str, int]:
    """Checks a SQLite file that is about to be opened; there may be none yet.

    Args:
        file: The file.
        known: All that it may hold, of Optuna's; None: it is MLflow's, any tables and indexes, and
            triggers that only refuse.
        write: Whether it will be written to; only then what a killed process of its left is undone.

    Returns:
        How many rows each of its tables has, if they are known.

    Raises:
        LinkError: It, or a file that SQLite keeps beside it, is a link.
        ModelError: Another program's, damaged, or larger than anything that mmsa writes.
    """
    _check_files(file)
    if not file.exists() or file.stat().st_size == 0:
        return {}
    _check_header(file)
    deadline = time.monotonic() + SECONDS
    mode = "ro"
    while True:
        try:
            rows = _look(file, mode, known, deadline)
            _check_header(file)  # that of a journal may have come
            return rows
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter of its own words
            name = getattr(error, "sqlite_errorname", "")
            if name == "SQLITE_INTERRUPT" and time.monotonic() < deadline:
                raise KeyboardInterrupt from None  # it came while SQLite was at work
            if name == "SQLITE_READONLY_ROLLBACK" and write:
                mode = "rw"
            elif name != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise _said(file, name, error) from error


def _check_files(file: Path) -> None:
    """Checks the kinds of a database's files, and what its journal names."""
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
    # A search that runs elsewhere may end with its journal at any time.
    with contextlib.suppress(FileNotFoundError), open_regular(journal, links=False) as content:
        size = os.fstat(content.fileno()).st_size
        content.seek(max(0, size - len(_NAMES_ANOTHER)))
        if content.read() == _NAMES_ANOTHER:
            raise ModelError(
                f"{journal} is not of mmsa: it names another file, which SQLite would delete.",
                f"Remove {journal.name}, or name another database (--storage sqlite:///FILE).",
            )


def _check_header(file: Path) -> None:
    """Refuses a file beside which SQLite would make a log, whoever only reads it.

    Closing it drops every lock that this process has on it: none of its connections may be in a
    transaction.
    """
    with open_regular(file, links=False) as content:
        size = os.fstat(content.fileno()).st_size
        writer, reader = (content.read(20)[18:] + b"\0\0")[:2]
    if size > MOST_BYTES:
        raise ModelError(f"{file} is larger than {MOST_BYTES >> 20} MiB.", _ANEW)
    if 2 in (writer, reader):
        raise ModelError(f"{file} is another program's: it has a write-ahead log.", _ANEW)


def _look(file: Path, mode: str, known: Schema | None, deadline: float) -> dict[str, int]:
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
    """Refuses what computes more than a comparison or a difference, and what is not known."""
    tables = {row[1] for row in rows if row[0] == "table"}
    check_owner(str(file), tables, "MLflow" if known is None else "Optuna")
    for row in rows:
        kind, name, _, made = row
        if known is not None:
            fits = row in known
        elif kind == "trigger":
            fits = _REFUSES.fullmatch(" ".join(str(made).split())) is not None
        else:
            plain = not str(made).upper().startswith("CREATE VIRTUAL")
            fits = kind in ("table", "index") and plain and not _GROWS.search(str(made))
        if len(rows) > _MOST_NAMES or not fits:
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


def _said(file: Path, name: str, error: Exception) -> ModelError:
    """What SQLite's own error means."""
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
