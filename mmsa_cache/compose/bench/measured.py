"""What a piece of work takes: seconds, and memory and open files where it runs in a process of its
own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

import psutil
from pydantic import BaseModel

from mmsa_cache.native.memory import peak_bytes
from mmsa_cache.native.processes import hide_main

P = ParamSpec("P")
T = TypeVar("T")


class Took(BaseModel):
    """What a piece of work took."""

    seconds: float
    cpu_seconds: float
    """On a machine that others use too, this says what the work itself took."""


class Read(Took):
    """What reading took in a process of its own."""

    peak_bytes: int
    """By which the process grew."""
    open_files: int
    """Descriptors that it kept."""


def alone(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Runs a module's function in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        with hide_main():
            done = process.submit(work, *args, **named)
        return done.result()


class Watch:
    """Adds up what this process takes while it is entered."""

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

    def took(self) -> Took:
        return Took(seconds=self._seconds, cpu_seconds=self._cpu_seconds)

    def read(self) -> Read:
        """The same, with how the process has grown since the watch was made."""
        files, memory = self._before
        return Read(
            **self.took().model_dump(),
            peak_bytes=max(0, peak_bytes() - memory),
            open_files=self._process.num_fds() - files,
        )
