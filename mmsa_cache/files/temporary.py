"""Temporary folders."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .abandoned import is_abandoned, process_mark
from .disk import remove_tree
from .paths import resolve_declared

_START = "mmsa-"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A private temporary folder, removed at the end; those of killed processes are removed too."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_START}*"):
        if is_abandoned(folder.name.removeprefix(_START)):
            remove_tree(folder)
    start = f"{_START}{process_mark()}."
    with tempfile.TemporaryDirectory(prefix=start, ignore_cleanup_errors=True) as name:
        yield resolve_declared(Path(name))
