"""Everything that is written: over no link, whole or not at all.

Files are changed only through the steps of a `Disk`; tests pass disks that fail, or end the
process, at any of them. `tests.lint` refuses other calls that open files for writing, move or
remove them.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mmsa_cache.errors import DiskError

from .abandoned import TEMPORARY, is_abandoned, process_mark
from .paths import OPENS_FOLDERS, check_target, open_parent, os_flags, refuse_link
from .untrusted import open_regular

CLOCK_TICK = 0.05
"""Seconds in which two writes may get the same time from the system's clock."""
_WRITE = os.O_WRONLY | os_flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
_PIECE = 8 << 20
"""Bytes of one write."""
_count = itertools.count()


class Disk:
    """The steps that everything written is made of."""

    def create(self, path: Path) -> int:
        """A new file's descriptor; an existing file or a link is never written to."""
        with open_parent(path) as (folder, name):
            return os.open(name, _WRITE | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)

    def append(self, path: Path, size: int | None = None) -> int:
        """The descriptor of a regular file that is written to at its end; made if it is missing.

        Args:
            path: The file.
            size: Its bytes that count: what lies behind them, an unfinished line, is cut off. The
                file must be there then.
        """
        with open_parent(path) as (folder, name):
            try:
                how = _WRITE | os.O_APPEND | (os.O_CREAT if size is None else 0)
                descriptor = os.open(name, how, 0o666, dir_fd=folder)
            except OSError:
                check_target(path)
                raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                check_target(path)
            if size is not None:
                os.ftruncate(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def truncate(self, descriptor: int, size: int) -> None:
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
        """Gives a file or folder another name, in place of what has that name."""
        with open_parent(old) as (source, name), open_parent(new) as (target, new_name):
            os.replace(name, new_name, src_dir_fd=source, dst_dir_fd=target)

    def remove(self, path: Path) -> None:
        """Removes a file, or a link itself."""
        with open_parent(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def remove_folder(self, path: Path) -> None:
        """Removes an empty folder."""
        with open_parent(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def make_folder(self, path: Path, *, fresh: bool = False, mode: int = 0o777) -> None:
        """Makes a folder in one that exists.

        Args:
            path: The folder.
            fresh: It must not be there yet.
            mode: Permissions of a new one, less those that the user's mask takes.
        """
        with open_parent(path) as (folder, name):
            try:
                os.mkdir(name, mode, dir_fd=folder)
            except FileExistsError:
                refuse_link(path)
                if fresh or not path.is_dir():
                    raise


class UnsyncedDisk(Disk):
    """Does not wait for the medium: for what is made again after a loss of power."""

    def fsync(self, descriptor: int) -> None:
        """Returns at once."""


DISK, UNSYNCED_DISK = Disk(), UnsyncedDisk()


@contextlib.contextmanager
def explain_write_errors(place: Path) -> Iterator[None]:
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
            "Nothing partial was published. Repair the disk, free space or change the permissions; "
            "the same command resumes.",
        ) from error


def write_new(
    path: Path, content: bytes | memoryview | list[memoryview], disk: Disk = DISK
) -> None:
    """Writes a file that does not exist and waits until it is on the medium; removes a failed one.

    Args:
        path: The file.
        content: Its bytes, whole or piece by piece.
        disk: What it is written to.

    Raises:
        OSError: A step failed.
    """
    descriptor = disk.create(path)
    try:
        try:
            for rest in content if isinstance(content, list) else [memoryview(content)]:
                while rest:
                    rest = rest[disk.write(descriptor, rest[:_PIECE]) :]
            disk.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        discard(path, disk)
        raise


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that does not exist, for a library that writes to an open one; removes a failed one.

    It need not be on the medium at the end.

    Raises:
        OSError: A step failed.
    """
    with os.fdopen(DISK.create(path), "wb") as file:
        try:
            yield file
        except BaseException:
            discard(path)
            raise


def discard(path: Path, disk: Disk = DISK) -> None:
    """Removes an unfinished file, if possible."""
    with contextlib.suppress(OSError):
        disk.remove(path)


def sync(path: Path, disk: Disk = DISK) -> None:
    """Waits until a file's content, or the names in a folder, are on the medium."""
    if not OPENS_FOLDERS and path.is_dir():
        return  # Windows asks for nothing of the kind
    # Windows flushes a file for whoever may write to it.
    how = (os.O_RDONLY if OPENS_FOLDERS else os.O_RDWR) | os_flags("O_NOFOLLOW", "O_NONBLOCK")
    descriptor = os.open(path, how)
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
    check_target(path, folder=True)


def remove_tree(path: Path) -> None:
    """Removes a folder and what is in it, links themselves; what cannot be removed stays."""
    with contextlib.suppress(OSError), open_parent(path) as (folder, name):
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


def append_line(path: Path, line: str) -> None:
    """Adds a line in one write, so that lines of several processes do not mix.

    What a killed process left unfinished gets a line of its own.
    """
    descriptor = DISK.append(path)
    try:
        size = os.fstat(descriptor).st_size
        with open_regular(path, links=False) as file:
            file.seek(max(0, size - 1))
            unfinished = file.read(1) not in (b"", b"\n")
        os.write(descriptor, ("\n" * unfinished + line + "\n").encode())
    finally:
        os.close(descriptor)


def touch_after(path: Path, others: Iterable[Path]) -> None:
    """Dates a file after others, of which some may be of a time when the clock was ahead."""
    with open_parent(path) as (folder, name):
        newest = 0
        for other in others:
            with contextlib.suppress(OSError):  # it was removed meanwhile
                newest = max(newest, other.stat().st_mtime_ns)
        if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns <= newest:
            later = newest + 1_000_000  # file systems keep at least so much of a second
            os.utime(name, ns=(later, later), dir_fd=folder, follow_symlinks=False)


def copy_new(source: Path, target: Path, limit: int) -> None:
    """Copies a regular file, no link, under a name that is free.

    Raises:
        OSError: A step failed, or the source is a link.
        ValueError: The source is no regular file, or too large.
    """
    with open_regular(source, links=False) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise ValueError(f"{source} is larger than {limit} bytes")
        with new_file(target) as copy:
            shutil.copyfileobj(file, copy, _PIECE)
            copy.flush()
            DISK.fsync(copy.fileno())


def link_or_copy(old: Path, new: Path) -> None:
    """The same file under another name, which is free; a copy where the disk knows no links.

    Raises:
        OSError: A step failed.
        ValueError: It is no regular file.
    """
    links: Any = {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}
    with open_parent(old) as (source, name), open_parent(new) as (target, new_name):
        try:
            os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, **links)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError:
            copy_new(old, new, old.lstat().st_size)


def write_atomically(path: Path, content: bytes | memoryview, disk: Disk = DISK) -> None:
    """Replaces a file atomically.

    Raises:
        DiskError: It stays as it was.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{process_mark()}.{next(_count)}")
    with explain_write_errors(path):
        for left in path.parent.glob(f"{TEMPORARY}{glob.escape(path.name)}.*"):
            if is_abandoned(left.name.removeprefix(f"{TEMPORARY}{path.name}.")):
                discard(left, disk)
        write_new(temporary, content, disk)
        try:
            disk.rename(temporary, path)
        except BaseException:
            discard(temporary, disk)
            raise
        sync(path.parent, disk)
