"""A worker process: it opens the features once, then trains what the coordinator sends.

Light at import: torch is loaded after the thread limits are set. Messages are tuples over one pipe;
a worker says something after every epoch and waits for the word to go on, so that a trial can be
given up there. It ends when the pipe or its parent is gone.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fuse.figures.records import EpochRecord, Metric
from mmsa_cache.errors import SettingsError
from mmsa_cache.native.memory import release

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
    """Rows that say which epoch is the best, and score the training."""
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
    """`fuse.training.trainer.fit`, or what stands for it."""
    predict: Callable[..., Any]
    """`fuse.training.classifier.predict`, or what stands for it."""


@dataclass(frozen=True, slots=True)
class Task:
    """One setting to train: on every unit for its score, or on one to judge it."""

    number: int
    setting: Any
    units: tuple[int, ...]
    """Places among the job's units."""
    judge: bool = False
    """Whether predictions of the held-out and of the outer rows are wanted."""


class GivenUpError(Exception):
    """The coordinator gave the trial up."""


def serve(pipe: Connection, device: str) -> None:
    """The process's main function."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Several processes with several threads each are slower by far than one thread each.
    if device == "cpu":
        os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
    try:
        job: Job = pipe.recv()
        bank = job.source.open(device)
        gc.freeze()  # what is there stays: looking for garbage after every task is then cheap
        pipe.send(("ready", None))
        while True:
            task: Task = pipe.recv()
            pipe.send(_run(task, job, bank, pipe))
            release()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        pipe.send(("broken", _reason(error)))


def _end_with_parent() -> None:
    """The coordinator may be killed while an epoch runs: nobody wants its result then."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(task: Task, job: Job, bank: Any, pipe: Connection) -> tuple[str, Any]:
    """Trains a task's units in order."""
    started = time.perf_counter()
    waited = 0.0
    values: list[float] = []
    parameters = 0
    predictions: dict[str, Any] = {}

    def go_on(*message: Any) -> None:
        nonlocal waited
        asked = time.perf_counter()
        pipe.send(("report", message))
        go = pipe.recv()
        waited += time.perf_counter() - asked
        if not go:
            raise GivenUpError

    try:
        for position, unit in enumerate(job.units[place] for place in task.units):
            best = -math.inf

            def on_epoch(record: EpochRecord, position: int = position) -> None:
                nonlocal best
                value = record.value(job.metric)
                keeps_best = getattr(task.setting, "keep", "best") == "best"
                best = max(best, value) if keeps_best else value
                if not task.judge:
                    go_on(position, record.epoch, best)

            result = job.fit(
                task.setting,
                bank,
                unit.train,
                unit.validation,
                names=job.names,
                seed=unit.seed,
                on_epoch=on_epoch,
            )
            value = result.kept.value(job.metric)
            if not math.isfinite(value):
                return "failed", ("training", f"its {job.metric} is {value}")
            values.append(value)
            parameters = sum(p.numel() for p in result.model.parameters())
            if task.judge:
                predictions = {
                    "held_out": job.predict(result.model, bank, unit.validation, task.setting),
                    "outer": job.predict(result.model, bank, unit.judged, task.setting),
                }
            elif position + 1 < len(task.units):
                go_on(position, None, value)
    except GivenUpError:
        return "stopped", _result(values, parameters, started, waited)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # whatever one setting does, the next may work
        return "failed", (_kind(error), _reason(error))
    return "done", _result(values, parameters, started, waited) | predictions


def _result(values: list[float], parameters: int, started: float, waited: float) -> dict[str, Any]:
    seconds = time.perf_counter() - started - waited
    return {"units": values, "parameters": parameters, "seconds": round(seconds, 4)}


def _kind(error: Exception) -> str:
    """``memory``, ``settings``, ``training`` or ``error``."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "memory"
    if "can't allocate memory" in str(error):  # what torch says of the CPU
        return "memory"
    if isinstance(error, SettingsError):
        return "settings"
    return "training" if type(error).__name__ == "TrainingError" else "error"


def _reason(error: Exception) -> str:
    """One line for a person."""
    message = getattr(error, "message", str(error)) or type(error).__name__
    known = hasattr(error, "message")
    text = message if known else f"{type(error).__name__}: {message}"
    return " ".join(text.split())[:500]
