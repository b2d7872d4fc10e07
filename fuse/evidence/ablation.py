"""Training of the cells of an ablation by worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from fuse.figures.record import Count, Number, Record
from fuse.figures.records import Metric
from fuse.search.dispatch import dispatch
from fuse.search.pool import TrainingData, Workers
from fuse.search.worker import Failure, Result, Task, Unit
from fuse.setting import Setting
from mmsa_cache.errors import DeviceError, MmsaError, SettingsError
from mmsa_cache.hashing import digest
from mmsa_cache.shelf import Shelf
from mmsa_cache.store.identity import Origin

from .cells import Cell, title_of
from .trainings import Codes, Trainings


class CellTraining(Record):
    """One finished training of a cell, as the shelf keeps it."""

    predicted: list[Count]
    """Class codes of the judged rows."""
    held_out: Number
    """Score of the rows that chose its epoch."""
    parameters: Count
    seconds: Number


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the trainings of some settings gave."""

    predicted: dict[Setting, Codes]
    """(members, rows) of `Trainings.rows`, of every setting whose trainings are all done"""
    trainings: dict[Setting, list[CellTraining]]
    """Of the same settings, in the order of `Trainings.units`."""
    failures: dict[Setting, Failure]
    """Settings that could not be trained."""


def run(
    settings: Sequence[Setting],
    how: Trainings,
    data: TrainingData,
    shelf: Shelf,
    metric: Metric,
    *,
    workers: Workers = Workers(),  # noqa: B008  (frozen)
    on_start: Callable[[int, int], None] = lambda done, wanted: None,
    on_done: Callable[[Setting], None] = lambda setting: None,
) -> Outcome:
    """Trains what is not on the shelf; each training goes there when it is done.

    Args:
        settings: What to train, in this order.
        how: The trainings of each.
        data: What they train on.
        shelf: Where finished trainings lie.
        metric: Of the stopping rows, stored with each training.
        workers: The worker processes.
        on_start: Told once how many trainings there are already, and how many are wanted.
        on_done: Told the setting of every training that is done.

    Raises:
        DeviceError: Workers do not start.
    """
    wanted = list(dict.fromkeys(settings))
    units = range(len(how.units))
    common = {
        "classes": list(data.origin.classes),
        "labels": digest({"labels": data.labels.tolist()}),
        "device": workers.devices[0].partition(":")[0],
        "torch": torch.__version__,
    }
    rows = [_identity_of(unit) for unit in how.units]

    def identity(setting: Setting, unit: int) -> dict[str, Any]:
        features = _features(data.origin, setting)
        return {**common, **rows[unit], "setting": asdict(setting), **features}

    done: dict[tuple[Setting, int], CellTraining] = {}
    for setting in wanted:
        for unit in units:
            kept = _kept(shelf, identity(setting, unit))
            if kept is not None:
                done[setting, unit] = kept
    on_start(len(done), len(wanted) * len(units))
    waiting = deque(
        Task(number, setting, (unit,), judge=True)
        for number, setting in enumerate(wanted)
        for unit in units
        if (setting, unit) not in done
    )
    failures: dict[Setting, Failure] = {}

    def take() -> Task | None:
        while waiting:
            task = waiting.popleft()
            if task.setting not in failures:
                return task
        return None

    with closing(workers.pool(data, how.units, metric, len(waiting))) as pool:
        for task, said in dispatch(pool, take, is_done=lambda: not waiting):
            setting, (unit,) = task.setting, task.units
            if isinstance(said, Failure):
                failures.setdefault(setting, said)
            elif isinstance(said, Result) and said.judgement is not None:
                training = CellTraining(
                    predicted=np.argmax(said.judgement.outer, 1).tolist(),
                    held_out=said.units[0],
                    parameters=said.parameters,
                    seconds=said.seconds,
                )
                shelf.put(identity(setting, unit), training.model_dump())
                done[setting, unit] = training
                on_done(setting)
    trainings = {
        setting: [done[setting, unit] for unit in units]
        for setting in wanted
        if all((setting, unit) in done for unit in units)
    }
    return Outcome(
        {s: how.joined([one.predicted for one in found]) for s, found in trainings.items()},
        trainings,
        failures,
    )


def _kept(shelf: Shelf, identity: dict[str, Any]) -> CellTraining | None:
    try:
        return CellTraining.model_validate(shelf.find(identity))
    except ValidationError:  # nothing there, or damaged
        return None


def _identity_of(unit: Unit) -> dict[str, Any]:
    rows = {key: getattr(unit, key).tolist() for key in ("train", "validation", "judged")}
    return {"rows": digest(rows), "seed": unit.seed}


def _features(origin: Origin, setting: Setting) -> dict[str, str]:
    """The caches that a setting reads."""
    text, image = setting.encoders
    return {
        "text": origin.text if isinstance(origin.text, str) else origin.text[text],
        "image": origin.image if isinstance(origin.image, str) else origin.image[image],
    }


def check(outcome: Outcome, table: Sequence[Cell]) -> None:
    """Raises what kept cells from being trained.

    Raises:
        SettingsError: Their settings are to blame for some.
        DeviceError: They are not.
    """
    failures = outcome.failures
    if not failures:
        return
    by_setting = any(failure.by_setting for failure in failures.values())
    error: type[MmsaError] = SettingsError if by_setting else DeviceError
    titles = {cell.setting: title_of(cell) for cell in reversed(table)}
    raise error(
        f"{len(failures)} cell(s) could not be trained.",
        "Correct what they failed for; the same command goes on, what is done is kept.",
        [f"{titles[setting]}: {failure.reason}" for setting, failure in failures.items()],
    )
