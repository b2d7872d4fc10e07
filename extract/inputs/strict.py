"""Pillow's warnings as errors, for several threads at once."""

from __future__ import annotations

import threading
import warnings


class Strict:
    """Makes Pillow's warnings errors while any thread is inside.

    ``warnings.catch_warnings`` alone is for one thread: where two overlap, the one that leaves last
    puts back what it found, which are the other one's filters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("error", module=r"PIL\b")

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


STRICT = Strict()
