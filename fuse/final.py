"""Training of a final model: folds, seeds, several settings, and one judgement on outer rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.bank import FeatureBank
from mmsa_cache.errors import SettingsError
from mmsa_cache.splits import grouped_folds, outer_splits

from .calibration import Calibration, Probabilities, calibrate
from .ensemble import Blend, Ensemble
from .metrics import probability_score
from .setting import METRICS, Setting
from .trainer import Checkpoint, Fit, Record, Task, fit_group, predict

# A single member stops on one of so many folds of the development rows.
_STOPPING_FOLDS = 8


@dataclass(frozen=True, slots=True)
class Part:
    """One outer part: who learns from its development rows, and the rows that judge them."""

    development: NDArray[np.int64]
    judged: NDArray[np.int64]
    tasks: list[Task]


@dataclass(frozen=True, slots=True)
class Trained:
    """A final model and its figures on rows that took part in no choice."""

    ensemble: Ensemble
    fits: list[Fit]
    outer: NDArray[np.int64]
    """Rows that judged, sorted."""
    probabilities: Probabilities
    """(outer rows, classes), calibrated"""
    figures: Record
    """``outer`` and ``inner`` scores, also ``_uncalibrated``; ``calibration``; a record a member
    and a part; ``spread``: mean and deviation of single members over the outer rows."""


def plan(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    outer: str,
    folds: int,
    seeds: int,
    seed: int,
) -> list[Part]:
    """Says which rows every member learns from.

    The development rows of an outer part are cut into folds that keep duplicate groups together.
    Each member trains without one fold, which decides when it stops; every row is so held out once
    a seed, and what is fitted on held-out predictions is honest.

    Args:
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,).
        outer: Kind of outer split, see `mmsa_cache.splits.outer_splits`.
        folds: Folds; with 1 a member stops on an eighth of the rows.
        seeds: Members a fold.
        seed: Seed of splits and members.
    """
    parts = []
    for development, judged in outer_splits(outer, labels, groups, seed):
        cuts = grouped_folds(
            labels[development], groups[development], folds if folds > 1 else _STOPPING_FOLDS, seed
        )[:folds]
        tasks = [
            Task(development[inside], development[outside], seed + turn * folds + number)
            for turn in range(seeds)
            for number, (inside, outside) in enumerate(cuts)
        ]
        parts.append(Part(development, judged, tasks))
    return parts


def train(
    settings: Sequence[Setting],
    bank: FeatureBank,
    groups: NDArray[np.int64],
    *,
    outer: str,
    names: Sequence[str],
    seed: int,
    folds: int,
    seeds: int = 1,
    averaged: bool = True,
    refit: bool = False,
    on_epoch: Callable[[Record], None] = lambda record: None,
    stacked: bool | None = None,
    checkpoint: Checkpoint = Checkpoint(),  # noqa: B008  (it holds nothing)
) -> Trained:
    """Trains settings on the development rows and scores their average once on the outer rows.

    Args:
        settings: What to train; several count alike, whatever their number of members. The first
            says which metric counts and how the whole is calibrated.
        bank: Features of the labelled rows.
        groups: Duplicate groups, (samples,).
        outer: Kind of outer split, see `mmsa_cache.splits.outer_splits`; of a cross-validation
            every part is judged by the members that did not see it, and the final model has the
            members of all parts.
        names: Class names.
        seed: Seed of splits and training.
        folds: Folds of the development rows, see `plan`.
        seeds: Members a fold.
        averaged: The model is the average of its members; else, of each setting, the member with
            the best value on its own held-out fold.
        refit: The folds' members only calibrate, and say after how many epochs training ends; the
            model's own, one a seed, learn from all development rows.
        on_epoch: Called with each epoch's record, which also names its member.
        stacked: See `trainer.fit_group`.
        checkpoint: See `trainer.fit_group`.

    Raises:
        SettingsError: ``refit`` and not ``averaged``.
    """
    if refit and not averaged:
        raise SettingsError("refit trains no member that could be the best of its folds.")
    labels = bank.labels.cpu().numpy()
    parts = plan(labels, groups, outer=outer, folds=folds, seeds=seeds, seed=seed)
    fits: list[Fit] = []

    def fit_all(setting: Setting, tasks: list[Task]) -> list[Fit]:
        first = len(fits)
        found = fit_group(
            setting,
            bank,
            tasks,
            names=names,
            on_epoch=lambda place, record: on_epoch({"member": first + place + 1, **record}),
            stacked=stacked,
            checkpoint=_Shifted(checkpoint, first),
        )
        fits.extend(found)
        return found

    # Of each part, the members of each setting: (those of the folds, those that the model is of).
    trained: list[list[tuple[Blend, Blend]]] = [[] for _ in parts]
    for setting in settings:
        every = iter(fit_all(setting, [task for part in parts for task in part.tasks]))
        of_folds = [[next(every) for _ in part.tasks] for part in parts]
        for part, members, at in zip(parts, of_folds, trained, strict=True):
            final = _kept(setting, members, averaged)
            if refit:
                final = fit_all(_refitting(setting, members), _whole(part, seeds))
            at.append((_blend(setting, members), _blend(setting, final)))
    judged = [
        _Judged.by(part, found, bank, labels, folds, settings[0])
        for part, found in zip(parts, trained, strict=True)
    ]
    rows = np.concatenate([part.judged for part in parts])
    order = np.argsort(rows)
    calibration = _mean_calibration([part.calibration for part in judged])
    blends = [
        Blend(setting, [member for part in trained for member in part[number][1].members])
        for number, setting in enumerate(settings)
    ]
    outer_plain, outer_final = (
        np.concatenate([values(part) for part in judged])[order]
        for values in (lambda j: j.outer, lambda j: j.calibration(j.outer))
    )
    inner_plain, inner_final = (
        np.concatenate([values(part) for part in judged])
        for values in (lambda j: j.inner, lambda j: j.calibration(j.inner))
    )
    inner_truth = np.concatenate([part.inner_labels for part in judged])
    rows = rows[order]
    scores = [
        probability_score(labels[part.judged], found.calibration(found.outer), names)
        for part, found in zip(parts, judged, strict=True)
    ]
    records = _member_records(settings, parts, trained, fits, bank, labels, names)
    return Trained(
        Ensemble(blends, calibration),
        fits,
        rows,
        outer_final,
        {
            "outer": probability_score(labels[rows], outer_final, names),
            "outer_uncalibrated": probability_score(labels[rows], outer_plain, names),
            "inner": probability_score(inner_truth, inner_final, names),
            "inner_uncalibrated": probability_score(inner_truth, inner_plain, names),
            "calibration": {
                "temperature": calibration.temperature,
                "offsets": list(calibration.offsets),
            },
            "members": records,
            "parts": [{"rows": s["rows"], **{m: s[m] for m in METRICS}} for s in scores],
            "spread": {m: _spread([record["outer"][m] for record in records]) for m in METRICS},
            "spread_parts": {m: _spread([score[m] for score in scores]) for m in METRICS},
            "training_rows": len(parts[0].development),
        },
    )


class _Shifted(Checkpoint):
    """The places of one group among those of a whole run."""

    def __init__(self, inner: Checkpoint, first: int) -> None:
        self._inner, self._first = inner, first

    def load(self, place: int) -> Record | None:
        return self._inner.load(self._first + place)

    def save(self, place: int, state: Record) -> None:
        self._inner.save(self._first + place, state)


def _kept(setting: Setting, members: list[Fit], averaged: bool) -> list[Fit]:
    """The members that the model is of: all, or the best on its own held-out fold."""
    return members if averaged else [max(members, key=lambda fit: fit.kept[setting.metric])]


def _refitting(setting: Setting, members: Sequence[Fit]) -> Setting:
    """Trains as long as the folds' members did, with no rows to stop on."""
    epochs = round(float(np.median([fit.kept["epoch"] for fit in members])))
    return replace(setting, keep="last", epochs=epochs)


def _whole(part: Part, seeds: int) -> list[Task]:
    """Members that learn from all development rows of a part."""
    nothing = np.empty(0, np.int64)
    return [Task(part.development, nothing, task.seed) for task in part.tasks[:seeds]]


def _blend(setting: Setting, fits: Sequence[Fit]) -> Blend:
    return Blend(setting, [fit.model for fit in fits])


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the members of one outer part predict."""

    inner: Probabilities
    """Of development rows by members that did not learn from them, fold after fold"""
    inner_labels: NDArray[np.int64]
    outer: Probabilities
    """Of the outer rows, in the order of `Part.judged`"""
    calibration: Calibration

    @classmethod
    def by(
        cls,
        part: Part,
        trained: Sequence[tuple[Blend, Blend]],
        bank: FeatureBank,
        labels: NDArray[np.int64],
        folds: int,
        setting: Setting,
    ) -> _Judged:
        inner, truth = [], []
        for fold, task in enumerate(part.tasks[:folds]):
            # A fold's rows are predicted by the members, one a seed, that did not learn from them.
            without = [Blend(b.setting, b.members[fold::folds]) for b, _ in trained]
            inner.append(np.mean([b.predict(bank, task.validation) for b in without], axis=0))
            truth.append(labels[task.validation])
        offsets = setting.offsets
        if offsets == "fitted" and setting.metric != "macro_f1":
            offsets = "none"
        return cls(
            np.concatenate(inner),
            np.concatenate(truth),
            np.mean([blend.predict(bank, part.judged) for _, blend in trained], axis=0),
            calibrate(inner, truth, offsets=offsets, prior=setting.prior),
        )


def _member_records(
    settings: Sequence[Setting],
    parts: Sequence[Part],
    trained: Sequence[Sequence[tuple[Blend, Blend]]],
    fits: Sequence[Fit],
    bank: FeatureBank,
    labels: NDArray[np.int64],
    names: Sequence[str],
) -> list[Record]:
    """A record a member of the folds: where it stopped, and what it is worth alone."""
    place = {id(fit.model): number for number, fit in enumerate(fits)}
    records = []
    for number in range(len(settings)):
        for outer, part in enumerate(parts):
            for task, model in zip(part.tasks, trained[outer][number][0].members, strict=True):
                fit = fits[place[id(model)]]
                alone = probability_score(
                    labels[part.judged], predict(model, bank, part.judged, settings[number]), names
                )
                records.append(
                    {
                        "member": place[id(model)] + 1,
                        "setting": number + 1,
                        "part": outer + 1,
                        "seed": task.seed,
                        "best_epoch": fit.kept["epoch"],
                        "training_rows": len(task.train),
                        "stopping_rows": len(task.validation),
                        **{metric: fit.kept[metric] for metric in METRICS},
                        "outer": {metric: alone[metric] for metric in METRICS},
                    }
                )
    return records


def _mean_calibration(found: Sequence[Calibration]) -> Calibration:
    """One for the members of all parts: geometric mean of temperatures, mean of offsets."""
    temperature = float(np.exp(np.mean([np.log(c.temperature) for c in found])))
    offsets = np.mean([c.offsets for c in found], axis=0)
    return Calibration(temperature, tuple(offsets.tolist()))


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample deviation; a single value has none (0)."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "deviation": deviation}
