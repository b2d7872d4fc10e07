"""A worker process: opens the features once, then trains what the coordinator sends.

One pipe carries `messages`; after every epoch a worker reports, and every report is answered, so
that a trial can be pruned there. It ends when the pipe is closed or its parent has died.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from fuse.figures.records import EpochRecord
from mmsa_cache.errors import MmsaError, SettingsError
from mmsa_cache.native.memory import release
from mmsa_cache.native.processes import end_with_parent

from .messages import (
    EpochReport,
    Failure,
    FoldPredictions,
    FoldSplit,
    TrainingReply,
    TrainingRequest,
    WorkerSetup,
)


class _PrunedError(Exception):
    """The coordinator pruned the trial."""


def serve(pipe: Connection, device: str) -> None:
    """The process's main function."""
    end_with_parent()
    if device == "cpu":
        from . import forked  # noqa: F401  (limits libraries; a fork has it already)
    import torch

    from fuse.models.squares import squares_kept
    from mmsa_cache.native.device import spare

    torch.set_num_threads(1)
    try:
        job: WorkerSetup = pipe.recv()
        bank = job.source.open(device)
        gc.freeze()  # the features stay, so collecting garbage after every task is cheap
        pipe.send(None)  # ready
        with squares_kept() if device == "cpu" else contextlib.nullcontext():
            for number in itertools.count():
                task: TrainingRequest = pipe.recv()
                if task.baseline:
                    pipe.send(_fit(task, job, bank))
                else:
                    pipe.send(_run(task, job, bank, _Asking(pipe, waits=device == "cpu")))
                if device == "cpu":
                    release()
                else:
                    gc.collect()  # what still holds memory of the GPU
                    spare(torch.device(device))
                if not number:
                    gc.freeze()  # so does what the first training has imported
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        if _is_lost(error):  # a process that begins anew has the device again
            raise
        pipe.send(Failure(_reason(error)))


def _is_lost(error: Exception) -> bool:
    from mmsa_cache.native.device import is_lost

    return is_lost(error)


def _fit(task: TrainingRequest, job: WorkerSetup, bank: Any) -> TrainingReply | Failure:
    """Fits a baseline on a task's units."""
    units = [job.units[place] for place in task.units]
    try:
        found = job.baseline(
            task.baseline, task.setting, bank, units, job.groups, len(job.names), job.metric
        )
    except Exception as error:
        if _is_lost(error):
            raise
        return Failure(_reason(error))  # the trials need it not
    return TrainingReply(found.units, 0, found.seconds, baseline=found)


def _run(
    task: TrainingRequest, job: WorkerSetup, bank: Any, ask: _Asking
) -> TrainingReply | Failure:
    """Trains a task's groups in order."""
    done = TrainingReply([], 0, 0.0)
    started = time.perf_counter()
    try:
        failure = _train_all(task, job, bank, ask, done)
    except _PrunedError:
        failure, done.pruned = None, True
    done.seconds = round(time.perf_counter() - started - ask.waited, 4)
    return failure or done


def _train_all(
    task: TrainingRequest, job: WorkerSetup, bank: Any, ask: _Asking, done: TrainingReply
) -> Failure | None:
    """`_run`, but that a trial that is pruned raises; nothing is left to be answered."""
    try:
        for group in task.groups:
            reason = _train(task, [job.units[place] for place in group], job, bank, ask, done)
            if reason:
                return Failure(reason)
    except (_PrunedError, EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # other settings may still train
        if _is_lost(error):
            raise
        ask.settle()
        return Failure(_reason(error), isinstance(error, SettingsError))
    return None


class _Asking:
    """Asks the coordinator whether a trial goes on.

    Args:
        pipe: To the coordinator, which answers every report.
        waits: Wait for each answer. Else the training goes on until there is one: an epoch on a
            GPU is over before a busy coordinator has looked. What is pruned is the same.

    Attributes:
        waited: Seconds that the answers took.
    """

    def __init__(self, pipe: Connection, waits: bool) -> None:
        self._pipe, self._waits = pipe, waits
        self._unanswered, self._goes_on = 0, True
        self.waited = 0.0

    def __call__(self, report: EpochReport) -> None:
        """Reports, and raises where the trial is pruned."""
        self._pipe.send(report)
        self._unanswered += 1
        while self._unanswered and self._pipe.poll():
            self._take()
        if self._waits or report.epoch is None or not self._goes_on:
            self.settle()

    def settle(self) -> None:
        """Waits until everything is answered; raises where the trial is pruned."""
        asked = time.perf_counter()
        while self._unanswered:
            self._take()
        self.waited += time.perf_counter() - asked
        if not self._goes_on:
            raise _PrunedError

    def _take(self) -> None:
        self._goes_on &= self._pipe.recv()
        self._unanswered -= 1


def _train(
    task: TrainingRequest,
    units: Sequence[FoldSplit],
    job: WorkerSetup,
    bank: Any,
    ask: _Asking,
    done: TrainingReply,
) -> str:
    """Trains a group of units and adds what they gave to `done`.

    Returns:
        Why it cannot be scored; empty if it is.
    """
    from fuse.training.task import Task

    from .side_by_side import SideBySide

    setting, position = task.setting, len(done.units)
    at_work = SideBySide(setting, job.metric, len(units))

    def on_epoch(record: EpochRecord) -> None:
        epoch = at_work.add(record)
        if epoch is not None and not task.judge:
            ask(EpochReport(position, epoch, tuple(at_work.values)))

    trainings = [Task(unit.train, unit.validation, unit.seed) for unit in units]
    fits = job.fit(setting, bank, trainings, names=job.names, on_epoch=on_epoch)
    ask.settle()
    values = [fit.kept.value(job.metric) for fit in fits]
    for value in values:
        if not math.isfinite(value):
            return f"its {job.metric} is {value}"
    done.units += values
    if not task.judge and len(done.units) < len(task.units):
        ask(EpochReport(position, None, tuple(values)))
    for unit, fit in zip(units, fits, strict=True):
        done.parameters = sum(p.numel() for p in fit.model.parameters())
        done.held_out.append(job.predict(fit.model, bank, unit.validation, setting))
        if task.judge:
            outer = job.predict(fit.model, bank, unit.judged, setting)
            done.judgements.append(FoldPredictions(done.held_out[-1], outer))
    return ""


def _reason(error: Exception) -> str:
    """One line for a person."""
    if isinstance(error, MmsaError):
        text = error.message
    else:
        name = type(error).__name__
        text = f"{name}: {error or name}"
    return " ".join(text.split())[:500]
