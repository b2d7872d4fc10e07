"""Locks on disks without ``flock``: those of machines that are gone expire, held ones do not."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import filelock._util
import pytest

from fuse.search.locks import FileLocks
from mmsa_cache.errors import LostLockError
from mmsa_cache.files import locks
from mmsa_cache.files.disk import Disk
from mmsa_cache.files.locks import hold_lock, try_lock
from mmsa_cache.store.writer import FeatureWriter
from tests.support.faulty import fork
from tests.support.shards import ENCODER, SHARDS, rows_in, rows_of, write
from tests.support.tally import Tally


@pytest.fixture(params=["exchange", "no exchange"], autouse=True)
def _network_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without ``flock``; as NFS and SMB it may be unable to exchange two names."""

    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    if request.param == "no exchange":
        monkeypatch.setattr(
            filelock._util, "_rename_call", lambda: (lambda source, target, how: errno.EINVAL, 2)
        )
    monkeypatch.setattr(locks, "_LEASE", 0.8)
    monkeypatch.setattr(locks, "_LOOK", 0.1)


ALIKE = pytest.mark.parametrize("_network_disk", ["no exchange"], indirect=True)


def left_by_another_machine(path: Path, token: str = "abc", seconds: float = 0.8) -> Path:
    lease = path.with_name(f"{path.name}.soft")
    lease.write_text(
        f"filelock/2\npid=1\nhost=another-machine\nmode=lease\ntoken={token}\nduration={seconds}\n"
    )
    return lease


@pytest.mark.parametrize("age", [-1e6, 1e6])
def test_what_a_dead_machine_holds_expires_whatever_its_clock_said(
    tmp_path: Path, age: float
) -> None:
    lease = left_by_another_machine(tmp_path / "lock")
    os.utime(lease, (time.time() - age,) * 2)
    with try_lock(tmp_path / "lock") as free:
        assert not free, "the clocks of two machines were compared"
    started, asked = time.monotonic(), []
    with hold_lock(tmp_path / "lock", lambda: asked.append(1)) as check:
        assert 0.1 < time.monotonic() - started < 20
        check()
    assert asked == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["lock"], "a lease stays"


@ALIKE
@pytest.mark.parametrize("content", ["", "duration"])
def test_what_is_no_lease_of_this_version_expires_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """An empty file is what a loss of power leaves of one."""
    path, told = tmp_path / "lock", []
    lease = left_by_another_machine(path, seconds=60)
    if not content:
        lease.write_bytes(b"")
    with hold_lock(path, lambda: told.append("waits")):
        assert not held_beside(path)
    assert told == ["waits"]
    left_by_another_machine(path, token="again", seconds=60)
    monkeypatch.setattr(locks, "_LONGEST", 0.3)
    with pytest.raises(OSError, match="holds a lease of"), hold_lock(path):
        pass


def held_beside(path: Path) -> bool:
    with try_lock(path) as held:
        return held


def test_who_only_looks_now_and_then_sees_it_expire(tmp_path: Path) -> None:
    """As a search does, for the owners of trials."""
    left_by_another_machine(tmp_path / "lock")
    seen = []
    for _ in range(2):
        with try_lock(tmp_path / "lock") as free:
            seen.append(free)
        time.sleep(0.9)
    left_by_another_machine(tmp_path / "lock", "def")  # somebody took it meanwhile
    with try_lock(tmp_path / "lock") as free:
        seen.append(free)
    assert seen == [False, True, False]


@ALIKE
def test_a_store_whose_writer_is_gone_is_written_by_the_next_one(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    for name in (f".{folder.name}.lock", f".{folder.name}.1-of-1.claim"):
        left_by_another_machine(folder.parent / name)
    assert rows_of(write(tmp_path)) == rows_in(SHARDS)


@ALIKE
def test_a_living_holder_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_LEASE", 1.0)
    held = []

    def second() -> None:
        with hold_lock(tmp_path / "lock", lambda: None):
            held.append("second")

    thread = threading.Thread(target=second)
    with hold_lock(tmp_path / "lock") as check:
        thread.start()
        time.sleep(2.2)
        check()
        held.append("first")
    thread.join(20)
    assert held == ["first", "second"]


class _Pauses(Disk):
    """Its process stands still before a shard gets its name, and its lock goes to another one."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        if new.suffix == ".h5":
            self._lock.with_name(f"{self._lock.name}.soft").unlink()
            left_by_another_machine(self._lock)


@ALIKE
def test_a_lost_lock_is_noticed_before_the_index_is_changed(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    index = (folder / "index.jsonl").read_bytes()
    writer = FeatureWriter(tmp_path, ENCODER, _Pauses(folder.parent / f".{folder.name}.lock"))
    with (
        writer.claim(pytest.fail),
        pytest.raises(LostLockError, match=r"was lost to another process.*\n.*same command again"),
    ):
        writer.publish(SHARDS[1])
    assert (folder / "index.jsonl").read_bytes() == index
    assert rows_of(write(tmp_path)) == rows_in(SHARDS)


@ALIKE
def test_a_search_that_stood_still_marks_itself_again(tmp_path: Path) -> None:
    one, other = (FileLocks(tmp_path / "s.db") for _ in range(2))
    one.mark_alive("one")
    (lease,) = tmp_path.glob("*.soft")
    lease.unlink()
    assert not other.is_alive("one")
    for _ in range(2):
        one.renew()
        assert other.is_alive("one")
    one.release()
    assert not other.is_alive("one")


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.faults)])
def test_of_many_that_wait_for_a_dead_machine_one_at_a_time_goes_on(
    tmp_path: Path, times: int, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LEASE", 1.0)  # a busy machine may halt one of them for long

    def alone() -> None:
        with hold_lock(tmp_path / "lock", lambda: None) as check:
            (tmp_path / "inside").touch(exist_ok=False)
            time.sleep(0.02)
            check()
            (tmp_path / "inside").unlink()

    for number in range(times):
        left_by_another_machine(tmp_path / "lock", f"number-{number}", 1.0)
        pids = [fork(alone) for _ in range(6)]
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 6
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    tally("six processes at an expired lease", times, "one at a time")
