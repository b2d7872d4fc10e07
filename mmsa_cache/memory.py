"""Memory that is not used any more."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def release() -> None:
    """Gives memory that nothing refers to back to the system."""
    gc.collect()
    trim()


def trim() -> None:
    """Gives freed memory back to the system.

    glibc keeps it for later, here some hundred megabytes a process; other C libraries have no such
    call and need none.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
