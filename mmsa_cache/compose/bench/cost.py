"""The cost of a piece of work: time, memory and open files."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

import psutil
from pydantic import BaseModel

from mmsa_cache.native.memory import peak_bytes
from mmsa_cache.native.processes import hide_main

P = ParamSpec("P")
T = TypeVar("T")


class TimeCost(BaseModel):
    """Time of a piece of work."""

    seconds: float
    cpu_seconds: float
    """Unlike `seconds`, independent of other programs on the machine."""


class ProcessCost(TimeCost):
    """Time, and growth of the process."""

    peak_bytes: int
    open_files: int
    """File descriptors."""


def run_in_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a module's function in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        with hide_main():
            future = process.submit(work, *args, **kwargs)
        return future.result()


@contextlib.contextmanager
def sampling(sample: Callable[[], None], seconds: float) -> Iterator[None]:
    """Calls a function in a thread every so many seconds, and once at the end."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(seconds):
            sample()
        sample()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class CostMeter:
    """Adds up the cost of this process while the context is entered."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._process.num_fds(), self._process.memory_info().rss
        self._seconds = self._cpu_seconds = 0.0

    def __enter__(self) -> None:
        self._seconds -= time.perf_counter()
        self._cpu_seconds -= time.process_time()

    def __exit__(self, *error: object) -> None:
        self._seconds += time.perf_counter()
        self._cpu_seconds += time.process_time()

    def time_cost(self) -> TimeCost:
        return TimeCost(seconds=self._seconds, cpu_seconds=self._cpu_seconds)

    def process_cost(self) -> ProcessCost:
        """The time, and how much the process has grown since the meter was made."""
        files, memory = self._before
        return ProcessCost(
            seconds=self._seconds,
            cpu_seconds=self._cpu_seconds,
            peak_bytes=max(0, peak_bytes() - memory),
            open_files=self._process.num_fds() - files,
        )
