"""Writes files atomically, and reads untrusted ones.

The store changes files only through the steps of a `Disk`; tests pass disks that fail, or end the
process, at any of them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import DiskError

TEMPORARY = ".tmp-"
"""Start of the names of unfinished files."""
CLOCK_TICK = 0.05
"""Seconds in which two writes may get the same time from the system's clock."""
_PIECE = 8 << 20
"""Bytes of one write."""
_OLD = 24 * 3600.0
"""Seconds after which a temporary file of another machine is left over."""
_LIFE = os.urandom(4).hex()
"""Tells this process from earlier ones of the same number."""
_count = itertools.count()


class Disk:
    """The steps that everything written is made of."""

    def create(self, path: Path) -> int:
        """A new file's descriptor; an existing file or a link is never written to."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def append(self, path: Path, size: int) -> int:
        """The descriptor of a file that is written to from its first ``size`` bytes on.

        What lies behind them, an unfinished line, is cut off.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            os.ftruncate(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def cut(self, descriptor: int, size: int) -> None:
        """Takes back what was written behind the first ``size`` bytes, if possible."""
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Writes some of the data; how many bytes."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Returns when a file or a folder is on the medium."""
        os.fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Gives a file another name, in place of what has that name."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Removes a file, or a link itself."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Makes a folder in one that exists."""
        path.mkdir(exist_ok=True)


DISK = Disk()


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Names the file that could not be written when a step fails.

    Raises:
        DiskError: A step failed.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(
            f"{place} cannot be written: {error.strerror or error}.",
            "Nothing partial was published. Repair the disk or free space; the same command "
            "resumes.",
        ) from error


def write_new(path: Path, content: bytes | memoryview, disk: Disk = DISK) -> None:
    """Writes a file that does not exist and waits until it is on the medium; removes a failed one.

    Raises:
        OSError: A step failed.
    """
    descriptor = disk.create(path)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[disk.write(descriptor, rest[:_PIECE]) :]
            disk.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        discard(path, disk)
        raise


def discard(path: Path, disk: Disk = DISK) -> None:
    """Removes an unfinished file, if possible."""
    with contextlib.suppress(OSError):
        disk.remove(path)


def sync(path: Path, disk: Disk = DISK) -> None:
    """Waits until a file's content, or the names in a folder, are on the medium."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        disk.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(path: Path, disk: Disk = DISK) -> None:
    """Makes a folder and those above it, durably."""
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    for folder in reversed(missing):
        disk.make_folder(folder)
        sync(folder.parent, disk)


def write_atomically(path: Path, content: bytes | memoryview, disk: Disk = DISK) -> None:
    """Replaces a file atomically.

    Raises:
        DiskError: It stays as it was.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{own_mark()}.{next(_count)}")
    with writing(path):
        for left in path.parent.glob(f"{TEMPORARY}{glob_escaped(path.name)}.*"):
            if is_left(left.name.removeprefix(f"{TEMPORARY}{path.name}.")):
                discard(left, disk)
        write_new(temporary, content, disk)
        try:
            disk.rename(temporary, path)
        except BaseException:
            discard(temporary, disk)
            raise
        sync(path.parent, disk)


def glob_escaped(name: str) -> str:
    """A pattern that only this name fits."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def own_mark() -> str:
    """``MACHINE-PROCESS-LIFE``, for names of temporary files of this process."""
    return f"{platform.node()}-{os.getpid()}-{_LIFE}"


def is_left(mark: str) -> bool:
    """Whether a mark (up to a dot) names an ended process of this machine."""
    own = mark.removeprefix(f"{platform.node()}-").partition(".")[0]
    number, _, life = own.partition("-")
    if not mark.startswith(f"{platform.node()}-") or not number.isdecimal():
        return False
    if int(number) == os.getpid():  # in a container every run may have the same number
        return life != _LIFE
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def is_left_over(path: Path) -> bool:
    """Whether a temporary file belongs to no process any more: none of this machine, or too old."""
    mark = re.search(rf"\.({re.escape(platform.node())}-\d+-\w+)\.\d+$", path.name)
    if mark is not None:
        return is_left(mark[1])
    try:
        return time.time() - path.lstat().st_mtime > _OLD
    except OSError:
        return False


def read_plain(path: Path, limit: int, *, links: bool = True) -> bytes:
    """Reads a regular file: no pipe that never ends, no device, nothing larger than stated.

    Args:
        path: The file.
        limit: Most bytes.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened or read.
        ValueError: It is no such file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        # A read makes room for all that it is asked for, whatever there is.
        data = file.read(min(found.st_size, limit) + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return data


def parse_json(data: bytes | str) -> Any:
    """JSON from anywhere.

    Raises:
        ValueError: It is none.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
