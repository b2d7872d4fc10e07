"""A worker process: opens the features once, then trains what the coordinator requests.

One pipe carries `messages`. The worker reports after every epoch, and every report is answered, so
that a trial can be pruned at any epoch. The process ends when the pipe closes or its parent dies.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import time
from multiprocessing.connection import Connection
from typing import Any

from fuse.figures.records import EpochRecord
from mmsa_cache.errors import MmsaError, SettingsError
from mmsa_cache.native.memory import release_memory, return_blocks
from mmsa_cache.native.processes import end_with_parent

from .messages import (
    EpochReport,
    Failure,
    FoldPredictions,
    TrainingReply,
    TrainingRequest,
    WorkerSetup,
)

_PIPE_CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)


class _PrunedError(Exception):
    """The coordinator pruned the trial."""


def serve(pipe: Connection, device: str) -> None:
    """The process's main function."""
    end_with_parent()
    if device == "cpu":
        from . import forked  # noqa: F401  (limits threads of libraries; a fork has it already)
    import torch

    from fuse.models.squares import cache_distances
    from mmsa_cache.native.device import release_spare_memory

    torch.set_num_threads(1)
    if device == "cpu":
        return_blocks()
    try:
        setup: WorkerSetup = pipe.recv()
        bank = setup.source.open(device)
        gc.freeze()  # the features stay, so collecting garbage after every request is cheap
        pipe.send(None)  # ready
        with cache_distances() if device == "cpu" else contextlib.nullcontext():
            for count in itertools.count():
                request: TrainingRequest = pipe.recv()
                if request.baseline:
                    pipe.send(_fit_baseline(request, setup, bank))
                else:
                    reporter = Reporter(pipe, waits=device == "cpu")
                    pipe.send(train(request, setup, bank, reporter))
                if device == "cpu":
                    release_memory()
                else:
                    gc.collect()  # what still holds memory of the GPU
                    release_spare_memory(torch.device(device))
                if not count:
                    gc.freeze()  # what the first training has imported stays too
    except _PIPE_CLOSED:
        return
    except Exception as error:
        pipe.send(_failure(error))


def _failure(error: Exception) -> Failure:
    """Describes an error; raises it if the GPU is lost, which only a new process gets back."""
    from mmsa_cache.native.device import is_device_lost

    if is_device_lost(error):
        raise error
    if isinstance(error, MmsaError):
        text = error.message
    else:
        name = type(error).__name__
        text = f"{name}: {error or name}"
    return Failure(" ".join(text.split())[:500], isinstance(error, SettingsError))


def _fit_baseline(
    request: TrainingRequest, setup: WorkerSetup, bank: Any
) -> TrainingReply | Failure:
    splits = [setup.splits[index] for index in request.splits]
    try:
        baseline = setup.baseline(
            request.baseline,
            request.setting,
            bank,
            splits,
            setup.groups,
            len(setup.names),
            setup.metric,
        )
    except Exception as error:  # trials do not need it
        return _failure(error)
    return TrainingReply(baseline.units, 0, baseline.seconds, baseline=baseline)


def train(
    request: TrainingRequest, setup: WorkerSetup, bank: Any, reporter: Reporter
) -> TrainingReply | Failure:
    """Trains the groups of a request in order; leaves no report unanswered."""
    reply = TrainingReply([], 0, 0.0)
    started = time.perf_counter()
    try:
        try:
            for group in request.groups:
                if reason := _train_group(request, group, setup, bank, reporter, reply):
                    return Failure(reason)
        except (_PrunedError, *_PIPE_CLOSED):
            raise
        except Exception as error:  # other settings may still train
            failure = _failure(error)
            reporter.settle()
            return failure
    except _PrunedError:
        reply.pruned = True
    reply.seconds = round(time.perf_counter() - started - reporter.waited, 4)
    return reply


class Reporter:
    """Sends reports and raises `_PrunedError` when the coordinator prunes the trial.

    Args:
        pipe: To the coordinator, which answers every report.
        waits: Whether to wait for each answer. Otherwise training continues until the answer
            arrives: an epoch on a GPU is over before a busy coordinator has looked. The same trials
            are pruned.

    Attributes:
        waited: Seconds spent waiting for answers.
    """

    def __init__(self, pipe: Connection, waits: bool) -> None:
        self._pipe, self._waits = pipe, waits
        self._unanswered, self._continues = 0, True
        self.waited = 0.0

    def report(self, report: EpochReport) -> None:
        """Sends a report; raises if the trial is pruned."""
        self._pipe.send(report)
        self._unanswered += 1
        while self._unanswered and self._pipe.poll():
            self._receive()
        if self._waits or report.epoch is None or not self._continues:
            self.settle()

    def settle(self) -> None:
        """Waits until every report is answered; raises if the trial is pruned."""
        started = time.perf_counter()
        while self._unanswered:
            self._receive()
        self.waited += time.perf_counter() - started
        if not self._continues:
            raise _PrunedError

    def _receive(self) -> None:
        self._continues &= self._pipe.recv()
        self._unanswered -= 1


def _train_group(
    request: TrainingRequest,
    group: tuple[int, ...],
    setup: WorkerSetup,
    bank: Any,
    reporter: Reporter,
    reply: TrainingReply,
) -> str:
    """Trains a group of splits side by side and adds the results to `reply`.

    Returns:
        Why the group has no score; empty if it has one.
    """
    from fuse.training.task import Task

    from .group_scores import GroupScores

    setting, finished = request.setting, len(reply.scores)
    splits = [setup.splits[index] for index in group]
    current = GroupScores(setting, setup.metric, len(splits))

    def on_epoch(record: EpochRecord) -> None:
        epoch = current.add(record)
        if epoch is not None and not request.judge:
            reporter.report(EpochReport(finished, epoch, tuple(current.values)))

    tasks = [Task(split.train, split.validation, split.seed) for split in splits]
    fits = setup.fit(setting, bank, tasks, names=setup.names, on_epoch=on_epoch)
    reporter.settle()
    values = [fit.kept.value(setup.metric) for fit in fits]
    for value in values:
        if not math.isfinite(value):
            return f"its {setup.metric} is {value}"
    reply.scores += values
    if not request.judge and len(reply.scores) < len(request.splits):
        reporter.report(EpochReport(finished, None, tuple(values)))
    for split, fit in zip(splits, fits, strict=True):
        reply.parameters = sum(p.numel() for p in fit.model.parameters())
        reply.held_out.append(setup.predict(fit.model, bank, split.validation, setting))
        if request.judge:
            outer = setup.predict(fit.model, bank, split.judged, setting)
            reply.predictions.append(FoldPredictions(reply.held_out[-1], outer))
    return ""
