"""Where pictures are: files, and members of files that hold pictures.

A member's place is ``FILE!/MEMBER``: ``shard.tar!/a/000.jpg`` (its name) or
``train.parquet!/image/17`` (column, and row from 0). It is one only where ``FILE`` is a regular
file; a folder ``x!`` stays one.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from pathlib import Path

from mmsa_cache.errors import BadFileError
from mmsa_cache.files.untrusted import read_regular

from .containers.container import MAX_CONTAINER_BYTES, Container
from .containers.opening import SUFFIXES, open_container
from .files import EMPTY_FILE, read_inside, stat_inside

MEMBER_SEPARATOR = "!/"
"""Between a file and what it holds."""
_MOST_OPEN = 8


def member_path(file: str, member: str) -> str:
    """The place of a member of a file."""
    return f"{file}{MEMBER_SEPARATOR}{member}"


def split_member_path(path: str | Path) -> tuple[Path, str] | None:
    """File and member of a place; None for the path of a plain file."""
    whole = str(path)
    at = whole.find(MEMBER_SEPARATOR)
    while at >= 0:
        file = whole[:at]
        if file.lower().endswith(SUFFIXES) and _is_file(file):
            return Path(file), whole[at + len(MEMBER_SEPARATOR) :]
        at = whole.find(MEMBER_SEPARATOR, at + 1)
    return None


def picture_name(path: Path) -> str:
    """What messages call a picture: its file's name, or its place from the file's name on."""
    whole = str(path)
    at = whole.find(MEMBER_SEPARATOR)
    return path.name if at < 0 else whole[whole.rfind("/", 0, at) + 1 :]


def stat_picture_inside(
    base: Path, name: str, limit: int, *, follow_links: bool = False
) -> os.stat_result:
    """What the file is that a picture lies in, as `files.stat_inside`.

    Raises:
        BadFileError: As `files.stat_inside` raises.
    """
    found = _member_in(base, name)
    if found is None:
        return stat_inside(base, name, limit, follow_links=follow_links)
    return stat_inside(base, found[0], MAX_CONTAINER_BYTES, follow_links=follow_links)


def read_picture_inside(base: Path, name: str, limit: int, *, follow_links: bool = False) -> bytes:
    """Reads a picture that must be inside ``base``, as `files.read_inside`.

    Raises:
        BadFileError: As `files.read_inside` raises; or a file that holds pictures is damaged.
    """
    found = _member_in(base, name)
    if found is None:
        return read_inside(base, name, limit, follow_links=follow_links)
    stat_inside(base, found[0], MAX_CONTAINER_BYTES, follow_links=follow_links)
    try:
        data = _OPEN.picture(base / found[0], found[1], limit)
    except BadFileError as error:
        raise BadFileError(error.reason, f"{name}: {error.message}") from error
    except (OSError, ValueError) as error:
        raise BadFileError("unreadable", f"{name}: {error}") from error
    if not data:
        raise BadFileError(EMPTY_FILE, f"{name}: empty file")
    return data


def read_picture(path: Path, limit: int) -> bytes:
    """Reads a picture whose place has been checked.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file, too large, or not there.
    """
    found = split_member_path(path) if MEMBER_SEPARATOR in str(path) else None
    return read_regular(path, limit) if found is None else _OPEN.picture(*found, limit)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 (cheaper than what Path does)
    except (OSError, ValueError):
        return False


def _member_in(base: Path, name: str) -> tuple[str, str] | None:
    """File, relative to ``base``, and member."""
    found = split_member_path(f"{base}/{name}") if MEMBER_SEPARATOR in name else None
    return None if found is None else (name[: -len(MEMBER_SEPARATOR + found[1])], found[1])


class _OpenContainers:
    """The files used last stay open, a few of them; one that changes is opened anew."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[object, ...], Container] = OrderedDict()
        self._lock = threading.Lock()

    def picture(self, path: Path, member: str, limit: int) -> bytes:
        found = path.stat()
        key = (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, os.getpid())
        with self._lock:
            container = self._open.pop(key, None) or open_container(path)
            self._open[key] = container
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return container.picture(member, limit)


_OPEN = _OpenContainers()
