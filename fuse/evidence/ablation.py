"""Training of the cells of an ablation by worker processes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fuse.figures.records import Metric
from fuse.search.coordinator import RETRIES
from fuse.search.pool import Pool, Process, start_process
from fuse.search.worker import Job, Source, Task, Unit
from fuse.setting import Setting
from fuse.training import classifier, trainer
from mmsa_cache.errors import DeviceError, MmsaError, SettingsError
from mmsa_cache.hashing import digest
from mmsa_cache.shelf import Shelf

from .cells import Cell, title_of
from .trainings import Codes, Trainings

_KEPT = {"predicted", "held_out", "parameters", "seconds"}
_LOOK_AGAIN = 0.5
"""Seconds between looks at the workers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the trainings of some settings gave."""

    predicted: dict[Setting, Codes]
    """(members, rows) of `Trainings.rows`, of every setting whose trainings are all done"""
    records: dict[Setting, list[dict[str, Any]]]
    """A record a unit: ``parameters``, ``seconds``, ``held_out`` (its stopping score)"""
    failures: list[tuple[Setting, str, str]]
    """Settings that could not be trained: kind and reason"""


def run(
    settings: Sequence[Setting],
    how: Trainings,
    source: Source,
    labels: NDArray[np.int64],
    *,
    names: tuple[str, ...],
    features: Callable[[Setting], Mapping[str, Any]],
    shelf: Shelf,
    metric: Metric,
    devices: Sequence[str] = ("cpu",),
    on_start: Callable[[int, int], None] = lambda done, wanted: None,
    on_done: Callable[[Setting], None] = lambda setting: None,
    fit: Callable[..., Any] = trainer.fit,
    predict: Callable[..., Any] = classifier.predict,
    start: Callable[..., Process] = start_process,
) -> Outcome:
    """Trains what is not on the shelf; each training goes there when it is done.

    Args:
        settings: What to train, in this order.
        how: The trainings of each.
        source: Where worker processes open the features.
        labels: Class codes, (samples,).
        names: Class names.
        features: What identifies the features that a setting reads.
        shelf: Where finished trainings lie.
        metric: Of the stopping rows, put down with each training.
        devices: A worker process each.
        on_start: Told once how many trainings there are already, and how many are wanted.
        on_done: Told the setting of every training that is done.
        fit: Trains one model.
        predict: Gives a model's class probabilities.
        start: Starts a worker.

    Raises:
        DeviceError: Workers do not start.
    """
    wanted = list(dict.fromkeys(settings))
    common = {
        "classes": list(names),
        "labels": digest({"labels": labels.tolist()}),
        "device": devices[0].partition(":")[0],
        "torch": torch.__version__,
    }
    rows = [_rows_of(unit) for unit in how.units]

    def identity(setting: Setting, unit: int) -> dict[str, Any]:
        return {**common, **rows[unit], "setting": asdict(setting), **features(setting)}

    done: dict[tuple[Setting, int], dict[str, Any]] = {}
    for setting in wanted:
        for unit in range(len(how.units)):
            found = shelf.find(identity(setting, unit))
            if found is not None and found.keys() >= _KEPT:
                done[setting, unit] = found
    on_start(len(done), len(wanted) * len(how.units))
    waiting = deque(
        Task(number, setting, (unit,), judge=True)
        for number, setting in enumerate(wanted)
        for unit in range(len(how.units))
        if (setting, unit) not in done
    )
    failed: dict[Setting, tuple[str, str]] = {}
    deaths: Counter[tuple[Setting, int]] = Counter()
    job = Job(source, how.units, names, metric, fit, predict)
    with closing(Pool(job, devices[: len(waiting)], start)) as pool:
        running = 0
        while waiting or running:
            pool.open()
            while waiting and pool.idle:
                task = waiting.popleft()
                if task.setting not in failed:
                    pool.submit(task)
                    running += 1
            for event in pool.wait(_LOOK_AGAIN) if running or waiting else ():
                running -= 1
                setting, unit = event.task.setting, event.task.units[0]
                if event.kind == "done":
                    record = {
                        "predicted": np.argmax(event.content["outer"], 1).tolist(),
                        "held_out": event.content["units"][0],
                        "parameters": event.content["parameters"],
                        "seconds": event.content["seconds"],
                    }
                    shelf.put(identity(setting, unit), record)
                    done[setting, unit] = record
                    on_done(setting)
                elif event.kind == "failed":
                    failed.setdefault(setting, event.content)
                else:
                    deaths[setting, unit] += 1
                    if deaths[setting, unit] > RETRIES:
                        failed.setdefault(setting, ("memory", str(event.content)))
                    else:
                        waiting.appendleft(event.task)
    whole = [s for s in wanted if all((s, unit) in done for unit in range(len(how.units)))]
    records = {s: [done[s, unit] for unit in range(len(how.units))] for s in whole}
    return Outcome(
        {s: how.joined([record["predicted"] for record in found]) for s, found in records.items()},
        records,
        [(setting, *reason) for setting, reason in failed.items()],
    )


def _rows_of(unit: Unit) -> dict[str, Any]:
    """What identifies a unit."""
    rows = {key: getattr(unit, key).tolist() for key in ("train", "validation", "judged")}
    return {"rows": digest(rows), "seed": unit.seed}


def check(outcome: Outcome, table: Sequence[Cell]) -> None:
    """Raises what kept cells from being trained.

    Raises:
        SettingsError: Their settings are to blame for some.
        DeviceError: They are not.
    """
    if not outcome.failures:
        return
    kinds = {kind for _, kind, _ in outcome.failures}
    error: type[MmsaError] = SettingsError if "settings" in kinds else DeviceError
    titles = {cell.setting: title_of(cell) for cell in reversed(table)}
    raise error(
        f"{len(outcome.failures)} cell(s) could not be trained.",
        "Mend what they failed for; the same command goes on, what is done is kept.",
        [f"{titles[setting]}: {reason}" for setting, _, reason in outcome.failures],
    )
