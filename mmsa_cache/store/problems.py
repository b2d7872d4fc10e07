"""Errors of files of the store: damage, and what the system has run out of."""

from __future__ import annotations

import errno
from pathlib import Path

from mmsa_cache.errors import CacheError, DamagedCacheError, DeviceError, MmsaError

REPAIR = "Delete the file and run mmsa extract: it computes the rows again."
MISSING = "Run mmsa extract: it computes the rows of missing shards again."
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}


def again(folder: Path) -> str:
    """What to do about a folder that cannot be repaired."""
    return f"Delete the folder {folder} and run mmsa extract again."


def unreadable(path: Path, error: Exception, hint: str = REPAIR) -> MmsaError:
    """The error of a file that could not be read: damage, a limit or a permission."""
    reason = str(getattr(error, "strerror", None) or error)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _EXHAUSTED):
        return exhausted(path, reason or "no memory")
    message = f"{path} cannot be read: {reason}."
    if isinstance(error, PermissionError):
        return CacheError(message, "Change its permissions, or run as its owner.")
    return DamagedCacheError(message, hint)


def exhausted(path: Path, reason: str) -> DeviceError:
    """A limit of the system, which says nothing of the file."""
    return DeviceError(
        f"{path} cannot be opened now: {reason}.",
        "Nothing is damaged. Raise the limit (ulimit -n for files, ulimit -v and vm.max_map_count "
        "for maps), or close other programs.",
    )
