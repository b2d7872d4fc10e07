"""Worker processes: started, given tasks, listened to, replaced when they die."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from mmsa_cache.errors import DeviceError, MmsaError

from .worker import Job, Task, serve

_STARTS = 3
"""Tries to start a worker before the search ends."""
_SECONDS_TO_END = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """What a worker said about its task."""

    task: Task
    kind: str
    """``report`` (wants `Pool.answer`), ``done``, ``stopped``, ``failed`` or ``died``"""
    content: Any


class Process(Protocol):
    """What is needed of a `multiprocessing` process."""

    @property
    def exitcode(self) -> int | None:
        """None while it runs."""

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end."""

    def is_alive(self) -> bool:
        """Whether it runs."""

    def terminate(self) -> None:
        """Asks it to end."""

    def kill(self) -> None:
        """Ends it."""


def start_process(pipe: Connection, device: str) -> Process:
    """Starts a worker as a fresh process, which is given one end of a pipe."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(pipe, device), daemon=True)
    # The child inherits the mask: a Ctrl-C is the coordinator's alone to answer. (The tracker is
    # started beforehand, since starting it lifts the mask.)
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    pipe.close()
    return process


@dataclass(slots=True)
class _Worker:
    process: Process
    pipe: Connection
    device: str
    ready: bool = False
    task: Task | None = None


class Pool:
    """Workers on their devices; none runs before `open`.

    Args:
        job: What all tasks have in common.
        devices: One a worker.
        start: Starts a worker, see `start_process`.
    """

    def __init__(
        self, job: Job, devices: Sequence[str], start: Callable[[Connection, str], Process]
    ) -> None:
        self._job, self._devices, self._start_one = job, devices, start
        self._failed_starts = 0
        self._workers: list[_Worker] = []

    def open(self) -> None:
        """Starts the workers, where they have not been started."""
        while len(self._workers) < len(self._devices):
            self._workers.append(self._start(self._devices[len(self._workers)]))

    def _start(self, device: str) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        worker = _Worker(self._start_one(theirs, device), ours, device)
        _send(worker, self._job)
        return worker

    @property
    def idle(self) -> int:
        """Workers that can take a task now."""
        return sum(worker.ready and worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Gives a task to an idle worker."""
        worker = next(w for w in self._workers if w.ready and w.task is None)
        worker.task = task
        _send(worker, task)

    def answer(self, event: Event, go: bool) -> None:
        """Tells a worker that reported whether to go on."""
        _send(next(w for w in self._workers if w.task is event.task), go)

    def wait(self, timeout: float) -> list[Event]:
        """What was said, at the latest after a timeout in seconds.

        Raises:
            DeviceError: Workers do not start.
        """
        events = []
        ready = wait([worker.pipe for worker in self._workers], timeout)
        for place, worker in enumerate(self._workers):
            if worker.pipe not in ready:
                continue
            try:
                kind, content = worker.pipe.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                if event := self._replace(place):
                    events.append(event)
                continue
            if kind == "ready":
                worker.ready, self._failed_starts = True, 0
            elif kind == "broken":
                raise MmsaError(f"A worker cannot work: {content}")
            elif worker.task is not None:
                events.append(Event(worker.task, kind, content))
                if kind != "report":
                    worker.task = None
        return events

    def _replace(self, place: int) -> Event | None:
        """Starts another worker for a dead one; says so if it had a task."""
        dead = self._workers[place]
        dead.process.join(_SECONDS_TO_END)
        reason = _how_it_ended(dead.process.exitcode)
        if not dead.ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                raise DeviceError(
                    f"Workers do not start: {reason}.", "Try --workers 1; look at the memory."
                )
        dead.pipe.close()
        self._workers[place] = self._start(dead.device)
        return Event(dead.task, "died", reason) if dead.task is not None else None

    def close(self) -> None:
        """Ends every worker, whatever it is at."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_SECONDS_TO_END)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _send(worker: _Worker, message: Any) -> None:
    # Where it died meanwhile, the next look at its pipe says so.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        worker.pipe.send(message)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with code {code}"
