"""Paths of pictures: plain files, and members of files that hold pictures.

The path of a member is ``FILE!/MEMBER``: ``shard.tar!/a/000.jpg`` (its name) or
``train.parquet!/image/17`` (column, and row from 0). ``FILE`` must be a regular file: a folder
``x!`` is just a folder.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from mmsa_cache.errors import BadFileError
from mmsa_cache.files.untrusted import read_regular

from .containers.arrow import ArrowPictures
from .containers.container import MAX_CONTAINER_BYTES, Container
from .containers.parquet import ParquetPictures
from .containers.tar import TarPictures
from .files import EMPTY_FILE, read_inside, stat_inside

MEMBER_SEPARATOR = "!/"
"""Separates a file and its member."""
_MOST_OPEN = 8
_CONTAINER_TYPES: Mapping[str, Callable[[Path], Container]] = {
    ".parquet": ParquetPictures,
    ".arrow": ArrowPictures,
    ".tar": TarPictures,
}
CONTAINER_SUFFIXES = tuple(_CONTAINER_TYPES)
"""Suffixes of files that hold pictures."""


def member_path(file: str, member: str) -> str:
    """The path of a file's member."""
    return f"{file}{MEMBER_SEPARATOR}{member}"


def split_member_path(path: str | Path) -> tuple[Path, str] | None:
    """Splits a member's path into file and member; None for the path of a plain file."""
    text = str(path)
    index = text.find(MEMBER_SEPARATOR)
    while index >= 0:
        file = text[:index]
        if file.lower().endswith(CONTAINER_SUFFIXES) and _is_file(file):
            return Path(file), text[index + len(MEMBER_SEPARATOR) :]
        index = text.find(MEMBER_SEPARATOR, index + 1)
    return None


def picture_name(path: Path) -> str:
    """Name of a picture in messages: its file name, or ``FILE!/MEMBER`` without folders."""
    text = str(path)
    index = text.find(MEMBER_SEPARATOR)
    return path.name if index < 0 else text[text.rfind("/", 0, index) + 1 :]


def stat_picture_inside(
    base: Path, name: str, limit: int, *, follow_links: bool = False
) -> os.stat_result:
    """`files.stat_inside` of a picture, or of the file that it is a member of.

    Raises:
        BadFileError: As `files.stat_inside` raises.
    """
    member = _member_in(base, name)
    if member is None:
        return stat_inside(base, name, limit, follow_links=follow_links)
    return stat_inside(base, member[0], MAX_CONTAINER_BYTES, follow_links=follow_links)


def read_picture_inside(base: Path, name: str, limit: int, *, follow_links: bool = False) -> bytes:
    """`files.read_inside` of a picture, which may be a member of a file.

    Raises:
        BadFileError: As `files.read_inside` raises, or the file that holds it is damaged.
    """
    member = _member_in(base, name)
    if member is None:
        return read_inside(base, name, limit, follow_links=follow_links)
    stat_inside(base, member[0], MAX_CONTAINER_BYTES, follow_links=follow_links)
    try:
        data = _CONTAINERS.picture(base / member[0], member[1], limit)
    except BadFileError as error:
        raise BadFileError(error.reason, f"{name}: {error.message}") from error
    except (OSError, ValueError) as error:
        raise BadFileError("unreadable", f"{name}: {error}") from error
    if not data:
        raise BadFileError(EMPTY_FILE, f"{name}: empty file")
    return data


def read_picture(path: Path, limit: int) -> bytes:
    """Reads a picture whose path has been checked.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too large, missing in its file, or not in a regular file.
    """
    member = split_member_path(path) if MEMBER_SEPARATOR in str(path) else None
    return read_regular(path, limit) if member is None else _CONTAINERS.picture(*member, limit)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 (cheaper than what Path does)
    except (OSError, ValueError):
        return False


def _member_in(base: Path, name: str) -> tuple[str, str] | None:
    """File, relative to ``base``, and member; None for a plain file."""
    member = split_member_path(f"{base}/{name}") if MEMBER_SEPARATOR in name else None
    return None if member is None else (name[: -len(MEMBER_SEPARATOR + member[1])], member[1])


class _ContainerCache:
    """Keeps the files that were used last open; opens a changed file anew."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[object, ...], Container] = OrderedDict()
        self._lock = threading.Lock()

    def picture(self, path: Path, member: str, limit: int) -> bytes:
        status = path.stat()
        key = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, os.getpid())
        with self._lock:
            container = self._open.pop(key, None) or _CONTAINER_TYPES[path.suffix.lower()](path)
            self._open[key] = container
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return container.picture(member, limit)


_CONTAINERS = _ContainerCache()
