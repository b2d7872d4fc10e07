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
            └── LostLockError             another process took a lock on a network disk

The message says what is wrong and where, ``hint`` what to do about it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .json_value import JsonObject

MOST_SHOWN = 50
"""Most findings that a message lists; the rest are counted."""
_LONGEST = 2000
"""Most characters shown of one finding."""


class MmsaError(Exception):
    """Base of the tree.

    Args:
        message: What is wrong, and where.
        hint: What the user can do about it.
        problems: Findings, where several were collected.
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
            most: Most findings to show; a single further one is shown too.
            rest: Where to find all of them, added if some are left out.
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
    """A finding on one line, cut: files that it quotes may hold long lines or forged messages."""
    line = text.replace("\n", "\\n")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


class SettingsError(MmsaError, ValueError):
    """A setting is unknown, malformed or contradicts another one."""

    exit_code = 2


@contextmanager
def require_extra(what: str, extra: str) -> Iterator[None]:
    """Explains failing imports: what needs the package, and which extra of mmsa installs it.

    Args:
        what: What needs the package, as the beginning of a sentence.
        extra: Extra of mmsa.

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
    """The target of a write is a link, lies behind one, or is no regular file."""


class DataError(MmsaError, ValueError):
    """The data cannot be read as image-text pairs with labels."""

    exit_code = 3


class BadFileError(DataError):
    """A text or a picture cannot be used.

    Args:
        reason: A few words, equal for all files with this fault.
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
    """This user may not read a file of the cache; the file itself may be undamaged."""

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
    """A lock was lost; what it guards was not changed."""


_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}


def error_reason(error: BaseException) -> str:
    """The message of the system or of a library."""
    return str(getattr(error, "strerror", None) or error)


def is_exhausted(error: BaseException) -> bool:
    """Whether the system ran out of memory, open files or memory maps."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in _EXHAUSTED
    )


def limit_error(path: Path, reason: str) -> DeviceError:
    """The error of `is_exhausted`: the file itself may be undamaged."""
    return DeviceError(
        f"{path} cannot be opened now: {reason}.",
        "Nothing is damaged. Raise the limit (ulimit -n for files, ulimit -v and vm.max_map_count "
        "for maps), or close other programs.",
    )
