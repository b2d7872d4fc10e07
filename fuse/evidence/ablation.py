"""Training of the cells of an ablation by worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

import numpy as np
import torch
from pydantic import ValidationError

from fuse.figures.record import Count, Number, Record
from fuse.figures.records import Metric
from fuse.search.dispatch import dispatch
from fuse.search.messages import Failure, FoldSplit, TrainingReply, TrainingRequest
from fuse.search.pool import TrainingData, WorkerOptions
from fuse.setting import Setting
from mmsa_cache.errors import DeviceError, MmsaError, SettingsError
from mmsa_cache.files.hashing import digest
from mmsa_cache.files.shelf import Shelf
from mmsa_cache.names import MODALITIES, split_terms
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


class Ablation:
    """The trainings of some settings; those on the shelf are not run again.

    Args:
        settings: What to train, in this order.
        how: The trainings of each.
        data: What they train on.
        shelf: Where finished trainings lie.
        metric: Of the stopping rows, stored with each training.
        workers: The worker processes.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        how: Trainings,
        data: TrainingData,
        shelf: Shelf,
        metric: Metric,
        workers: WorkerOptions = WorkerOptions(),  # noqa: B008  (frozen)
    ) -> None:
        self._how, self._data, self._shelf = how, data, shelf
        self._metric, self._workers = metric, workers
        self._common = {
            "classes": list(data.origin.classes),
            "data": data.origin.data,
            "labels": digest({"labels": data.labels.tolist()}),
            **({"val": data.origin.val} if data.origin.val else {}),
            "device": workers.devices[0].partition(":")[0],
            "torch": torch.__version__,
        }
        self._rows = [_identity_of(unit) for unit in how.units]
        units = range(len(how.units))
        self.wanted = [(setting, unit) for setting in dict.fromkeys(settings) for unit in units]
        """Settings and places of their units."""
        kept = {key: self._kept(*key) for key in self.wanted}
        self.done = {key: training for key, training in kept.items() if training is not None}
        """Finished trainings."""

    def run(self, on_done: Callable[[Setting], None] = lambda setting: None) -> Outcome:
        """Trains what is missing; each training goes to the shelf when it is done.

        Args:
            on_done: Told the setting of every training that is done.

        Raises:
            DeviceError: Workers do not start.
        """
        settings = list(dict.fromkeys(setting for setting, _ in self.wanted))
        waiting = deque(
            TrainingRequest(number, setting, (group,), judge=True)
            for number, setting in enumerate(settings)
            for group in self._missing(setting)
        )
        failures: dict[Setting, Failure] = {}

        def take(beside: bool) -> TrainingRequest | None:
            while waiting:
                task = waiting.popleft()
                if task.setting not in failures:
                    return task
            return None

        units, done = self._how.units, self.done
        with closing(self._workers.pool(self._data, units, self._metric, len(waiting))) as pool:
            for task, said in dispatch(pool, take, is_done=lambda: not waiting):
                if isinstance(said, Failure):
                    failures.setdefault(task.setting, said)
                elif isinstance(said, TrainingReply):
                    for unit, training in zip(task.units, _trainings(said), strict=True):
                        key = (task.setting, unit)
                        self._shelf.put(self._identity(*key), training.model_dump())
                        done[key] = training
                        on_done(task.setting)
        trainings = {
            setting: [done[setting, unit] for unit in range(len(units))]
            for setting in settings
            if all((setting, unit) in done for unit in range(len(units)))
        }
        return Outcome(
            {s: self._how.joined([t.predicted for t in of]) for s, of in trainings.items()},
            trainings,
            failures,
        )

    def _missing(self, setting: Setting) -> list[tuple[int, ...]]:
        """Units of a setting to train: each alone, or all side by side."""
        units = [u for u in range(len(self._how.units)) if (setting, u) not in self.done]
        if self._workers.stacked:
            return [tuple(units)] if units else []
        return [(unit,) for unit in units]

    def _kept(self, setting: Setting, unit: int) -> CellTraining | None:
        try:
            found = CellTraining.model_validate(self._shelf.find(self._identity(setting, unit)))
        except ValidationError:  # nothing there, or damaged
            return None
        judged, classes = self._how.units[unit].judged, len(self._data.origin.classes)
        fits = len(found.predicted) == len(judged) and max(found.predicted, default=0) < classes
        return found if fits else None

    def _identity(self, setting: Setting, unit: int) -> dict[str, object]:
        features = _features(self._data.origin, setting)
        return {**self._common, **self._rows[unit], "setting": asdict(setting), **features}


def _trainings(result: TrainingReply) -> list[CellTraining]:
    """What the trainings of a group gave, their time in equal shares."""
    return [
        CellTraining(
            predicted=np.argmax(judgement.outer, 1).tolist(),
            held_out=score,
            parameters=result.parameters,
            seconds=result.seconds / len(result.units),
        )
        for judgement, score in zip(result.judgements, result.units, strict=True)
    ]


def _identity_of(unit: FoldSplit) -> dict[str, object]:
    rows = {key: getattr(unit, key).tolist() for key in ("train", "validation", "judged")}
    return {"rows": digest(rows), "seed": unit.seed}


def _features(origin: Origin, setting: Setting) -> dict[str, str]:
    """The features that a setting reads."""
    return {
        modality: own
        if isinstance(own := getattr(origin, modality), str)
        else "+".join(own[name] for name in split_terms(names))
        for modality, names in zip(MODALITIES, setting.encoders, strict=True)
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
        "Correct the cause; the same command trains only what is missing.",
        [f"{titles[setting]}: {failure.reason}" for setting, failure in failures.items()],
    )
