"""A worker process: opens the features once, then trains what the coordinator sends.

One pipe carries the messages below; after every epoch a worker reports and waits for an answer, so
that a trial can be pruned there. It ends when the pipe is closed or its parent has died.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fuse.figures.records import EpochRecord, Metric
from mmsa_cache.errors import MmsaError, SettingsError
from mmsa_cache.native.memory import release
from mmsa_cache.native.processes import end_with_parent

from .baseline_record import Baseline

if TYPE_CHECKING:
    from fuse.setting import Setting

IntArray = NDArray[np.int64]


class Source(Protocol):
    """Where a process gets the features from; sent to workers, so it must be picklable."""

    def open(self, device: str) -> Any:
        """The `mmsa_cache.features.bank.FeatureBank`, on a device."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One training of a setting: a fold under a seed."""

    train: IntArray
    """Rows to learn from."""
    validation: IntArray
    """Rows that choose the epoch, and score the training."""
    judged: IntArray
    """Rows that only judge at the end."""
    seed: int


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks have in common."""

    source: Source
    units: Sequence[Unit]
    names: tuple[str, ...]
    metric: Metric
    fit: Callable[..., Any]
    """`fuse.training.trainer.fit`, or its replacement."""
    predict: Callable[..., Any]
    """`fuse.training.classifier.predict`, or its replacement."""
    baseline: Callable[..., Baseline]
    """`fuse.search.baselines.fit`, or its replacement."""
    groups: IntArray
    """Duplicate groups, (samples,)."""


@dataclass(frozen=True, slots=True)
class Task:
    """One setting to train: on every unit for its score, or on one to judge it; or a baseline."""

    number: int
    setting: Setting
    units: tuple[int, ...]
    """Places among the job's units."""
    judge: bool = False
    """Whether predictions of the held-out and of the outer rows are wanted."""
    baseline: str = ""
    """A name of `baseline_record.TITLES`: that is fitted on the vectors of the setting."""


@dataclass(frozen=True, slots=True)
class Report:
    """An intermediate value; the worker waits for the answer whether to continue."""

    position: int
    """Trainings of the task that are done."""
    epoch: int | None
    """Epochs of the present training that are done; None at the end of a training."""
    value: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """Class probabilities of a trained model, (rows, classes)."""

    held_out: NDArray[np.float64]
    """Of the unit's validation rows."""
    outer: NDArray[np.float64]
    """Of its judged rows."""


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a task that was trained or pruned."""

    units: list[float]
    """Score of each finished training."""
    parameters: int
    seconds: float
    """Time of the trainings, without the waits for answers."""
    pruned: bool = False
    held_out: list[NDArray[np.float64]] = field(default_factory=list)
    """Class probabilities of each finished training's validation rows, (rows, classes)."""
    judgement: Judgement | None = None
    """Where the task judges."""
    baseline: Baseline | None = None
    """Where the task is one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of a task that cannot be trained, or of a worker that cannot work."""

    reason: str
    by_setting: bool = False
    """Whether its setting is to blame."""


class _PrunedError(Exception):
    """The coordinator pruned the trial."""


def serve(pipe: Connection, device: str) -> None:
    """The process's main function."""
    end_with_parent()
    if device == "cpu":
        from . import forked  # noqa: F401  (limits libraries; a fork has it already)
    import torch

    from fuse.models.squares import squares_kept

    if device == "cpu":
        torch.set_num_threads(1)
    try:
        job: Job = pipe.recv()
        bank = job.source.open(device)
        gc.freeze()  # the features stay, so collecting garbage after every task is cheap
        pipe.send(None)  # ready
        with squares_kept() if device == "cpu" else contextlib.nullcontext():
            while True:
                task: Task = pipe.recv()
                pipe.send(_fit(task, job, bank) if task.baseline else _run(task, job, bank, pipe))
                release()
                if device != "cpu":  # other shapes need other blocks
                    torch.cuda.empty_cache()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        if _is_lost(error):  # a process that begins anew has the device again
            raise
        pipe.send(Failure(_reason(error)))


def _is_lost(error: Exception) -> bool:
    from mmsa_cache.native.device import is_lost

    return is_lost(error)


def _fit(task: Task, job: Job, bank: Any) -> Result | Failure:
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
    return Result(found.units, 0, found.seconds, baseline=found)


def _run(task: Task, job: Job, bank: Any, pipe: Connection) -> Result | Failure:
    """Trains a task's units in order."""
    started = time.perf_counter()
    waited = 0.0
    values: list[float] = []
    held_out: list[NDArray[np.float64]] = []
    parameters = 0
    judgement: Judgement | None = None

    def report(position: int, epoch: int | None, value: float) -> None:
        nonlocal waited
        asked = time.perf_counter()
        pipe.send(Report(position, epoch, value))
        go = pipe.recv()
        waited += time.perf_counter() - asked
        if not go:
            raise _PrunedError

    pruned = False
    try:
        for position, unit in enumerate(job.units[place] for place in task.units):
            best = -math.inf

            def on_epoch(record: EpochRecord, position: int = position) -> None:
                nonlocal best
                value = record.value(job.metric)
                best = max(best, value) if task.setting.keep == "best" else value
                if not task.judge:
                    report(position, record.epoch, best)

            fit = job.fit(
                task.setting,
                bank,
                unit.train,
                unit.validation,
                names=job.names,
                seed=unit.seed,
                on_epoch=on_epoch,
            )
            value = fit.kept.value(job.metric)
            if not math.isfinite(value):
                return Failure(f"its {job.metric} is {value}")
            values.append(value)
            parameters = sum(p.numel() for p in fit.model.parameters())
            if not task.judge and position + 1 < len(task.units):
                report(position, None, value)
            held_out.append(job.predict(fit.model, bank, unit.validation, task.setting))
            if task.judge:
                outer = job.predict(fit.model, bank, unit.judged, task.setting)
                judgement = Judgement(held_out[-1], outer)
    except _PrunedError:
        pruned = True
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # other settings may still train
        if _is_lost(error):
            raise
        return Failure(_reason(error), isinstance(error, SettingsError))
    seconds = round(time.perf_counter() - started - waited, 4)
    return Result(values, parameters, seconds, pruned, held_out, judgement)


def _reason(error: Exception) -> str:
    """One line for a person."""
    if isinstance(error, MmsaError):
        text = error.message
    else:
        name = type(error).__name__
        text = f"{name}: {error or name}"
    return " ".join(text.split())[:500]
