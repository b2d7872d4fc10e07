"""Reads untrusted files with a size limit. All files are read through this module."""

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
"""Folder with a name for each open descriptor; missing on Windows."""
_READS = threading.Lock()
_MAX_HEADER = 16 << 20
"""Most bytes; safetensors accepts 100 MB, from which it builds gigabytes."""


def open_regular(path: Path, *, links: bool = True) -> BufferedReader:
    """Opens a regular file for reading, and refuses pipes and devices.

    Args:
        path: The file.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file.
    """
    mode = os.O_RDONLY | os_flags("O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
    if not links and not os_flags("O_NOFOLLOW") and path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    descriptor = os.open(path, mode if links else mode | os_flags("O_NOFOLLOW"))
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise ValueError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def descriptor_path(file: BufferedReader, path: Path) -> str:
    """A name by which a library can open an open file.

    It names the descriptor where possible, so that the checked file is the one that is read.
    """
    return str(_OPEN / str(file.fileno()) if _OPEN.exists() else path)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """`os.pread`, also on Windows."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _READS:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def read_regular(path: Path, limit: int, *, links: bool = True) -> bytes:
    """Reads a regular file of limited size.

    Args:
        path: The file.
        limit: Most bytes.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened or read.
        ValueError: It is no regular file, or too large.
    """
    with open_regular(path, links=links) as file:
        # A read allocates all the bytes that it asks for.
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= limit else b""
    if max(size, len(data)) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return data


def read_part(path: Path, offset: int, count: int) -> bytes:
    """Reads up to ``count`` bytes of a regular file.

    Raises:
        OSError: It cannot be opened or read.
        ValueError: It is no regular file.
    """
    with open_regular(path) as file:
        file.seek(offset)
        return file.read(count)


@contextlib.contextmanager
def open_tensors(path: Path, *, links: bool = True) -> Iterator[Any]:
    """Opens a safetensors file; tensors are mapped at their first use.

    Args:
        path: The file.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file, or its header is too long.
        SafetensorError: It is no safetensors file.
    """
    with open_regular(path, links=links) as file:
        header = int.from_bytes(file.read(8), "little")
        if header > _MAX_HEADER:
            raise ValueError(f"its header has {header} bytes")
        with safe_open(descriptor_path(file, path), "pt") as tensors:
            yield tensors


def parse_json(data: bytes | str) -> Json:
    """Parses untrusted JSON; infinite numbers and NaN are refused.

    Raises:
        ValueError: It is invalid.
    """
    try:
        value: Json = json.loads(data, parse_float=_finite, parse_constant=_finite)
        return value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is no finite number")
    return value
