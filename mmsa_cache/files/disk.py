"""Writes files atomically and never through links.

Files are changed only through the methods of a `Disk`; tests pass disks that fail, or end the
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
"""Seconds within which two writes may get the same modification time."""
_WRITE = os.O_WRONLY | os_flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
_PIECE = 8 << 20
"""Most bytes of one write."""
_count = itertools.count()


class Disk:
    """The operations that change files and folders."""

    def create(self, path: Path) -> int:
        """Creates a file and returns its descriptor; fails if there is a file or a link."""
        with open_parent(path) as (folder, name):
            return os.open(name, _WRITE | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)

    def append(self, path: Path, size: int | None = None) -> int:
        """Opens a regular file for appending, and returns its descriptor.

        Args:
            path: The file; created if it is missing and ``size`` is None.
            size: Truncates the file to this size first, to remove an unfinished line.
        """
        with open_parent(path) as (folder, name):
            try:
                mode = _WRITE | os.O_APPEND | (os.O_CREAT if size is None else 0)
                descriptor = os.open(name, mode, 0o666, dir_fd=folder)
            except OSError:
                check_target(path)
                raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                check_target(path)
            if size is not None:
                os.ftruncate(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def truncate(self, descriptor: int, size: int) -> None:
        """Truncates a file to ``size`` bytes, if possible."""
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Writes some of the data and returns the number of bytes."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Waits until a file or a folder is on the medium."""
        os.fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Renames a file or folder, replacing a file of the new name."""
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
        """Makes a folder in an existing one.

        Args:
            path: The folder.
            fresh: Whether it must not exist yet.
            mode: Permissions of a new folder, before the user's mask.
        """
        with open_parent(path) as (folder, name):
            try:
                os.mkdir(name, mode, dir_fd=folder)
            except FileExistsError:
                refuse_link(path)
                if fresh or not path.is_dir():
                    raise


class UnsyncedDisk(Disk):
    """Does not wait for the medium; for files that can be made again after a loss of power."""

    def fsync(self, descriptor: int) -> None:
        """Returns at once."""


DISK, UNSYNCED_DISK = Disk(), UnsyncedDisk()


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turns errors of the system into a `DiskError` that names the file.

    Raises:
        DiskError: An operation inside the block failed.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Nothing partial was published. Repair the disk, free space or change the permissions; "
            "the same command resumes.",
        ) from error


def write_new(
    path: Path, content: bytes | memoryview | list[memoryview], disk: Disk = DISK
) -> None:
    """Writes a new file and waits until it is on the medium; an incomplete one is removed.

    Args:
        path: The file, which must not exist.
        content: Its bytes, whole or in pieces.
        disk: Performs the writes.

    Raises:
        OSError: A write failed.
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
    """Opens a new file for writing, without waiting for the medium.

    The file is removed if the block fails.

    Raises:
        OSError: A write failed.
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
        return  # not needed on Windows
    # Windows flushes only files that are open for writing.
    mode = (os.O_RDONLY if OPENS_FOLDERS else os.O_RDWR) | os_flags("O_NOFOLLOW", "O_NONBLOCK")
    descriptor = os.open(path, mode)
    try:
        disk.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(path: Path, disk: Disk = DISK) -> None:
    """Makes a folder and its parents, and waits until they are on the medium."""
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    for folder in reversed(missing):
        disk.make_folder(folder)
        sync(folder.parent, disk)
    check_target(path, folder=True)


def remove_tree(path: Path) -> None:
    """Removes a folder and its content, if possible; links are removed, not followed."""
    with contextlib.suppress(OSError), open_parent(path) as (folder, name):
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


def append_line(path: Path, line: str) -> None:
    """Appends a line in one write, so that lines of several processes do not mix.

    An unfinished line of a killed process is ended first.
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
    """Makes a file's modification time later than that of others, even if the clock was ahead."""
    with open_parent(path) as (folder, name):
        newest = 0
        for other in others:
            with contextlib.suppress(OSError):  # it was removed meanwhile
                newest = max(newest, other.stat().st_mtime_ns)
        if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns <= newest:
            later = newest + 1_000_000  # ns; the resolution of file systems
            os.utime(name, ns=(later, later), dir_fd=folder, follow_symlinks=False)


def copy_new(source: Path, target: Path, limit: int) -> None:
    """Copies a regular file to a new one.

    Raises:
        OSError: A read or write failed, or the source is a link.
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
    """Makes a hard link under a new name, or a copy where the file system has no links.

    Raises:
        OSError: The link or the copy failed.
        ValueError: The file is no regular file.
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
    """Replaces a file atomically, or makes it.

    Raises:
        DiskError: A write failed; the file is unchanged.
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
