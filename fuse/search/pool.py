"""Worker processes: started, given tasks, replaced when they die."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import MappingProxyType
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
from .messages import (
    EpochReport,
    Failure,
    FeatureSource,
    FoldSplit,
    TrainingReply,
    TrainingRequest,
    WorkerSetup,
)
from .worker import serve

_STARTS = 3
"""Tries to start a worker before the search ends, where no other works."""


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """The end of a task whose worker died; the last message of one that is no process here."""

    reason: str


Start = Callable[[Connection, str], Started]
"""Starts a worker on a device; it speaks with the pool by the pipe, as `worker.serve` does."""


def start_process(
    pipe: Connection, device: str, variables: Mapping[str, str] = MappingProxyType({})
) -> Started:
    """Starts a worker process on one end of a pipe.

    Args:
        pipe: The worker's end.
        device: Where it trains.
        variables: Of its environment, in addition to this process's, where that is a GPU.
    """
    with processes.with_variables({} if device == "cpu" else variables):
        process = processes.start_process(serve, (pipe, device), device, f"{__package__}.forked")
    pipe.close()
    return process


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a study or an ablation trains on."""

    source: FeatureSource
    """Where worker processes open the features."""
    labels: NDArray[np.int64]
    """Class codes, (samples,)."""
    groups: NDArray[np.int64]
    """Duplicate groups, (samples,)."""
    origin: Origin
    """What the features are; its classes name the codes."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Which worker processes to start, and what they train with."""

    devices: Sequence[str] = ("cpu",)
    """A worker each."""
    fit: Callable[..., Any] = trainer.fit_group
    """Trains models of one setting."""
    predict: Callable[..., Any] = classifier.predict
    """Gives a model's class probabilities."""
    start: Start = start_process
    baseline: Callable[..., Baseline] = fit_baseline
    """Fits a classical model."""
    reach: Callable[[Any], FeatureSource] = lambda source: source
    """Makes the source of workers on other machines of one that opens here."""

    @property
    def stacked(self) -> bool:
        """Whether one trains the units of a setting side by side; on a GPU that costs little more
        than a single one."""
        return self.devices[0] != "cpu"

    def pool(
        self, data: TrainingData, units: Sequence[FoldSplit], metric: Metric, most: int
    ) -> WorkerPool:
        """At most so many of the workers, for some trainings."""
        names = data.origin.classes
        job = WorkerSetup(
            self.reach(data.source),
            units,
            names,
            metric,
            self.fit,
            self.predict,
            self.baseline,
            data.groups,
        )
        return WorkerPool(job, self.devices[:most], self.start, self.stacked)


@dataclass(slots=True)
class _WorkerHandle:
    process: Started
    pipe: Connection
    device: str
    ready: bool = False
    task: TrainingRequest | None = None


class WorkerPool:
    """Workers on their devices; none runs before `open`.

    Args:
        job: What all tasks have in common.
        devices: One a worker.
        start: Starts a worker, see `start_process`.
        stacked: See `WorkerOptions.stacked`.
    """

    def __init__(
        self, job: WorkerSetup, devices: Sequence[str], start: Start, stacked: bool
    ) -> None:
        self._job, self._devices, self._start_one = job, list(devices), start
        self.stacked = stacked
        self._failed_starts = 0
        self._workers: list[_WorkerHandle] = []

    def add_beside(self, count: int) -> None:
        """Adds workers on the CPU that fit baselines while those on the GPUs train."""
        self._devices += ["cpu"] * count

    def open(self) -> None:
        """Starts the workers that do not run yet."""
        while len(self._workers) < len(self._devices):
            self._workers.append(self._start(self._devices[len(self._workers)]))

    def _start(self, device: str) -> _WorkerHandle:
        ours, theirs = multiprocessing.Pipe()
        worker = _WorkerHandle(self._start_one(theirs, device), ours, device)
        tell(worker.pipe, self._job)
        return worker

    @property
    def validation(self) -> list[NDArray[np.int64]]:
        """The held-out rows of each unit."""
        return [unit.validation for unit in self._job.units]

    def parts(self, units: Sequence[int]) -> list[tuple[int, ...]]:
        """Units in parts for the workers: each alone, or where they are stacked a part a worker."""
        count = len(units)
        if self.stacked:
            count = min(count, sum(device != "cpu" for device in self._devices))
        return [tuple(units[part::count]) for part in range(count)]

    def take(self, find: Callable[[bool], TrainingRequest | None]) -> TrainingRequest | None:
        """Gives a task to an idle worker.

        Args:
            find: Finds the task; told whether the worker is one of `add_beside`, for baselines
                alone. None: it has no task for such a worker.

        Returns:
            The task; None: no worker is idle, or there is no task for those that are.
        """
        for worker in self._workers:
            if not worker.ready or worker.task is not None:
                continue
            if (task := find(self.stacked and worker.device == "cpu")) is not None:
                worker.task = task
                tell(worker.pipe, task)
                return task
        return None

    def answer(self, task: TrainingRequest, go: bool) -> None:
        """Tells the worker that reported on a task whether to continue."""
        tell(next(w for w in self._workers if w.task is task).pipe, go)

    def wait(
        self, timeout: float
    ) -> list[tuple[TrainingRequest, EpochReport | TrainingReply | Failure | WorkerDeath]]:
        """Messages of workers with their tasks, at the latest after a timeout in seconds.

        Raises:
            DeviceError: Workers do not start.
        """
        events: list[
            tuple[TrainingRequest, EpochReport | TrainingReply | Failure | WorkerDeath]
        ] = []
        ready = wait([worker.pipe for worker in self._workers], timeout)
        for place, worker in enumerate(self._workers):
            if worker.pipe not in ready:
                continue
            try:
                said = worker.pipe.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                said = WorkerDeath(how_it_ended(worker.process))
            if isinstance(said, WorkerDeath):
                if task := self._replace(place, said.reason):
                    events.append((task, said))
            elif said is None:
                worker.ready, self._failed_starts = True, 0
            elif worker.task is None:
                raise MmsaError(f"A worker cannot work: {said.reason}")
            else:
                events.append((worker.task, said))
                if not isinstance(said, EpochReport):
                    worker.task = None
        return events

    def _replace(self, place: int, reason: str) -> TrainingRequest | None:
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
