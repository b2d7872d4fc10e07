"""Locks between processes, also where the file system has no ``flock``.

There a lock is a lease: a file whose holder touches it all the time. One that nobody has touched
for `_LEASE` seconds, by the clock of whoever watches it, is taken from its holder, who may be a
machine that is gone. A holder that was only slow finds that out before it changes anything, if it
asks (`LockCheck`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import (
    BaseFileLock,
    LeaseSettingsMismatch,
    OwnerRecord,
    SoftFileLease,
    SoftFileLock,
    Timeout,
    UnixFileLock,
    WindowsFileLock,
)

from mmsa_cache.errors import LostLockError

from .paths import check_target
from .untrusted import open_regular

LockCheck = Callable[[], None]
"""Raises `LostLockError` where a lock is not held any more; for just before what needs it."""
# filelock's own choice is, for a Python without fcntl, a lock that outlives its holder.
_Lock: type[BaseFileLock] = WindowsFileLock if sys.platform == "win32" else UnixFileLock
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What network disks answer, and a Python without fcntl."""
_LONGEST = 900.0
"""Seconds to wait for a lock that is held for moments only, or for a merge."""
_LEASE = 120.0
"""Seconds without a touch after which a lease has expired; its holder touches it every 40."""
_LOOK = 5.0
"""Seconds between two looks at whether a lease has expired."""
_State = tuple[OwnerRecord | None, int, int, int]
_seen: dict[Path, tuple[_State, float]] = {}
"""What each lease was like when it was first seen so, and when that was."""


@contextlib.contextmanager
def hold_lock(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[LockCheck]:
    """Holds a lock; where ``flock`` does not work, as on some network disks, a lease.

    Args:
        path: The lock's file.
        waiting: Called once if another process has it, which may be for long then.

    Raises:
        LinkError: It is a link, or lies behind one.
        OSError: The file cannot be made, or another process does not let go.
    """
    check_target(path)
    lock: BaseFileLock = _Lock(path, fallback_to_soft=False)
    check: LockCheck = lambda: None  # noqa: E731  (the system keeps a lock while its process lives)
    try:
        _acquire(lock, waiting)
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        path = path.with_name(f"{path.name}.soft")
        check_target(path)
        lock = SoftFileLease(path, lease_duration=_LEASE)
        _acquire(lock, waiting)
        check = functools.partial(_check, lock)
    try:
        yield check
    finally:
        lock.release()


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Holds a lock if no process has it; gives whether it does."""
    try:
        with hold_lock(path, _give_up):
            yield True
    except _TakenError:
        yield False


class _TakenError(Exception):
    """Another process has the lock."""


def _give_up() -> None:
    raise _TakenError


def _acquire(lock: BaseFileLock, waiting: Callable[[], None] | None) -> None:
    longest = math.inf if waiting else _LONGEST
    end = time.monotonic() + longest
    patience = 0.0 if waiting else min(_LOOK, _LEASE, longest)
    while True:
        try:
            lock.acquire(timeout=patience)
        except (Timeout, LeaseSettingsMismatch) as error:
            if isinstance(lock, SoftFileLease) and _has_expired(lock):
                continue
            if time.monotonic() >= end:
                if isinstance(error, OSError):
                    raise
                raise OSError(errno.ENOLCK, str(error)) from error
            if isinstance(error, LeaseSettingsMismatch):  # it is not waited for
                time.sleep(patience)
        else:
            return
        if waiting:
            waiting()
            waiting, patience = None, min(_LOOK, _LEASE)


def _has_expired(lease: SoftFileLease) -> bool:
    """Removes a lease that has expired; whether it did.

    filelock takes it over where two names can be exchanged in one step; on NFS and SMB they cannot,
    and there it lets it be, as everywhere one of another duration, and an empty file, which a loss
    of power may leave.
    """
    path, owner = Path(lease.lock_file), lease.owner
    try:
        with open_regular(path, links=False) as file:  # on NFS opening is what asks the server
            now = os.fstat(file.fileno())
    except (OSError, ValueError):
        return False
    state: _State = (owner, now.st_ino, now.st_mtime_ns, now.st_ctime_ns)
    before, since = _seen.get(path, (None, 0.0))
    if state != before:
        _seen[path] = state, time.monotonic()
        return False
    turn = int((time.monotonic() - since) / _LEASE)
    if turn < 1 or not (now.st_size == 0 or (owner is not None and owner.mode == "lease")):
        return False
    # One of those who watch removes it, lest a second one removes what a third has made since; if
    # that one dies over it, it is another one's turn later.
    one = SoftFileLock(f"{path}.{now.st_ino}-{now.st_ctime_ns}-{turn}", timeout=0)
    with contextlib.suppress(Timeout), one:
        if lease.owner == owner:
            lease.break_lock()
            return True
    return False


def _check(lease: SoftFileLease) -> None:
    owner = lease.owner
    if lease.compromise is not None or owner is None or owner.token != lease.token:
        raise LostLockError(
            f"The lock {lease.lock_file} was lost to another process: this one, or its disk, did "
            f"not get on for {_LEASE:g} seconds.",
            "Nothing was changed since. Run the same command again; it goes on from there.",
        )
