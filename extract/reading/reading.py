"""A pool of threads that read the rows of windows, a few at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from extract.encoders.protocol import Encoder
from extract.plan import PreparedRows, Reader, Row, read_rows
from mmsa_cache.native.processes import can_fork, prepare_forks
from mmsa_cache.native.threads import one_thread

from .process import InputPipeline, RegisteredPipeline
from .processes import PRELOAD, ReadingProcesses

_ROWS_A_TASK = 8
"""Rows that are read at a time; of 12-megapixel pictures they take a third of a second."""
_MIN_ROWS = 2048
"""Fewer rows are not worth the start of processes."""
_MIN_CORES = 4
"""On fewer cores threads hold each other up little."""
_RESERVED_CORES = 2
"""Cores that are left to the threads that launch and seal."""


def should_use_processes(device: torch.device, rows: int, readers: int) -> bool:
    """Whether processes read in place of threads.

    Args:
        device: Where models run; on the CPU they compete with readers for cores either way.
        rows: Missing rows.
        readers: Cores.
    """
    return device.type != "cpu" and rows >= _MIN_ROWS and readers >= _MIN_CORES and can_fork()


def preload_processes(device: torch.device, rows: int, readers: int) -> None:
    """Starts the imports that reading processes need, without waiting for them.

    Args:
        device: Where models run.
        rows: Missing rows.
        readers: Cores.
    """
    if should_use_processes(device, rows, readers):
        with contextlib.suppress(OSError):  # threads read then
            prepare_forks(PRELOAD)


class ReadingPool:
    """Reads rows and prepares them for the model.

    Args:
        readers: Threads; with processes, cores, some of which are left to other threads.
        processes: Whether each thread has a process read.
    """

    def __init__(self, readers: int, *, processes: bool) -> None:
        readers = max(1, readers - _RESERVED_CORES) if processes else readers
        self._threads = ThreadPoolExecutor(readers, "read", one_thread)
        self._processes = ReadingProcesses(readers) if processes else None
        self._registered: dict[tuple[int, int], RegisteredPipeline] = {}

    def submit(
        self, rows: Sequence[Row], reader: Reader, encoder: Encoder
    ) -> list[Future[PreparedRows]]:
        """Queues rows to be read, a few a task, in order."""
        parts = [list(rows[i : i + _ROWS_A_TASK]) for i in range(0, len(rows), _ROWS_A_TASK)]
        if self._processes is None:
            return [self._threads.submit(read_rows, part, reader, encoder) for part in parts]
        key = id(reader), id(encoder)
        if key not in self._registered:
            pipeline = InputPipeline(reader, encoder.prepare)
            self._registered[key] = self._processes.register(pipeline)
        registered = self._registered[key]
        return [self._threads.submit(self._processes.read, part, registered) for part in parts]

    def close(self) -> None:
        """Drops queued tasks; waits for threads that read, ends processes that do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            self._processes.close()
        self._threads.shutdown()
