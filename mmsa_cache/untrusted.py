"""Files of anybody, read with a limit. Nothing else reads files."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from safetensors import safe_open

_MAX_HEADER = 16 << 20
"""Bytes; the library takes 100 MB, of which it makes gigabytes."""


def open_plain(path: Path, *, links: bool = True) -> BufferedReader:
    """Opens a regular file for reading: no pipe that never ends, no device.

    Args:
        path: The file.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise ValueError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path, limit: int, *, links: bool = True) -> bytes:
    """Reads a regular file that is no larger than stated.

    Args:
        path: The file.
        limit: Most bytes.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened or read.
        ValueError: It is no such file.
    """
    with open_plain(path, links=links) as file:
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
    with open_plain(path) as file:
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
    with open_plain(path, links=links) as file:
        header = int.from_bytes(file.read(8), "little")
        if header > _MAX_HEADER:
            raise ValueError(f"its header has {header} bytes")
        # By its descriptor: what has been looked at is what is opened.
        with safe_open(f"/dev/fd/{file.fileno()}", "pt") as tensors:
            yield tensors


def parse_json(data: bytes | str) -> Any:
    """JSON from anywhere, without numbers that are infinite or none.

    Raises:
        ValueError: It is none.
    """
    try:
        return json.loads(data, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(number: str) -> float:
    found = float(number)
    if not math.isfinite(found):
        raise ValueError(f"{number[:20]} is no finite number")
    return found
