"""Control over the memory that the C library keeps."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmsa_cache.files.untrusted import open_regular

# Of glibc's <malloc.h>, parameters of mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_INSIDE = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
_AFTER = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))
"""What glibc itself starts with, and what its thresholds have grown to once blocks were large."""


def release_memory() -> None:
    """Collects garbage and returns freed memory to the system."""
    gc.collect()
    trim_heap()


def trim_heap() -> None:
    """Returns freed memory to the system.

    glibc would keep it, some hundred megabytes a process; other C libraries need no such call.
    """
    _glibc("malloc_trim", 0)


def use_one_heap() -> None:
    """Makes all threads that start later allocate from one heap.

    By default, glibc gives each thread its own heap, whose freed memory other threads cannot use.
    """
    _glibc("mallopt", _ARENA_MAX, 1)


@contextlib.contextmanager
def reuse_blocks() -> Iterator[None]:
    """Reuses freed memory inside the block and returns it to the system at the end.

    By default, glibc returns blocks of many megabytes at once, and the system has to clear them
    again for the next batch. Threads share the heap, see `use_one_heap`. Other C libraries
    are left as they are.
    """
    use_one_heap()
    for option in _INSIDE:
        _glibc("mallopt", *option)
    try:
        yield
    finally:
        keep_blocks()
        trim_heap()


def keep_blocks() -> None:
    """Keeps up to 64 MiB of freed memory for later; more is returned to the system."""
    for option in _AFTER:
        _glibc("mallopt", *option)


def return_blocks() -> None:
    """Returns blocks of 8 MiB or more to the system as soon as they are freed.

    By default, glibc takes them from its heap once such a block was freed. A process that computes
    with matrices of many sizes then keeps hundreds of megabytes between those that it still uses.
    """
    _glibc("mallopt", _MMAP_THRESHOLD, 8 << 20)


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    with contextlib.suppress(OSError), open_regular(Path("/proc/self/status")) as file:
        (line,) = (x for x in file.read(1 << 16).splitlines() if x.startswith(b"VmHWM:"))
        return int(line.split()[1]) << 10
    try:  # may be of the process that started this one
        import resource
    except ImportError:  # on Windows
        import psutil

        taken = psutil.Process().memory_info()
        return int(getattr(taken, "peak_wset", taken.rss))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _glibc(name: str, *values: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        call: Any = getattr(ctypes.CDLL(None), name)
        call(*values)
