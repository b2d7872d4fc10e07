"""Every error that mmsa raises on purpose, in one tree.

    MmsaError                      exit code 1
    ├── SettingsError              2  flags, MMSA_* variables, mmsa.toml, study files
    │   └── LinkError                 a link, or no file, where mmsa would write
    ├── DataError                  3  label files, texts, pictures
    │   └── BadFileError              one text or picture, with the reason to count it under
    ├── CacheError                 4  feature caches
    │   ├── CacheNotFoundError        nothing extracted yet (a FileNotFoundError too)
    │   ├── StaleCacheError           extracted under other settings or from other data
    │   ├── DamagedCacheError         a shard or manifest is not what was sealed
    │   └── ForbiddenCacheError       this user may not read a file
    ├── ModelError                 4  encoders, runs, checkpoints
    └── DeviceError                5  device or memory
        └── DiskError                 a disk is full, failing or read-only (an OSError too)
            └── LostLockError             a lock on a network disk went to another process

A message says what is wrong and where; ``hint`` says what to do about it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .json_value import JsonObject

MOST_SHOWN = 50
"""Findings that a message lists; the rest of them are counted."""
_LONGEST = 2000
"""Characters of one finding that are shown."""


class MmsaError(Exception):
    """Base of the tree.

    Args:
        message: What is wrong, and where.
        hint: What the user can do about it.
        problems: Single findings, when several were found in one pass.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = list(problems)

    def __str__(self) -> str:
        return self.in_lines(MOST_SHOWN)

    def in_lines(self, most: int, rest: str = "") -> str:
        """Message, findings and hint.

        Args:
            most: Findings that are shown; of one more, that one too.
            rest: Where all of them are, said where some are left out.
        """
        left = len(self.problems) - most
        if left <= 1:
            most, left = len(self.problems), 0
        lines = [_cut(self.message), *(f"  - {_cut(each)}" for each in self.problems[:most])]
        if left:
            lines.append(f"  … and {left} more{rest}")
        if self.hint:
            lines.append(f"  → {self.hint}")
        return "\n".join(lines)

    def as_json(self) -> JsonObject:
        """Plain values, with every finding."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "message": self.message,
            "hint": self.hint,
            "problems": self.problems,
        }


def _cut(text: str) -> str:
    """A finding may quote a file, which may hold a line of a million characters, or what looks like
    another message."""
    line = text.replace("\n", "\\n")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


class SettingsError(MmsaError, ValueError):
    """A setting is unknown, malformed or contradicts another one."""

    exit_code = 2


@contextmanager
def require_extra(what: str, extra: str) -> Iterator[None]:
    """Within, an import that fails says what needs it, and which extra of mmsa brings it.

    Raises:
        SettingsError: A package is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise SettingsError(
            f"{what} needs the package {error.name}.", f"pip install 'mmsa[{extra}]'"
        ) from error


class LinkError(SettingsError):
    """What is to be written lies behind a link, or something else than a file is there."""


class DataError(MmsaError, ValueError):
    """The data cannot be read as image-text pairs with labels."""

    exit_code = 3


class BadFileError(DataError):
    """A text or a picture cannot be used.

    Args:
        reason: A few words that are the same for every file with this fault.
        message: What is wrong, and where.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CacheError(MmsaError):
    """A feature cache cannot be used."""

    exit_code = 4


class CacheNotFoundError(CacheError, FileNotFoundError):
    """There is no cache where one was expected."""


class StaleCacheError(CacheError):
    """A cache exists, but for other settings or other data."""


class DamagedCacheError(CacheError):
    """A file of the cache differs from what was sealed."""


class ForbiddenCacheError(CacheError):
    """A file of the cache that this user may not read, which says nothing of the file."""

    def __init__(self, path: Path) -> None:
        hint = "Change its permissions, or run as its owner."
        super().__init__(f"{path} cannot be read: Permission denied.", hint)


class ModelError(MmsaError):
    """An encoder, a run or a checkpoint cannot be loaded."""

    exit_code = 4


class DeviceError(MmsaError):
    """The device is missing or out of memory."""

    exit_code = 5


class DiskError(DeviceError, OSError):
    """Something cannot be written: the disk is full, failing or read-only."""


class LostLockError(DiskError):
    """A lock is not held any more, so what it guards was not changed."""


_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}


def error_reason(error: BaseException) -> str:
    """What the system or a library says of an error."""
    return str(getattr(error, "strerror", None) or error)


def is_exhausted(error: BaseException) -> bool:
    """Whether a limit of the system gave the error, be it of memory, files or maps."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in _EXHAUSTED
    )


def limit_error(path: Path, reason: str) -> DeviceError:
    """A limit of the system, which says nothing of the file."""
    return DeviceError(
        f"{path} cannot be opened now: {reason}.",
        "Nothing is damaged. Raise the limit (ulimit -n for files, ulimit -v and vm.max_map_count "
        "for maps), or close other programs.",
    )
