"""Trains the cells of an ablation in worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

import numpy as np
import torch
from pydantic import ValidationError

from fuse.figures.confusion import Codes
from fuse.figures.record import Count, Number, Record
from fuse.figures.records import Metric
from fuse.search.dispatch import dispatch
from fuse.search.messages import Failure, FoldSplit, TrainingReply, TrainingRequest
from fuse.search.pool import TrainingData, WorkerOptions
from fuse.setting import Setting
from mmsa_cache.errors import DeviceError, MmsaError, SettingsError
from mmsa_cache.files.hashing import digest
from mmsa_cache.files.result_store import ResultStore
from mmsa_cache.names import MODALITIES, split_terms
from mmsa_cache.store.identity import Origin

from .cells import Cell, title_of
from .training_plan import TrainingPlan


class CellTraining(Record):
    """One finished training of a cell, as the shelf stores it."""

    predicted: list[Count]
    """Class codes of the judged rows."""
    held_out: Number
    """Score of the rows that chose its epoch."""
    parameters: Count
    seconds: Number


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of the trainings of some settings."""

    predicted: dict[Setting, Codes]
    """(members, rows) of `TrainingPlan.rows`; only settings whose trainings are all finished."""
    trainings: dict[Setting, list[CellTraining]]
    """Of the same settings, in the order of `TrainingPlan.splits`."""
    failures: dict[Setting, Failure]
    """Settings that could not be trained."""


class Ablation:
    """The trainings of some settings. Those on the shelf are not repeated.

    Args:
        settings: What to train, in this order.
        plan: The trainings of each.
        data: What they train on.
        shelf: Storage of finished trainings.
        metric: Of the validation rows, stored with each training.
        workers: The worker processes.

    Attributes:
        planned: All trainings: settings and indices of splits.
        finished: Results of those that are done.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        plan: TrainingPlan,
        data: TrainingData,
        shelf: ResultStore,
        metric: Metric,
        workers: WorkerOptions = WorkerOptions(),  # noqa: B008  (frozen)
    ) -> None:
        self._settings = list(dict.fromkeys(settings))
        self._plan, self._data, self._shelf = plan, data, shelf
        self._metric, self._workers = metric, workers
        self._common = {
            "classes": list(data.origin.classes),
            "data": data.origin.data,
            "labels": digest({"labels": data.labels.tolist()}),
            **({"val": data.origin.val} if data.origin.val else {}),
            "device": workers.devices[0].partition(":")[0],
            "torch": torch.__version__,
        }
        self._split_identities = [_split_identity(split) for split in plan.splits]
        self.planned = [(s, split) for s in self._settings for split in range(len(plan.splits))]
        stored = {key: self._load(*key) for key in self.planned}
        self.finished = {key: training for key, training in stored.items() if training is not None}

    def run(self, on_done: Callable[[Setting], None] = lambda setting: None) -> Outcome:
        """Trains what is missing; stores each training when it is finished.

        Args:
            on_done: Called with the setting of every finished training.

        Raises:
            DeviceError: Workers do not start.
        """
        requests = deque(
            TrainingRequest(number, setting, (group,), judge=True)
            for number, setting in enumerate(self._settings)
            for group in self._missing(setting)
        )
        failures: dict[Setting, Failure] = {}

        def next_request(for_baselines: bool) -> TrainingRequest | None:
            while requests:
                request = requests.popleft()
                if request.setting not in failures:
                    return request
            return None

        pool = self._workers.pool(self._data, self._plan.splits, self._metric, len(requests))
        with closing(pool):
            for request, message in dispatch(pool, next_request, is_done=lambda: not requests):
                if isinstance(message, Failure):
                    failures.setdefault(request.setting, message)
                elif isinstance(message, TrainingReply):
                    for split, training in zip(request.splits, _trainings(message), strict=True):
                        key = (request.setting, split)
                        self._shelf.put(self._identity(*key), training.model_dump())
                        self.finished[key] = training
                        on_done(request.setting)
        return self._outcome(failures)

    def _outcome(self, failures: dict[Setting, Failure]) -> Outcome:
        indices = range(len(self._plan.splits))
        trainings = {
            setting: [self.finished[setting, split] for split in indices]
            for setting in self._settings
            if all((setting, split) in self.finished for split in indices)
        }
        predicted = {
            setting: self._plan.by_member([training.predicted for training in finished])
            for setting, finished in trainings.items()
        }
        return Outcome(predicted, trainings, failures)

    def _missing(self, setting: Setting) -> list[tuple[int, ...]]:
        """Splits on which a setting is to be trained: each alone, or all side by side."""
        splits = [s for s in range(len(self._plan.splits)) if (setting, s) not in self.finished]
        if self._workers.stacked:
            return [tuple(splits)] if splits else []
        return [(split,) for split in splits]

    def _load(self, setting: Setting, split: int) -> CellTraining | None:
        """Reads a training from the shelf; None if it is absent or damaged."""
        try:
            training = CellTraining.model_validate(self._shelf.find(self._identity(setting, split)))
        except ValidationError:
            return None
        rows, classes = len(self._plan.splits[split].judged), len(self._data.origin.classes)
        predicted = training.predicted
        is_valid = len(predicted) == rows and max(predicted, default=0) < classes
        return training if is_valid else None

    def _identity(self, setting: Setting, split: int) -> dict[str, object]:
        features = _features(self._data.origin, setting)
        of_split = self._split_identities[split]
        return {**self._common, **of_split, "setting": asdict(setting), **features}


def _trainings(reply: TrainingReply) -> list[CellTraining]:
    """The trainings of a group; its time is divided equally."""
    return [
        CellTraining(
            predicted=np.argmax(predictions.outer, 1).tolist(),
            held_out=score,
            parameters=reply.parameters,
            seconds=reply.seconds / len(reply.scores),
        )
        for predictions, score in zip(reply.predictions, reply.scores, strict=True)
    ]


def _split_identity(split: FoldSplit) -> dict[str, object]:
    rows = {key: getattr(split, key).tolist() for key in ("train", "validation", "judged")}
    return {"rows": digest(rows), "seed": split.seed}


def _features(origin: Origin, setting: Setting) -> dict[str, str]:
    """Identities of the features that a setting reads, by modality."""
    return {
        modality: own
        if isinstance(own := getattr(origin, modality), str)
        else "+".join(own[name] for name in split_terms(names))
        for modality, names in zip(MODALITIES, setting.encoders, strict=True)
    }


def raise_failures(outcome: Outcome, table: Sequence[Cell]) -> None:
    """Raises if cells could not be trained.

    Raises:
        SettingsError: Settings are the cause of some failures.
        DeviceError: Settings are not the cause.
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
