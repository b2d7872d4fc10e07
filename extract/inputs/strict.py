"""Pillow's warnings as errors, for several threads at once; those of its metadata are collected."""

from __future__ import annotations

import threading
import warnings
from pathlib import PurePath
from typing import Any

_OF_METADATA = ("TiffImagePlugin", "JpegImagePlugin")
"""Modules whose warnings are about EXIF, tags and indices of further pictures, never pixels."""


class Strict:
    """Makes Pillow's warnings errors in the threads that are inside.

    ``with STRICT as odd:`` gives the list that warnings about metadata go to.
    ``warnings.catch_warnings`` alone is for one thread: where two overlap, the one that leaves last
    puts back what it found, which are the other one's filters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()
        self._elsewhere = warnings.showwarning
        self._own = threading.local()

    def __enter__(self) -> list[str]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("always", module=r"PIL\b")
                self._elsewhere, warnings.showwarning = warnings.showwarning, self._hear
        odd: list[str] = []
        self._own.odd = odd
        return odd

    def __exit__(self, *raised: object) -> None:
        self._own.odd = None
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)

    def _hear(
        self, message: Any, category: type[Warning], filename: str, *where: Any, **more: Any
    ) -> None:
        path, odd = PurePath(filename), getattr(self._own, "odd", None)
        if odd is None or path.parent.name != "PIL":
            self._elsewhere(message, category, filename, *where, **more)
        elif path.stem in _OF_METADATA:
            odd.append(str(message))
        else:
            raise message


STRICT = Strict()
