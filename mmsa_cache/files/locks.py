"""Locks between processes, also on file systems without ``flock``.

There a lock is a lease: a file that its holder touches regularly. A lease that was not touched for
`_LEASE` seconds, by the clock of the process that waits, has expired and may be taken over. A slow
holder notices the loss before it changes anything if it calls its `LockCheck`.
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
"""Raises `LostLockError` if the lock was lost; to be called before each change that needs it."""
# Without fcntl, filelock would choose a lock that outlives its holder.
_Lock: type[BaseFileLock] = WindowsFileLock if sys.platform == "win32" else UnixFileLock
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of network disks, and of Python without fcntl."""
_LONGEST = 900.0
"""Most seconds to wait for a lock that is held for short work."""
_LEASE = 120.0
"""Seconds without a touch after which a lease expires; the holder touches it every 40."""
_LOOK = 5.0
"""Seconds between two checks of whether a lease has expired."""
_State = tuple[OwnerRecord | None, int, int, int]
_seen: dict[Path, tuple[_State, float]] = {}
"""The last state of each lease, and when it was first seen."""


@contextlib.contextmanager
def hold_lock(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[LockCheck]:
    """Holds a lock; a lease where ``flock`` does not work, as on some network disks.

    Args:
        path: The lock's file.
        waiting: Called once if another process holds the lock; the wait has no limit then.

    Raises:
        LinkError: It is a link, or lies behind one.
        OSError: The file cannot be made, or another process keeps the lock for too long.
    """
    check_target(path)
    lock: BaseFileLock = _Lock(path, fallback_to_soft=False)
    check: LockCheck = lambda: None  # noqa: E731  (flock holds until the process ends)
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
    """Holds a lock if it is free; yields whether it does."""
    try:
        with hold_lock(path, _give_up):
            yield True
    except _LockedError:
        yield False


class _LockedError(Exception):
    """Another process holds the lock."""


def _give_up() -> None:
    raise _LockedError


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
            if isinstance(error, LeaseSettingsMismatch):  # raised without waiting
                time.sleep(patience)
        else:
            return
        if waiting:
            waiting()
            waiting, patience = None, min(_LOOK, _LEASE)


def _has_expired(lease: SoftFileLease) -> bool:
    """Removes a lease if it has expired; returns whether it did.

    filelock itself takes over expired leases only where the file system can exchange two names
    atomically (not on NFS and SMB), and never a lease of another duration or an empty file, which
    a loss of power may leave.
    """
    path, owner = Path(lease.lock_file), lease.owner
    try:
        with open_regular(path, links=False) as file:  # opening makes NFS ask the server
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
    # Only one of the waiting processes removes it: a second one might remove a newer lease. If that
    # one dies meanwhile, another one gets a turn later.
    remover = SoftFileLock(f"{path}.{now.st_ino}-{now.st_ctime_ns}-{turn}", timeout=0)
    with contextlib.suppress(Timeout), remover:
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
