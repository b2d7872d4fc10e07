"""Worker processes: starts them, assigns requests, replaces those that die."""

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
from mmsa_cache.native.processes import WorkerProcess, end_processes, exit_reason, send
from mmsa_cache.store.identity import Origin

from .baseline_record import Baseline
from .baselines import fit as fit_baseline
from .messages import (
    EpochReport,
    FeatureSource,
    FoldSplit,
    Message,
    TrainingRequest,
    WorkerSetup,
)
from .worker import serve

_STARTS = 3
"""Failed starts in a row after which the search ends, if no other worker is ready."""


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """The end of a worker: what became of its request; also the last message of a remote one."""

    reason: str


Start = Callable[[Connection, str], WorkerProcess]
"""Starts a worker on a device. It communicates by the pipe, as `worker.serve` does."""


def start_process(
    pipe: Connection, device: str, variables: Mapping[str, str] = MappingProxyType({})
) -> WorkerProcess:
    """Starts a worker process on one end of a pipe.

    Args:
        pipe: The worker's end.
        device: Where it trains.
        variables: Environment variables to add if the device is a GPU.
    """
    with processes.set_variables({} if device == "cpu" else variables):
        process = processes.start_process(serve, (pipe, device), device, f"{__package__}.forked")
    pipe.close()
    return process


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The data of a study or an ablation."""

    source: FeatureSource
    """Where worker processes open the features."""
    labels: NDArray[np.int64]
    """Class codes, (samples,)."""
    groups: NDArray[np.int64]
    """Duplicate groups, (samples,)."""
    origin: Origin
    """Identity of the features; its classes name the codes."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Which worker processes to start, and the functions that they call."""

    devices: Sequence[str] = ("cpu",)
    """One a worker."""
    fit: Callable[..., Any] = trainer.fit_group
    """Trains models of one setting."""
    predict: Callable[..., Any] = classifier.predict
    """Returns a model's class probabilities."""
    start: Start = start_process
    baseline: Callable[..., Baseline] = fit_baseline
    """Fits a classical model."""
    remote_source: Callable[[Any], FeatureSource] = lambda source: source
    """Turns a source of this machine into one that workers on other machines can open."""

    @property
    def stacked(self) -> bool:
        """Whether a worker trains the splits of a setting side by side: on a GPU that costs little
        more than one training."""
        return self.devices[0] != "cpu"

    def pool(
        self, data: TrainingData, splits: Sequence[FoldSplit], metric: Metric, most: int
    ) -> WorkerPool:
        """A pool of at most `most` workers that trains on these splits."""
        setup = WorkerSetup(
            self.remote_source(data.source),
            splits,
            data.origin.classes,
            metric,
            self.fit,
            self.predict,
            self.baseline,
            data.groups,
        )
        return WorkerPool(setup, self.devices[:most], self.start, self.stacked)


@dataclass(slots=True)
class _WorkerHandle:
    process: WorkerProcess
    pipe: Connection
    device: str
    ready: bool = False
    request: TrainingRequest | None = None
    """The one that it works on."""


class WorkerPool:
    """Workers on their devices; `open` starts them.

    Args:
        setup: Sent to every worker.
        devices: One a worker.
        start: Starts a worker, see `start_process`.
        stacked: See `WorkerOptions.stacked`.
    """

    def __init__(
        self, setup: WorkerSetup, devices: Sequence[str], start: Start, stacked: bool
    ) -> None:
        self._setup, self._devices, self._start_worker = setup, list(devices), start
        self.stacked = stacked
        self._failed_starts = 0
        self._workers: list[_WorkerHandle] = []

    def add_baseline_workers(self, count: int) -> None:
        """Adds workers on the CPU that fit baselines while those on the GPUs train."""
        self._devices += ["cpu"] * count

    def open(self) -> None:
        """Starts the workers that do not run yet."""
        while len(self._workers) < len(self._devices):
            self._workers.append(self._start(self._devices[len(self._workers)]))

    def _start(self, device: str) -> _WorkerHandle:
        ours, theirs = multiprocessing.Pipe()
        worker = _WorkerHandle(self._start_worker(theirs, device), ours, device)
        send(worker.pipe, self._setup)
        return worker

    @property
    def validation(self) -> list[NDArray[np.int64]]:
        """The held-out rows of each split."""
        return [split.validation for split in self._setup.splits]

    def divide(self, splits: Sequence[int]) -> list[tuple[int, ...]]:
        """Groups of splits to train: single ones, or as many groups as workers on GPUs."""
        count = len(splits)
        if self.stacked:
            count = min(count, sum(device != "cpu" for device in self._devices))
        return [tuple(splits[first::count]) for first in range(count)]

    def assign(self, next_request: Callable[[bool], TrainingRequest | None]) -> bool:
        """Sends a request to an idle worker.

        Args:
            next_request: Returns a request, or None if there is none for such a worker. Its
                argument is whether the worker is one of `add_baseline_workers`.

        Returns:
            False: no worker is idle, or there is no request for those that are.
        """
        for worker in self._workers:
            if not worker.ready or worker.request is not None:
                continue
            request = next_request(self.stacked and worker.device == "cpu")
            if request is not None:
                worker.request = request
                send(worker.pipe, request)
                return True
        return False

    def answer(self, request: TrainingRequest, proceed: bool) -> None:
        """Answers the worker that reported on a request."""
        send(next(w for w in self._workers if w.request is request).pipe, proceed)

    def wait(self, timeout: float) -> list[tuple[TrainingRequest, Message | WorkerDeath]]:
        """Waits for messages of workers, at most `timeout` seconds.

        Raises:
            DeviceError: Workers do not start.
        """
        events: list[tuple[TrainingRequest, Message | WorkerDeath]] = []
        ready = wait([worker.pipe for worker in self._workers], timeout)
        for index, worker in enumerate(self._workers):
            if worker.pipe not in ready:
                continue
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                message = WorkerDeath(exit_reason(worker.process))
            if isinstance(message, WorkerDeath):
                if worker.request is not None:
                    events.append((worker.request, message))
                self._replace(index, message.reason)
            elif message is None:
                worker.ready, self._failed_starts = True, 0
            elif worker.request is None:
                raise MmsaError(f"A worker cannot work: {message.reason}")
            else:
                events.append((worker.request, message))
                if not isinstance(message, EpochReport):
                    worker.request = None
        return events

    def _replace(self, index: int, reason: str) -> None:
        """Starts another worker in place of a dead one."""
        dead = self._workers[index]
        if not dead.ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS and not any(w.ready for w in self._workers):
                raise DeviceError(
                    f"Workers do not start: {reason}.", "Try --workers 1; look at the memory."
                )
        dead.pipe.close()
        self._workers[index] = self._start(dead.device)

    def close(self) -> None:
        """Terminates every worker."""
        end_processes([(worker.process, worker.pipe) for worker in self._workers])
