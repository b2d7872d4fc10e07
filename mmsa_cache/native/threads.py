"""Threads that torch computes with."""

from __future__ import annotations

import contextlib
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
