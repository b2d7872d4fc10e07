"""Folders among the system's temporary ones."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .disk import remove_tree
from .leftover import is_left, own_mark
from .paths import declared

_START = "mmsa-"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this user alone; it goes at the end, and so do those of killed processes."""
    for left in Path(tempfile.gettempdir()).glob(f"{_START}*"):
        if is_left(left.name.removeprefix(_START)):
            remove_tree(left)
    start = f"{_START}{own_mark()}."
    with tempfile.TemporaryDirectory(prefix=start, ignore_cleanup_errors=True) as name:
        yield declared(Path(name))
