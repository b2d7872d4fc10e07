"""Worker processes: started, given tasks, replaced when they die."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuse.figures.records import Metric
from fuse.training import classifier, trainer
from mmsa_cache.errors import DeviceError, MmsaError
from mmsa_cache.native import processes
from mmsa_cache.native.processes import Started, end_all, how_it_ended, tell
from mmsa_cache.store.identity import Origin

from .baseline_record import Baseline
from .baselines import fit as fit_baseline
from .worker import Failure, Job, Report, Result, Source, Task, Unit, serve

A_GPU = 3
"""Workers that share a GPU: one's models are made and scored while another's are trained."""
_STARTS = 3
"""Tries to start a worker before the search ends, where no other works."""


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a task whose worker died; the last message of one that is no process here."""

    reason: str


Start = Callable[[Connection, str], Started]
"""Starts a worker on a device; it speaks with the pool by the pipe, as `worker.serve` does."""


def start_process(pipe: Connection, device: str) -> Started:
    """Starts a worker process on one end of a pipe."""
    process = processes.start_process(serve, (pipe, device), device, f"{__package__}.forked")
    pipe.close()
    return process


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a study or an ablation trains on."""

    source: Source
    """Where worker processes open the features."""
    labels: NDArray[np.int64]
    """Class codes, (samples,)."""
    groups: NDArray[np.int64]
    """Duplicate groups, (samples,)."""
    origin: Origin
    """What the features are; its classes name the codes."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Which worker processes to start, and what they train with."""

    devices: Sequence[str] = ("cpu",)
    """A worker each."""
    fit: Callable[..., Any] = trainer.fit
    """Trains one model."""
    predict: Callable[..., Any] = classifier.predict
    """Gives a model's class probabilities."""
    start: Start = start_process
    baseline: Callable[..., Baseline] = fit_baseline
    """Fits a classical model."""
    reach: Callable[[Any], Source] = lambda source: source
    """Makes the source of workers on other machines of one that opens here."""

    def pool(self, data: TrainingData, units: Sequence[Unit], metric: Metric, most: int) -> Pool:
        """At most so many of the workers, for some trainings."""
        names = data.origin.classes
        job = Job(
            self.reach(data.source),
            units,
            names,
            metric,
            self.fit,
            self.predict,
            self.baseline,
            data.groups,
        )
        return Pool(job, self.devices[:most], self.start)


@dataclass(slots=True)
class _Worker:
    process: Started
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

    def __init__(self, job: Job, devices: Sequence[str], start: Start) -> None:
        self._job, self._devices, self._start_one = job, devices, start
        self._failed_starts = 0
        self._workers: list[_Worker] = []

    def open(self) -> None:
        """Starts the workers that do not run yet."""
        while len(self._workers) < len(self._devices):
            self._workers.append(self._start(self._devices[len(self._workers)]))

    def _start(self, device: str) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        worker = _Worker(self._start_one(theirs, device), ours, device)
        tell(worker.pipe, self._job)
        return worker

    @property
    def validation(self) -> list[NDArray[np.int64]]:
        """The held-out rows of each unit."""
        return [unit.validation for unit in self._job.units]

    @property
    def idle(self) -> int:
        """Workers that can take a task now."""
        return sum(worker.ready and worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Gives a task to an idle worker."""
        worker = next(w for w in self._workers if w.ready and w.task is None)
        worker.task = task
        tell(worker.pipe, task)

    def answer(self, task: Task, go: bool) -> None:
        """Tells the worker that reported on a task whether to continue."""
        tell(next(w for w in self._workers if w.task is task).pipe, go)

    def wait(self, timeout: float) -> list[tuple[Task, Report | Result | Failure | Death]]:
        """Messages of workers with their tasks, at the latest after a timeout in seconds.

        Raises:
            DeviceError: Workers do not start.
        """
        events: list[tuple[Task, Report | Result | Failure | Death]] = []
        ready = wait([worker.pipe for worker in self._workers], timeout)
        for place, worker in enumerate(self._workers):
            if worker.pipe not in ready:
                continue
            try:
                said = worker.pipe.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                said = Death(how_it_ended(worker.process))
            if isinstance(said, Death):
                if task := self._replace(place, said.reason):
                    events.append((task, said))
            elif said is None:
                worker.ready, self._failed_starts = True, 0
            elif worker.task is None:
                raise MmsaError(f"A worker cannot work: {said.reason}")
            else:
                events.append((worker.task, said))
                if not isinstance(said, Report):
                    worker.task = None
        return events

    def _replace(self, place: int, reason: str) -> Task | None:
        """Replaces a dead worker; returns its task, if it had one."""
        dead = self._workers[place]
        if not dead.ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS and not any(w.ready for w in self._workers):
                raise DeviceError(
                    f"Workers do not start: {reason}.", "Try --workers 1; look at the memory."
                )
        dead.pipe.close()
        self._workers[place] = self._start(dead.device)
        return dead.task

    def close(self) -> None:
        """Terminates every worker."""
        end_all([(worker.process, worker.pipe) for worker in self._workers])
