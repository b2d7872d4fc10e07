"""Ablation: every combination of some axes trained alike, and one table of what each is worth."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fuse.figures.resampling import SEED, Interval, class_recall, figures, resampled_confusions
from fuse.models.kernel import KERNEL
from fuse.search.coordinator import RETRIES
from fuse.search.pool import Pool, Process, start_process
from fuse.search.space import DEFAULTS, Study, candidates
from fuse.search.worker import Job, Source, Task, Unit
from fuse.setting import Setting
from fuse.training import classifier, trainer
from fuse.training.final import plan
from mmsa_cache.errors import DeviceError, MmsaError, SettingsError
from mmsa_cache.runs.directory import Shelf
from mmsa_cache.store.fingerprint import digest

RESAMPLES = 2000
"""Bootstrap resamples behind every interval of a table."""
CHANGES = ("accuracy", "macro_f1")
"""Figures whose differences are given."""
STOPS = ("held-out", "judged")
"""Rows that say which epoch of a training is kept, see `units`."""
MOST_CELLS = 5000
NOT_ASKED = "–"
"""Stands where an axis does not matter for a cell."""
_KEPT = {"predicted", "held_out", "parameters", "seconds"}
_LOOK_AGAIN = 0.5
"""Seconds between looks at the workers."""

Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of a table."""

    labels: dict[str, str]
    """What tells it from others: axis → value."""
    setting: Setting


def cells(study: Study, axes: Sequence[str]) -> list[Cell]:
    """Every combination of a study's lists, those that come to the same once.

    Args:
        study: Its space has lists only.
        axes: The parameters in the space, the one that changes slowest first.

    Raises:
        SettingsError: A parameter has a range, or there are too many combinations.
    """
    ranges = [key for key, choice in study.space.items() if "low" in choice]
    if ranges:
        raise SettingsError(
            f"An ablation goes through values one by one; {', '.join(ranges)}: a range.",
            "Write a list of values.",
        )
    found: list[dict[str, Any]] = [{}]
    for key in study.order():
        found = [
            {**values, key: value}
            for values in found
            for value in (
                candidates(study.space[key])
                if study.matters(key, study.fixed | values)
                else [NOT_ASKED]
            )
        ]
        if len(found) > MOST_CELLS:
            raise SettingsError(
                f"The axes have more than {MOST_CELLS} combinations.", "Give fewer of them."
            )
    places = {key: [*candidates(study.space[key]), NOT_ASKED] for key in axes}
    found.sort(key=lambda values: [places[key].index(values[key]) for key in axes])
    by_setting: dict[Setting, dict[str, str]] = {}
    for values in found:
        asked = {key: value for key, value in values.items() if value is not NOT_ASKED}
        setting = effective(study.complete(study.fixed | asked))
        labels = {key: _shown(values[key]) for key in axes}
        known = by_setting.setdefault(setting, labels)
        # What differs between combinations that come to the same does not matter for them.
        by_setting[setting] = {
            key: value if value == labels[key] else NOT_ASKED for key, value in known.items()
        }
    return [Cell(labels, setting) for setting, labels in by_setting.items()]


def _shown(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value) or '""'


def effective(setting: Setting) -> Setting:
    """The same model with what it does not read at its default: one modality needs no fusion."""
    if setting.modality == "both" or setting.fusion == KERNEL:
        return setting
    absent = "image_dim" if setting.modality == "text" else "text_dim"
    return replace(setting, **{key: DEFAULTS[key] for key in ("fusion", absent)})


@dataclass(frozen=True, slots=True)
class Protocol:
    """The trainings that every cell has in common."""

    units: list[Unit]
    """Members of the first outer part, then those of the next."""
    members: int
    """Trainings that judge all rows once; each part has so many units."""

    @property
    def rows(self) -> Codes:
        """Rows that judge, sorted."""
        return np.sort(np.concatenate([unit.judged for unit in self.units[:: self.members]]))

    def joined(self, predicted: Sequence[Sequence[int]]) -> Codes:
        """Class codes of a cell's units → (members, rows), in the order of `rows`."""
        rows = np.concatenate([unit.judged for unit in self.units[:: self.members]])
        order = np.argsort(rows)
        members = [
            np.concatenate([np.asarray(part, np.int64) for part in predicted[m :: self.members]])
            for m in range(self.members)
        ]
        return np.stack(members)[:, order]


def protocol(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    outer: str,
    folds: int,
    seeds: int,
    seed: int,
    stop: str = "held-out",
) -> Protocol:
    """Says which rows every training learns from, and which judge it.

    Args:
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,).
        outer: Kind of outer split, see `mmsa_cache.data.splits.outer_splits`.
        folds: See `fuse.training.final.plan`.
        seeds: Trainings a fold.
        seed: Seed of splits and trainings.
        stop: ``held-out``: the epoch is chosen by rows that do not judge; ``judged``: by those
            that do, all others being learned from, as the report did.

    Raises:
        SettingsError: Unknown ``stop``, or folds where no fold is held out.
    """
    if stop not in STOPS:
        raise SettingsError(f"Unknown --stop {stop!r}.", f"Valid: {', '.join(STOPS)}.")
    if stop == "judged" and folds > 1:
        raise SettingsError("--stop judged holds no fold back.", "Give --folds 1.")
    parts = plan(labels, groups, outer=outer, folds=folds, seeds=seeds, seed=seed)
    units = [
        Unit(part.development, part.judged, part.judged, task.seed)
        if stop == "judged"
        else Unit(task.train, task.validation, part.judged, task.seed)
        for part in parts
        for task in part.tasks
    ]
    return Protocol(units, folds * seeds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the trainings of some settings gave."""

    predicted: dict[Setting, Codes]
    """(members, rows) of `Protocol.rows`, of every setting whose trainings are all done"""
    records: dict[Setting, list[dict[str, Any]]]
    """A record a unit: ``parameters``, ``seconds``, ``held_out`` (its stopping score)"""
    failures: list[tuple[Setting, str, str]]
    """Settings that could not be trained: kind and reason"""


def run(
    settings: Sequence[Setting],
    how: Protocol,
    source: Source,
    labels: NDArray[np.int64],
    *,
    names: tuple[str, ...],
    features: Callable[[Setting], Mapping[str, Any]],
    shelf: Shelf,
    metric: str,
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


def title_of(cell: Cell) -> str:
    """``fusion concat, loss ce``"""
    return ", ".join(f"{key} {value}" for key, value in cell.labels.items())


def tabulate(
    table: Sequence[Cell],
    outcome: Outcome,
    labels: NDArray[np.int64],
    names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[dict[str, Any]]:
    """What every cell is worth.

    A cell's figure is the mean of its members', the deviation is that of single members (None with
    one), and the interval spans the central 95 % of this mean over resamples of the judged rows,
    which are the same for every cell.

    Args:
        table: The rows; those whose settings were not trained are left out.
        outcome: Of `run`.
        labels: Class codes of the judged rows, (rows,).
        names: Class names.
        resamples: Number of resamples.
        seed: Seed of the bootstrap.

    Returns:
        A record a cell: ``labels``, ``members``, the figures of `resampling.figures` and
        ``recall`` by class, each with ``mean``, ``deviation``, ``low`` and ``high``; ``change``:
        accuracy and macro-F1 less the first cell's, with the interval of the difference;
        ``parameters``, ``seconds`` of all its trainings and the ``setting``.
    """
    settings = list(dict.fromkeys(c.setting for c in table if c.setting in outcome.predicted))
    found = {
        setting: _figures(labels, outcome.predicted[setting], len(names), resamples, seed)
        for setting in settings
    }
    records = []
    for cell in table:
        if cell.setting not in found:
            continue
        own, first = found[cell.setting], found[settings[0]]
        trainings = outcome.records[cell.setting]
        records.append(
            {
                "labels": cell.labels,
                "members": len(outcome.predicted[cell.setting]),
                **{key: figure.record() for key, figure in own.items() if isinstance(key, str)},
                "recall": {name: own[code].record() for code, name in enumerate(names)},
                "change": {key: own[key].less(first[key]) for key in CHANGES},
                "parameters": trainings[0]["parameters"],
                "seconds": round(sum(record["seconds"] for record in trainings), 2),
                "setting": asdict(cell.setting),
            }
        )
    return records


@dataclass(frozen=True, slots=True)
class _Figure:
    """One figure of one cell."""

    values: NDArray[np.float64]
    """Of each member, (members,)"""
    samples: NDArray[np.float64]
    """Mean over members on each resample, (resamples,)"""

    def record(self) -> dict[str, float | None]:
        """Mean, deviation of single members and interval of the mean."""
        alone = len(self.values) == 1
        return {
            "mean": float(self.values.mean()),
            "deviation": None if alone else float(self.values.std(ddof=1)),
            **asdict(Interval.of(self.samples)),
        }

    def less(self, other: _Figure) -> dict[str, float]:
        """Difference of the means, and its interval over resamples that both have in common."""
        return {
            "mean": float(self.values.mean() - other.values.mean()),
            **asdict(Interval.of(self.samples - other.samples)),
        }


def changes(
    first: Codes,
    second: Codes,
    labels: NDArray[np.int64],
    names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, dict[str, float]]:
    """What a second cell's means are above a first one's, with paired intervals.

    Args:
        first: Class codes, (members, rows).
        second: The same of the other cell.
        labels: True class codes, (rows,).
        names: Class names.
        resamples: Number of resamples.
        seed: Seed of the bootstrap.

    Returns:
        ``mean``, ``low`` and ``high`` of each of `CHANGES` and of every class's recall, as
        ``recall of NAME``.
    """
    one, two = (_figures(labels, p, len(names), resamples, seed) for p in (first, second))
    keys: dict[str, str | int] = {key: key for key in CHANGES}
    keys |= {f"recall of {name}": code for code, name in enumerate(names)}
    return {title: two[key].less(one[key]) for title, key in keys.items()}


def _figures(
    labels: NDArray[np.int64], predicted: Codes, classes: int, resamples: int, seed: int
) -> dict[str | int, _Figure]:
    """By name, and the recall of every class by its code."""
    cells = labels * classes + predicted
    whole = np.stack([np.bincount(row, minlength=classes**2) for row in cells])
    whole = whole.reshape(-1, classes, classes)
    drawn = resampled_confusions(labels, predicted, classes, resamples=resamples, seed=seed)
    values, samples = figures(whole), figures(drawn)
    found: dict[str | int, _Figure] = {
        key: _Figure(values[key], samples[key].mean(axis=0)) for key in values
    }
    recalls, drawn_recalls = class_recall(whole), class_recall(drawn).mean(axis=0)
    return found | {
        code: _Figure(recalls[:, code], drawn_recalls[:, code]) for code in range(classes)
    }
