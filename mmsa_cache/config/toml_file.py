"""TOML files, read with a limit."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from mmsa_cache.untrusted import read_plain

_MAX_BYTES = 1 << 20


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no TOML, or too large or too deep for anything that a person wrote.
    """
    try:
        return tomllib.loads(read_plain(path, _MAX_BYTES).decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
