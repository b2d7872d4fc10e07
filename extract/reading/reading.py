"""Reading of windows: their rows in pieces, each by whichever thread is free."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from extract.encoders.protocol import Encoder
from extract.plan import PreparedRows, Reader, Row, read_rows
from mmsa_cache.native.processes import can_fork, prepare_forks
from mmsa_cache.native.threads import one_thread

from .process import InputPipeline
from .processes import PRELOAD, ReadingProcesses, RegisteredPipeline

_PIECE = 8
"""Rows that are read at a time: of 12-megapixel pictures they take a third of a second."""
_MANY_ROWS = 2048
"""From which on processes are worth their start."""
_FEW_CORES = 4
"""Below which threads do not wait for each other long."""
_BESIDE = 2
"""Cores that are left to the threads that launch and seal."""


def should_use_processes(device: torch.device, rows: int, readers: int) -> bool:
    """Whether processes read.

    Args:
        device: Where models run; on the CPU readers take their time from them, however they read.
        rows: That are missing.
        readers: Cores.
    """
    return device.type != "cpu" and rows >= _MANY_ROWS and readers >= _FEW_CORES and can_fork()


def preload_processes(device: torch.device, rows: int, readers: int) -> None:
    """Begins what processes that read would have to wait for; waits for nothing.

    Args:
        device: Where models run.
        rows: That are missing.
        readers: Cores.
    """
    if should_use_processes(device, rows, readers):
        with contextlib.suppress(OSError):  # threads read then
            prepare_forks(PRELOAD)


class ReadingPool:
    """Reads rows and prepares them for the model.

    Args:
        readers: Threads; or cores, of which processes leave some to the threads beside them.
        processes: Whether each thread has a process do it.
    """

    def __init__(self, readers: int, *, processes: bool) -> None:
        readers = max(1, readers - _BESIDE) if processes else readers
        self._pool = ThreadPoolExecutor(readers, "read", one_thread)
        self._processes = ReadingProcesses(readers) if processes else None
        self._shared: dict[tuple[int, int], RegisteredPipeline] = {}

    def begin(
        self, rows: Sequence[Row], reader: Reader, encoder: Encoder
    ) -> list[Future[PreparedRows]]:
        """Begins to read rows, piece by piece in their order."""
        if self._processes is None:
            return [
                self._pool.submit(read_rows, rows[i : i + _PIECE], reader, encoder)
                for i in range(0, len(rows), _PIECE)
            ]
        key = id(reader), id(encoder)
        if key not in self._shared:
            self._shared[key] = self._processes.share(InputPipeline(reader, encoder.prepare))
        return [
            self._pool.submit(self._processes.read, list(rows[i : i + _PIECE]), self._shared[key])
            for i in range(0, len(rows), _PIECE)
        ]

    def close(self) -> None:
        """Drops what is not begun; waits for what threads are reading, ends processes that do."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            self._processes.close()
        self._pool.shutdown()
