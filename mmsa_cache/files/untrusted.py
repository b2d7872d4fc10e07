"""Files of anybody, read with a limit. Nothing else reads files."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
import threading
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from safetensors import safe_open

from mmsa_cache.json_value import Json

from .paths import os_flags

_OPEN = Path("/dev/fd")
"""Where open files have names: not on Windows."""
_READS = threading.Lock()
_MAX_HEADER = 16 << 20
"""Bytes; the library takes 100 MB, of which it makes gigabytes."""


def open_regular(path: Path, *, links: bool = True) -> BufferedReader:
    """Opens a regular file for reading: no pipe that never ends, no device.

    Args:
        path: The file.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file.
    """
    how = os.O_RDONLY | os_flags("O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
    if not links and not os_flags("O_NOFOLLOW") and path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    descriptor = os.open(path, how if links else how | os_flags("O_NOFOLLOW"))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise ValueError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def descriptor_path(file: BufferedReader, path: Path) -> str:
    """What a library opens, to read an open file: by its descriptor, where that has a name.

    What has been looked at is what is opened then.
    """
    return str(_OPEN / str(file.fileno()) if _OPEN.exists() else path)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """`os.pread`, which Windows lacks."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _READS:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def read_regular(path: Path, limit: int, *, links: bool = True) -> bytes:
    """Reads a regular file that is no larger than stated.

    Args:
        path: The file.
        limit: Most bytes.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened or read.
        ValueError: It is no such file.
    """
    with open_regular(path, links=links) as file:
        # A read makes room for all that it is asked for, whatever there is.
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= limit else b""
    if max(size, len(data)) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return data


def read_part(path: Path, offset: int, count: int) -> bytes:
    """Bytes of a regular file, as many as there are up to a count.

    Raises:
        OSError: It cannot be opened or read.
        ValueError: It is no regular file.
    """
    with open_regular(path) as file:
        file.seek(offset)
        return file.read(count)


@contextlib.contextmanager
def open_tensors(path: Path, *, links: bool = True) -> Iterator[Any]:
    """Opens a safetensors file; a tensor is mapped when it is asked for.

    Args:
        path: The file.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file, or its header is too long.
        SafetensorError: It is no such file.
    """
    with open_regular(path, links=links) as file:
        header = int.from_bytes(file.read(8), "little")
        if header > _MAX_HEADER:
            raise ValueError(f"its header has {header} bytes")
        with safe_open(descriptor_path(file, path), "pt") as tensors:
            yield tensors


def parse_json(data: bytes | str) -> Json:
    """JSON from anywhere, without numbers that are infinite or none.

    Raises:
        ValueError: It is none.
    """
    try:
        found: Json = json.loads(data, parse_float=_finite, parse_constant=_finite)
        return found
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(number: str) -> float:
    found = float(number)
    if not math.isfinite(found):
        raise ValueError(f"{number[:20]} is no finite number")
    return found
