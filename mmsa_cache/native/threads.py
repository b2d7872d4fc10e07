"""Threads that torch computes with."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch


def one_thread() -> None:
    """Makes the calling thread compute alone; for threads and processes that share the cores."""
    torch.set_num_threads(1)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Computes with so many threads while inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_TURN = 2e-4
"""Seconds."""


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """Threads of this process that want Python's lock get it soon while inside.

    A thread that launches kernels gives the lock away at each of a batch's hundreds of operations.
    Beside a thread that computes in Python it would wait 5 ms each time to have it back.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
