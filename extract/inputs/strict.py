"""Pillow's warnings as errors in several threads at once; those about metadata are collected."""

from __future__ import annotations

import threading
import warnings
from pathlib import PurePath
from typing import Any

_METADATA_MODULES = ("TiffImagePlugin", "JpegImagePlugin")
"""Modules that warn of EXIF, tags and indices of further pictures, never of pixels."""


class Strict:
    """Turns Pillow's warnings into errors in the threads that are inside.

    ``with STRICT as metadata_warnings:`` gives the list that warnings about metadata are added to.
    ``warnings.catch_warnings`` alone serves one thread: where two overlap, the last one to leave
    restores the filters of the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads_inside = 0
        self._filters = warnings.catch_warnings()
        self._show_warning = warnings.showwarning
        self._thread = threading.local()

    def __enter__(self) -> list[str]:
        with self._lock:
            self._threads_inside += 1
            if self._threads_inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("always", module=r"PIL\b")
                self._show_warning, warnings.showwarning = warnings.showwarning, self._handle
        metadata_warnings: list[str] = []
        self._thread.metadata_warnings = metadata_warnings
        return metadata_warnings

    def __exit__(self, *raised: object) -> None:
        self._thread.metadata_warnings = None
        with self._lock:
            self._threads_inside -= 1
            if not self._threads_inside:
                self._filters.__exit__(None, None, None)

    def _handle(
        self, message: Any, category: type[Warning], filename: str, *where: Any, **more: Any
    ) -> None:
        """Handles a warning; the arguments are those of `warnings.showwarning`."""
        path = PurePath(filename)
        metadata_warnings = getattr(self._thread, "metadata_warnings", None)
        if metadata_warnings is None or path.parent.name != "PIL":
            self._show_warning(message, category, filename, *where, **more)
        elif path.stem in _METADATA_MODULES:
            metadata_warnings.append(str(message))
        else:
            raise message


STRICT = Strict()
