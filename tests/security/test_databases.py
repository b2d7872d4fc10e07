"""SQLite files by somebody hostile: nothing is deleted, written or run, and reading them ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuse.search.choice import choose_trial, summarise_studies
from fuse.search.ledger import Ledger
from fuse.search.snapshot import take_snapshot
from mmsa_cache.errors import LinkError, MmsaError, ModelError
from mmsa_cache.files import sqlite_file
from mmsa_cache.files.sqlite_file import check_sqlite
from mmsa_cache.native.signals import sigterm_as_interrupt
from mmsa_cache.runs.trackers import TRACKERS, TrackedRun
from tests.support.fake_search import ORIGIN
from tests.support.small_work import call
from tests.support.study_records import trials_of

MAGIC = bytes.fromhex("d9d505f920a163d7")


@pytest.fixture
def work(tmp_path: Path, searched: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a database; beside it lies somebody's file."""
    (tmp_path / "victim").write_text("precious")
    work = tmp_path / "work"
    (work / "studies").mkdir(parents=True)
    shutil.copy(searched, work / "studies/studies.db")
    monkeypatch.chdir(work)
    return work


DATABASE = Path("studies/studies.db")
LOOKS: dict[str, Callable[[], Any]] = {
    "list": lambda: summarise_studies(DATABASE),
    "choose": lambda: choose_trial("best", ORIGIN, DATABASE),
    "snapshot": lambda: take_snapshot("fake", 0, DATABASE),
}
WAYS = LOOKS | {"search": lambda: Ledger(DATABASE, "fake").close()}


def read() -> None:
    """What a search does first."""
    with contextlib.closing(Ledger(DATABASE, "fake")) as ledger:
        ledger.record()
        ledger.trials()


def contents(folder: Path) -> dict[str, bytes]:
    """All files; the lock files of a search are its own."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def journal_naming(victim: Path, database: Path) -> bytes:
    """A hot journal of one page, with a super-journal (sqlite.org/fileformat2.html, section 3)."""
    data = database.read_bytes()
    (page,) = struct.unpack(">H", data[16:18])
    count, nonce, number = len(data) // page, 7, 2
    content = data[page * (number - 1) : page * number]
    checksum = (nonce + sum(content[place] for place in range(page - 200, 0, -200))) & 0xFFFFFFFF
    header = struct.pack(">8s5I", MAGIC, 1, nonce, count, 512, page).ljust(512, b"\0")
    record = struct.pack(">I", number) + content + struct.pack(">I", checksum)
    name = os.fsencode(victim)
    end = struct.pack(">I", (1 << 30) // page + 1) + name
    return header + record + end + struct.pack(">II", len(name), sum(name)) + MAGIC


def test_the_crafted_journal_makes_sqlite_delete_a_file(work: Path) -> None:
    """Else the tests below would show nothing."""
    victim = work.parent / "victim"
    Path(f"{DATABASE}-journal").write_bytes(journal_naming(victim, DATABASE))
    with contextlib.closing(sqlite3.connect(DATABASE)) as connection:
        connection.execute("select count(*) from trials").fetchone()
    assert not victim.exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_journal_that_names_a_file_is_refused(work: Path, way: str) -> None:
    victim = work.parent / "victim"
    Path(f"{DATABASE}-journal").write_bytes(journal_naming(victim, DATABASE))
    before = contents(work)
    with pytest.raises(
        ModelError, match=r"journal is not of mmsa.*delete\.\n.*Remove studies\.db-"
    ):
        WAYS[way]()
    assert victim.read_text() == "precious"
    assert contents(work) == before


def test_the_command_line_says_so_too(work: Path) -> None:
    victim = work.parent / "victim"
    Path(f"{DATABASE}-journal").write_bytes(journal_naming(victim, DATABASE))
    assert "names another file, which SQLite would delete" in call(work, "search", "--list", code=4)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["", "-journal", "-wal", "-shm"])
def test_links_are_refused(work: Path, way: str, end: str) -> None:
    victim = work.parent / "victim"
    place = Path(f"{DATABASE}{end}")
    if not end:
        shutil.move(place, work.parent / "other.db")
        victim = work.parent / "other.db"
    before = victim.read_bytes()
    place.symlink_to(victim)
    with pytest.raises(LinkError, match="is a link"):
        WAYS[way]()
    assert place.is_symlink()
    assert victim.read_bytes() == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_a_log_of_another_program_is_refused(work: Path, way: str, end: str) -> None:
    Path(f"{DATABASE}{end}").write_bytes(b"x" * 64)
    before = contents(work)
    with pytest.raises(ModelError, match=rf"db{end} is not of mmsa.*\n.*remove it"):
        WAYS[way]()
    assert contents(work) == before


@pytest.mark.parametrize("name", ["studies.db.owner-x.lock", "folder"])
def test_planted_locks_and_folders_lead_nowhere(work: Path, name: str) -> None:
    victim = work.parent / "victim"
    if name == "folder":
        shutil.move(work / "studies", work.parent / "elsewhere")
        Path("studies").symlink_to(work.parent / "elsewhere")
    else:
        Path(f"studies/.{name}").symlink_to(victim)
    with pytest.raises(LinkError, match="is a link"):
        Ledger(DATABASE, "fake")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_changes_nothing(work: Path, look: str) -> None:
    names, before = {path.name for path in work.rglob("*")}, contents(work)
    times = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    LOOKS[look]()
    assert contents(work) == before
    assert {path.name for path in work.rglob("*")} == names
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == times


def made(*statements: str) -> None:
    DATABASE.unlink()
    change(*statements)


def change(*statements: str) -> None:
    with contextlib.closing(sqlite3.connect(DATABASE)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


ENDLESS = (
    "with recursive n(x) as (select 1 union all select x + 1 from n) select x as study_id, "
    "'s' || x as study_name from n"
)
HOSTILE = {
    "somebody's": lambda: made("create table notes (text)", "insert into notes values ('mine')"),
    "endless view": lambda: change(
        "pragma foreign_keys = off", "drop table studies", f"create view studies as {ENDLESS}"
    ),
    "trigger": lambda: change(
        "create trigger t after update on trials begin delete from trial_params; end"
    ),
    "virtual table": lambda: change("create virtual table v using fts5(x)"),
    "index of an expression": lambda: change(
        "create index i on trials (length(zeroblob(number * 1000000)))"
    ),
    "generated column": lambda: change(
        "alter table trials add column big text as (hex(zeroblob(100000000)))"
    ),
    "long value": lambda: change(
        "update trial_user_attributes set value_json = hex(zeroblob(600000))"
    ),
    "many rows": lambda: change(
        "with recursive n(x) as (select 1000 union all select x + 1 from n limit 1000) "
        "insert into trials (number, study_id, state) select x, 1, 'FAIL' from n"
    ),
    "write-ahead log": lambda: change("pragma journal_mode = wal"),
}


@pytest.mark.parametrize("way", ["list", "search"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_mmsa_did_not_write_is_refused_untouched(
    work: Path, kind: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "MOST_ROWS", 900)
    HOSTILE[kind]()
    before = contents(work)
    with pytest.raises(ModelError) as raised:
        WAYS[way]()
    said = "what mmsa did not write|rows|value of more than|damaged|another program's"
    assert raised.match(rf"studies\.db.*({said})")
    assert "--storage sqlite:///FILE" in raised.value.hint
    assert contents(work) == before


@pytest.mark.parametrize(
    "statement",
    [
        "insert into alembic_version values ('x')",
        "update alembic_version set version_num = 'x'",
        "update study_user_attributes set value_json = cast(x'ff' as text)",
        "update trial_user_attributes set value_json = cast(x'ff' as text)",
        "update trials set number = number + 0.5",
        "update trials set number = -1 - number",
        """update trial_params set distribution_json = '{"name": "IntDistribution", "attributes":'
        || '{"log": false, "step": 1, "low": 1, "high": 1e999}}'""",
    ],
)
@pytest.mark.parametrize("way", ["choose", "read"])
def test_rows_that_optuna_cannot_read_are_said_at_once(
    work: Path, statement: str, way: str
) -> None:
    change(statement)
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"studies\.db.*(Optuna|did not write|damaged)"):
        (LOOKS["choose"] if way == "choose" else read)()
    assert time.monotonic() - started < 60, "it was waited for"


@pytest.mark.parametrize("way", WAYS)
def test_names_that_are_no_text_are_damage(work: Path, way: str) -> None:
    """Python cannot read what SQLite says of them."""
    index = b"sqlite_autoindex_trial_heartbeats_1"
    DATABASE.write_bytes(DATABASE.read_bytes().replace(index, b"\xff" + index[1:]))
    with pytest.raises(ModelError, match=r"studies\.db is no database, or a damaged one"):
        WAYS[way]()


def test_a_tree_that_leads_back_to_itself_is_damaged(work: Path) -> None:
    """Every page of a table's tree names the same page twice: 2^depth rows of nothing."""
    change("create table notes (text)")
    with contextlib.closing(sqlite3.connect(DATABASE)) as connection:
        (root,) = connection.execute(
            "select rootpage from sqlite_master where name = 'trials'"
        ).fetchone()
        connection.execute("drop table notes")
        connection.commit()
    data = bytearray(DATABASE.read_bytes())
    (page,) = struct.unpack(">H", data[16:18])
    start = page * (root - 1)
    inner = struct.pack(">BHHHBIH", 5, 0, 1, page - 8, 0, root, page - 8)
    data[start : start + len(inner)] = inner
    data[start + page - 8 : start + page - 3] = struct.pack(">IB", root, 1)
    DATABASE.write_bytes(data)
    with pytest.raises(ModelError, match="is no database, or a damaged one"):
        summarise_studies(DATABASE)


def test_reading_has_an_end_and_hears_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "long.db"
    with contextlib.closing(sqlite3.connect(long)) as connection, connection:
        connection.execute("create table t (x)")
        numbers = "with recursive n(x) as (select 1 union all select x + 1 from n limit 50000)"
        connection.execute(f"insert into t {numbers} select x from n")
        known = frozenset(connection.execute("select type, name, tbl_name, sql from sqlite_master"))
    monkeypatch.setattr(sqlite_file, "_STEPS", 1)
    with sigterm_as_interrupt():
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            check_sqlite(long, known, write=False)
    monkeypatch.setattr(sqlite_file, "SECONDS", 0.02)
    with pytest.raises(ModelError, match=r"takes more than 0\.02 seconds"):
        check_sqlite(long, known, write=False)


def test_a_killed_search_is_undone_by_the_next_one_and_by_no_look(work: Path) -> None:
    """What SQLite leaves in the middle of a write: pages changed, a journal beside them."""
    before = [(t.number, t.state.name) for t in trials_of(DATABASE)]
    with contextlib.closing(sqlite3.connect(DATABASE, isolation_level=None)) as connection:
        connection.execute("pragma cache_size = 1")
        connection.execute("pragma cache_spill = 1")
        connection.execute("begin")
        connection.execute("update trials set state = 'FAIL'")
        connection.execute("update trial_user_attributes set value_json = value_json || ' '")
        shutil.copy(DATABASE, "left.db")
        shutil.copy(f"{DATABASE}-journal", "left.db-journal")
        connection.execute("rollback")
    for end in ("", "-journal"):
        shutil.move(f"left.db{end}", f"{DATABASE}{end}")
    files = contents(work)
    with pytest.raises(ModelError, match=r"in the middle of a write.*\n.*mmsa search"):
        summarise_studies(DATABASE)
    assert contents(work) == files
    Ledger(DATABASE, "fake").close()
    assert not Path(f"{DATABASE}-journal").exists()
    assert [(t.number, t.state.name) for t in trials_of(DATABASE)] == before


def test_looks_at_a_search_that_writes(work: Path) -> None:
    """The figures of a running search are whole at any moment."""
    write = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
while True:
    for statement in ("begin", "update trials set number = number + 10",
                      "update trials set number = number - 10", "commit"):
        connection.execute(statement)
    print(flush=True)
    time.sleep(0.01)
"""
    command = [sys.executable, "-c", write, str(DATABASE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            for _ in range(3):
                assert [t.number for t in trials_of(DATABASE)] == [0, 1, 2]
        finally:
            writer.kill()


@pytest.mark.parametrize("end", ["", "-journal", "-wal"])
def test_the_database_of_mlflow_is_checked_as_well(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "victim").write_text("precious")
    Path("runs").mkdir()
    Path(f"runs/mlflow.db{end}").symlink_to(tmp_path / "victim")
    with pytest.raises(LinkError, match="is a link"):
        TRACKERS["mlflow"][0](TrackedRun("r", Path("runs/r"), {}))
    Path(f"runs/mlflow.db{end}").unlink()
    with contextlib.closing(sqlite3.connect("runs/mlflow.db")) as connection:
        connection.execute(f"create view experiments as {ENDLESS}")
        connection.execute("create table t (x)")
        for body in ("delete from t", "select raise(abort, x) from t"):
            connection.execute(f"create trigger t{len(body)} before update on t begin {body}; end")
    for kind in ("view 'experiments'", "trigger 't13'", "trigger 't29'"):
        with pytest.raises(ModelError, match=kind):
            TRACKERS["mlflow"][0](TrackedRun("r", Path("runs/r"), {}))
        with contextlib.closing(sqlite3.connect("runs/mlflow.db")) as connection:
            connection.execute(f"drop {kind}")
    check_sqlite(Path("runs/mlflow.db"), write=True)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("file", ["wandb/settings", ".wandb/settings", "config-defaults.yaml"])
def test_weights_and_biases_takes_no_settings_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    Path(file).parent.mkdir(exist_ok=True)
    os.mkfifo(file)  # opened, it would be waited for
    with pytest.raises(MmsaError, match=rf"{file} would choose.*\n.*Remove it"):
        TRACKERS["wandb"][0](TrackedRun("r", Path("runs/r"), {}))
