"""Machines that share a disk without ``flock``: each knows the processes of its own name alone."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import filelock._util
import numpy as np
import pytest

from mmsa_cache.files import locks
from mmsa_cache.files.locks import hold_lock, try_lock
from mmsa_cache.store.reader import verify_features
from tests.support.faulty import fork
from tests.support.shards import ENCODER, rows_of
from tests.support.tally import Tally
from tests.support.writers import KEYS, ended, write_all

HOSTS = ("node", "node-1")


@pytest.fixture(autouse=True)
def _network_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(
        filelock._util, "_rename_call", lambda: (lambda source, target, how: errno.EINVAL, 2)
    )
    monkeypatch.setattr(locks, "_LEASE", 1.5)
    monkeypatch.setattr(locks, "_LOOK", 0.1)


def on(host: str, work: Callable[[], None]) -> int:
    """Starts work on a machine of that name; its process number."""

    def there() -> None:
        signal.alarm(200)
        platform.node = socket.gethostname = lambda: host  # type: ignore[assignment]
        work()

    return fork(there)


def test_a_process_of_another_machine_is_neither_dead_nor_alive_by_its_number(
    tmp_path: Path,
) -> None:
    """Nothing here has the number of the first holder, and something has that of the second."""
    lock = tmp_path / "lock"
    for number in (999_999, os.getpid()):
        (tmp_path / "lock.soft").write_text(
            f"filelock/2\npid={number}\nhost=another\nmode=lease\ntoken=t{number}\nduration=1.5\n"
        )
        with try_lock(lock) as free:
            assert not free, "it was taken for dead at once"
        started = time.monotonic()
        with hold_lock(lock, lambda: None) as check:
            check()
        assert time.monotonic() - started < 20, "it was taken for alive"


@pytest.mark.faults
def test_writers_of_two_machines_killed_again_and_again(tmp_path: Path, tally: Tally) -> None:
    write_all(tmp_path / "alone", 0)
    expected = rows_of(ENCODER.folder(tmp_path / "alone"))
    assert set(expected) == {key.tobytes() for key in KEYS}
    rng, done, rounds = np.random.default_rng(5), 0, 0
    while done < 40:
        root = tmp_path / str(rounds)
        root.mkdir()
        for _ in range(3):
            seeds = rng.integers(0, 1000, 4) * 4 + np.arange(4)
            pids = [
                on(HOSTS[place % 2], lambda r=root, s=seed, k=step: write_all(r, s, k))  # type: ignore[misc]
                for place, (seed, step) in enumerate(
                    zip(seeds.tolist(), rng.integers(1, 40, 4).tolist(), strict=True)
                )
            ]
            codes = [ended(pid) for pid in pids]
            assert set(codes) <= {0, -signal.SIGKILL}
            done += codes.count(-signal.SIGKILL)
        pids = [on(HOSTS[s % 2], lambda r=root, s=s: write_all(r, s)) for s in range(4)]  # type: ignore[misc]
        assert [ended(pid) for pid in pids] == [0] * 4
        folder = ENCODER.folder(root)
        assert rows_of(folder) == expected
        assert verify_features(folder) == []
        assert not list(root.rglob("*.soft")), "a lease stays"
        rounds += 1
    tally("kills of writers on two machines, no flock", done, "every row once, bytes of one writer")
