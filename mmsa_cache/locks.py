"""Locks between processes, also where the file system has no ``flock``."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from .paths import check_target

_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What network disks answer."""
_LONGEST = 900.0
"""Seconds to wait for a lock that is held for moments only, or for a merge."""


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds a lock; where ``flock`` does not work, as on some network disks, a lock file.

    Args:
        path: The lock's file.
        waiting: Called once if another process has it, which may be for long then.

    Raises:
        LinkError: It is a link, or lies behind one.
        OSError: The file cannot be made, or another process does not let go.
    """
    check_target(path)
    lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
    try:
        _acquire(lock, waiting)
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        path = path.with_name(f"{path.name}.soft")
        check_target(path)
        lock = SoftFileLock(path)
        _acquire(lock, waiting)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Holds a lock if no process has it; gives whether it does."""
    try:
        with locked(path, _give_up):
            yield True
    except _TakenError:
        yield False


class _TakenError(Exception):
    """Another process has the lock."""


def _give_up() -> None:
    raise _TakenError


def _acquire(lock: BaseFileLock, waiting: Callable[[], None] | None) -> None:
    if waiting is None:
        lock.acquire(timeout=_LONGEST)
        return
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
