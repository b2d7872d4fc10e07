"""Locks of the store: two that want the same, and disks that know no ``flock``."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from mmsa_cache.errors import DiskError
from mmsa_cache.files import locks
from mmsa_cache.files.locks import hold_lock, try_lock
from mmsa_cache.store.listing import list_features, remove_features
from tests.support.faulty import fork, forked
from tests.support.shards import ENCODER, SHARDS, contents, rows_in, rows_of, write, writer_of
from tests.support.tally import Tally

ROWS = rows_in(SHARDS)


@pytest.fixture(params=[None, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """``flock`` as the system has it, and as some network disks answer."""

    def refused(descriptor: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    if request.param is not None:
        monkeypatch.setattr(fcntl, "flock", refused)


@pytest.mark.usefixtures("flock")
def test_a_store_is_written_whatever_flock_answers(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert rows_of(folder) == ROWS
    assert not list(tmp_path.rglob("*.soft")), "a lock file stays"


@pytest.mark.usefixtures("flock")
def test_one_waits_for_another_and_says_so(tmp_path: Path) -> None:
    asked, held = threading.Event(), []

    def second() -> None:
        with hold_lock(tmp_path / "lock", asked.set):
            held.append("second")

    thread = threading.Thread(target=second)
    with hold_lock(tmp_path / "lock"):
        thread.start()
        assert asked.wait(20)
        with try_lock(tmp_path / "lock") as free:
            assert not free
        held.append("first")
    thread.join(20)
    assert held == ["first", "second"]
    with try_lock(tmp_path / "lock") as free:
        assert free


@pytest.mark.usefixtures("flock")
def test_a_killed_holder_keeps_nobody_out(tmp_path: Path) -> None:
    def holding() -> None:
        with hold_lock(tmp_path / "lock"):
            os.kill(os.getpid(), signal.SIGKILL)

    def waiting() -> None:
        signal.alarm(60)
        with hold_lock(tmp_path / "lock", lambda: None):
            pass

    assert forked(holding) == -signal.SIGKILL
    assert forked(waiting) == 0


def test_what_a_dead_machine_holds_is_an_error_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock file of another machine cannot be told from one that is held."""

    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(locks, "_LONGEST", 0.2)
    folder = write(tmp_path, 1)
    lock = folder.parent / f".{folder.name}.lock.soft"
    lock.write_text("1\nanother-machine\n")
    with pytest.raises(DiskError, match=rf"{lock.name}' could not be acquired") as caught:
        write(tmp_path)
    assert caught.value.exit_code == 5
    lock.unlink()
    assert rows_of(write(tmp_path)) == ROWS


def test_other_errors_of_a_lock_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(DiskError, match="cannot be written: Input/output error"):
        write(tmp_path)


@pytest.mark.parametrize("times", [2, pytest.param(50, marks=pytest.mark.faults)])
def test_two_writers_make_each_row_once(tmp_path: Path, times: int, tally: Tally) -> None:
    whole = contents(write(tmp_path / "whole"))
    for number in range(times):
        root = tmp_path / f"n-{number}"
        pids = [fork(lambda r=root: write(r)) for _ in range(2)]  # type: ignore[misc]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert codes == [0, 0]
        assert contents(ENCODER.folder(root)) == whole
    tally("two processes on one fresh store", times, "each row once, same bytes")


def test_parts_do_not_wait_for_each_other(tmp_path: Path) -> None:
    first, second = writer_of(tmp_path), writer_of(tmp_path)
    with (
        first.claim(pytest.fail, (0, 2)),
        second.claim(pytest.fail, (1, 2)),
    ):
        assert first.publish(SHARDS[0]) == 4
        assert second.has(SHARDS[0].keys).all()
        assert second.publish(SHARDS[1]) == 4
        assert first.publish(SHARDS[1]) == 0
        assert first.publish(SHARDS[2]) == 2
    assert rows_of(first.folder) == ROWS
    assert (first.rows, second.rows) == (10, 8)  # when each looked last


def test_a_folder_that_is_removed_while_one_waits_is_made_again(tmp_path: Path) -> None:
    whole = contents(write(tmp_path / "whole"))
    folder = ENCODER.folder(tmp_path / "removed")
    asked = threading.Event()

    def second() -> None:
        writer = writer_of(tmp_path / "removed")
        with writer.claim(asked.set):
            for shard in SHARDS:
                writer.publish(shard)

    thread = threading.Thread(target=second)
    with writer_of(tmp_path / "removed").claim(lambda: None):
        thread.start()
        assert asked.wait(20)
        shutil.rmtree(folder)
    thread.join(20)
    assert contents(folder) == whole


def test_what_is_being_written_is_not_removed(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for part in ((0, 1), (1, 3)):
        with writer_of(tmp_path).claim(lambda: None, part):
            (removal,) = remove_features(list_features(tmp_path), really=True)
            assert removal.state == "in use"
    assert rows_of(folder) == ROWS
    (removal,) = remove_features(list_features(tmp_path), really=False)
    assert removal.state == "would be removed"
    assert rows_of(folder) == ROWS
    (removal,) = remove_features(list_features(tmp_path), really=True)
    assert removal.state == "removed"
    assert not folder.exists()


def test_a_lock_is_let_go_when_something_is_wrong(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with pytest.raises(KeyError), hold_lock(lock):
        raise KeyError
    with try_lock(lock) as free:
        assert free
