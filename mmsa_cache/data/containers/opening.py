"""Opens files that hold pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from .arrow import ArrowPictures
from .container import Container
from .parquet import ParquetPictures
from .tar import TarPictures

_KINDS: Mapping[str, Callable[[Path], Container]] = {
    ".parquet": ParquetPictures,
    ".arrow": ArrowPictures,
    ".tar": TarPictures,
}
SUFFIXES = tuple(_KINDS)
"""Suffixes of files that hold pictures."""


def open_container(path: Path) -> Container:
    """Opens a file whose suffix is one of `SUFFIXES`.

    Raises:
        OSError: It cannot be opened.
        ValueError: Its content is of another format.
    """
    return _KINDS[path.suffix.lower()](path)
