"""TOML files, read with a limit."""

from __future__ import annotations

import tomllib
from pathlib import Path

from mmsa_cache.files.untrusted import read_regular

_MAX_BYTES = 1 << 20
_MAX_DOTS = 100
"""Most dots of a line: parsing time grows with the square of a key's parts."""


def read_toml(path: Path) -> dict[str, object]:
    """Reads a TOML file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no TOML, too large or nested too deeply.
    """
    text = read_regular(path, _MAX_BYTES).decode()
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > _MAX_DOTS:
            raise ValueError(
                f"line {number} holds more than {_MAX_DOTS} dots; write it as several lines"
            )
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
