"""Files of anybody, read with a limit. Nothing else reads files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO


def open_plain(path: Path, *, links: bool = True) -> BinaryIO:
    """Opens a regular file for reading: no pipe that never ends, no device.

    Args:
        path: The file.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("it is no regular file")
    return file


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
        data = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return data


def parse_json(data: bytes | str) -> Any:
    """JSON from anywhere, without numbers that are infinite or none.

    Raises:
        ValueError: It is none.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
