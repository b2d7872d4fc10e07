"""Reading processes that end, hang, or cannot have what they are asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extract.plan import PreparedRows, Row, read_rows
from extract.reading import processes
from extract.reading.process import InputPipeline, RegisteredPipeline
from extract.reading.processes import ReadingProcesses
from extract.reading.reading import ReadingPool
from mmsa_cache.native.processes import can_fork
from tests.support.extraction import LENGTHS, Counting, make_rows
from tests.support.forked import start_fresh
from tests.support.row_readers import Numbered, Repeated, hang

pytestmark = pytest.mark.skipif(not can_fork(), reason="readers are forked")
PREPARE = Repeated(tuple(LENGTHS))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadingProcesses]:
    """Two processes that are ready."""
    monkeypatch.setattr(processes, "start_process", start_fresh)
    found = ReadingProcesses(2)
    until(lambda: len(found._idle) == 2)
    yield found
    found.close()


def until(there: Any) -> None:
    limit = time.monotonic() + 60
    while not there() and time.monotonic() < limit:
        time.sleep(0.01)
    assert there()


def same(found: PreparedRows, rows: list[Row]) -> bool:
    expected = read_rows(rows, Numbered(), InputPipeline(Numbered(), PREPARE))
    return not found.problems and (
        [each.tolist() for each in found.inputs] == [each.tolist() for each in expected.inputs]
    )


def share(two: ReadingProcesses, reader: Any) -> RegisteredPipeline:
    return two.register(InputPipeline(reader, PREPARE))


def notes_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("read by *"))


def test_idle_readers_that_ended_are_replaced_and_no_row_is_blamed(
    tmp_path: Path, two: ReadingProcesses
) -> None:
    rows = list(make_rows(tmp_path)[:6])
    before = list(two._idle)
    for each in before:
        os.kill(each.process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    until(lambda: all(each.ended for each in before))
    assert same(two.read(rows, share(two, Numbered(notes=tmp_path))), rows)
    assert notes_of(tmp_path) != [f"read by {os.getpid()}"]
    until(lambda: len(two._idle) == two._alive == 2)
    assert before[1] not in two._idle  # which would have been the next one to be asked


def test_rows_of_a_reader_that_cannot_be_replaced_are_read_here(
    tmp_path: Path, two: ReadingProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_start(*arguments: Any) -> Any:
        raise OSError("no process")

    monkeypatch.setattr(processes, "start_process", no_start)
    rows = list(make_rows(tmp_path)[:6])
    reader = Numbered(killing=(1, 2), times=2, notes=tmp_path)
    assert same(two.read(rows, share(two, reader)), rows)
    assert len(list(tmp_path.glob("killed *"))) == 2
    assert two._alive == 0
    assert f"read by {os.getpid()}" in notes_of(tmp_path)


def test_rows_that_cannot_be_sent_are_read_here(tmp_path: Path, two: ReadingProcesses) -> None:
    rows = list(make_rows(tmp_path)[:6])
    object.__setattr__(rows[2].sample, "text", threading.Lock())
    shared = share(two, Numbered(notes=tmp_path))
    for _ in range(3):
        assert same(two.read(rows, shared), rows)
    assert notes_of(tmp_path) == [f"read by {os.getpid()}"]
    until(lambda: len(two._idle) == two._alive == 2)


def test_whoever_asks_for_a_reader_that_is_not_there_reads_by_itself(
    tmp_path: Path, two: ReadingProcesses
) -> None:
    """Even where another thread has asked just before, and been told."""
    rows = list(make_rows(tmp_path)[:6])
    shared = RegisteredPipeline(
        7, InputPipeline(Numbered(), PREPARE), b"cno_such_module\nReader\n."
    )
    process = two._acquire(wait=False)
    assert process is not None
    assert same(two._read_by(process, rows, shared, 0), rows)
    again = two._acquire(wait=False)
    assert again is process
    assert same(two._read_by(again, rows, shared, 0), rows)
    assert len(two._idle) == two._alive == 2


@pytest.mark.parametrize("stopped", [False, True])
def test_a_reader_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    monkeypatch.setattr(processes, "start_process", start_fresh)
    reading = ReadingPool(4, processes=True)
    assert reading._processes is not None
    until(lambda: len(reading._processes._idle) == 2)
    encoder: Any = Counting()
    encoder.prepare = PREPARE
    tasks = reading.submit(make_rows(tmp_path), Numbered(seconds=100), encoder)
    until(lambda: len(reading._processes._busy) == 2)
    pids = [each.process.pid for each in reading._processes._busy]  # type: ignore[attr-defined]
    if stopped:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    reading.close()
    assert time.monotonic() - started < 4
    assert all(task.done() for task in tasks)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_process_that_is_not_ready_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def sleeps(target: Any, arguments: Any, device: str, preload: str) -> Any:
        started.append(start_fresh(hang, arguments, device, preload))
        return started[-1]

    monkeypatch.setattr(processes, "start_process", sleeps)
    monkeypatch.setattr(processes, "_SECONDS_TO_START", 0.05)
    some = ReadingProcesses(1)
    until(lambda: some._failed_starts == 3)
    assert some._acquire(wait=True) is None
    assert [each.exitcode is None for each in started] == [False] * 3
    some.close()


@pytest.mark.parametrize("forked", [True, False], ids=["not ready", "not forked"])
def test_closing_does_not_wait_for_a_process_that_is_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked: bool
) -> None:
    """Nor does the thread whose process it takes the place of."""
    begun, may_fork = [], threading.Event()

    def slow(target: Any, arguments: Any, device: str, preload: str) -> Any:
        if begun and not forked:
            may_fork.wait(60)
        begun.append(start_fresh(hang if begun else target, arguments, device, preload))
        return begun[-1]

    monkeypatch.setattr(processes, "start_process", slow)
    reading = ReadingPool(3, processes=True)
    some = reading._processes
    assert some is not None
    until(lambda: some._idle)
    encoder: Any = Counting()
    encoder.prepare = PREPARE
    reader = Numbered(killing=(0,), times=1, notes=tmp_path)
    tasks = reading.submit(make_rows(tmp_path), reader, encoder)
    until(lambda: not some._alive)  # row 0 has ended the one that there was
    if forked:
        until(lambda: some._busy)
    started = time.monotonic()
    reading.close()
    assert time.monotonic() - started < 4
    assert all(task.done() for task in tasks)
    may_fork.set()
    some._starter.join(60)
    assert len(begun) == 2
    assert not any(each.is_alive() for each in begun)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted there")
@pytest.mark.parametrize("package", ["extract.reading", "extract.crew", "fuse.search"])
def test_what_processes_are_forked_from_has_one_thread(package: str) -> None:
    """A fork copies no other thread, and what that one holds is never let go."""
    script = f"import os, {package}.forked; print(len(os.listdir('/proc/self/task')))"
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=100
    )
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
