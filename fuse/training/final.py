"""Training of a final model: folds, seeds, several settings, and one judgement on outer rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fuse.figures.metrics import probability_score, selection_score
from fuse.figures.probability_resampling import intervals
from fuse.setting import METRICS, Setting
from mmsa_cache.data.splits import grouped_folds, outer_splits
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank

from .calibration import Calibration, Probabilities, calibrate
from .classifier import predict
from .ensemble import Blend, Ensemble
from .trainer import Checkpoint, Fit, Record, Task, fit_group

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
    """``outer`` and ``inner`` scores, also ``_uncalibrated``; ``intervals`` of ``outer``;
    ``duplicates``: outer rows that show a post which was learned from, and
    ``outer_without_duplicates``; ``calibration``; a record a member and a part; ``spread``: mean
    and deviation of single members over the outer rows."""


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
        outer: Kind of outer split, see `mmsa_cache.data.splits.outer_splits`.
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
        outer: Kind of outer split, see `mmsa_cache.data.splits.outer_splits`; of a cross-validation
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

    trained: list[list[_Pair]] = [[] for _ in parts]
    for setting in settings:
        every = iter(fit_all(setting, [task for part in parts for task in part.tasks]))
        of_folds = [[next(every) for _ in part.tasks] for part in parts]
        for part, members, at in zip(parts, of_folds, trained, strict=True):
            final = _kept(setting, members, averaged)
            if refit:
                final = fit_all(_refitting(setting, members), _whole(part, seeds))
            at.append(_Pair(_blend(setting, members), _blend(setting, final)))
    judged = [
        _Judged.by(part, pairs, bank, labels, folds, settings[0])
        for part, pairs in zip(parts, trained, strict=True)
    ]
    blends = [
        Blend(setting, [member for pairs in trained for member in pairs[number].model.members])
        for number, setting in enumerate(settings)
    ]
    rows = np.concatenate([part.judged for part in parts])
    order = np.argsort(rows)
    outer_final = np.concatenate([part.calibration(part.outer) for part in judged])[order]
    outer_rows = rows[order]
    return Trained(
        Ensemble(blends, _mean_calibration([part.calibration for part in judged])),
        fits,
        outer_rows,
        outer_final,
        {
            **_figures(parts, judged, labels, names),
            **_duplicates(parts, judged, bank.guids, labels, groups, names),
            **_of_members(settings, parts, trained, fits, bank, labels),
            "intervals": intervals(labels[outer_rows], outer_final, names),
            "training_rows": len(parts[0].development),
        },
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Members of one setting on one outer part."""

    folds: Blend
    """Each without one fold."""
    model: Blend
    """Those that the final model is of."""


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
        pairs: Sequence[_Pair],
        bank: FeatureBank,
        labels: NDArray[np.int64],
        folds: int,
        setting: Setting,
    ) -> _Judged:
        inner, truth = [], []
        for fold, task in enumerate(part.tasks[:folds]):
            # A fold's rows are predicted by the members, one a seed, that did not learn from them.
            without = [Blend(p.folds.setting, p.folds.members[fold::folds]) for p in pairs]
            inner.append(np.mean([b.predict(bank, task.validation) for b in without], axis=0))
            truth.append(labels[task.validation])
        offsets = setting.offsets
        if offsets == "fitted" and setting.metric != "macro_f1":
            offsets = "none"
        return cls(
            np.concatenate(inner),
            np.concatenate(truth),
            np.mean([pair.model.predict(bank, part.judged) for pair in pairs], axis=0),
            calibrate(inner, truth, offsets=offsets, prior=setting.prior),
        )


def _figures(
    parts: Sequence[Part],
    judged: Sequence[_Judged],
    labels: NDArray[np.int64],
    names: Sequence[str],
) -> Record:
    """Scores of the whole, with and without calibration, and of every outer part."""
    truth = np.concatenate([labels[part.judged] for part in parts])
    inner_truth = np.concatenate([found.inner_labels for found in judged])
    calibration = _mean_calibration([found.calibration for found in judged])
    scores = [
        selection_score(labels[part.judged], found.calibration(found.outer))
        for part, found in zip(parts, judged, strict=True)
    ]
    sets = {
        "outer": (truth, [j.calibration(j.outer) for j in judged]),
        "outer_uncalibrated": (truth, [j.outer for j in judged]),
        "inner": (inner_truth, [j.calibration(j.inner) for j in judged]),
        "inner_uncalibrated": (inner_truth, [j.inner for j in judged]),
    }
    return {
        **{
            key: probability_score(rows, np.concatenate(found), names)
            for key, (rows, found) in sets.items()
        },
        "calibration": {
            "temperature": calibration.temperature,
            "offsets": list(calibration.offsets),
        },
        "parts": [
            {"rows": len(part.judged), **found} for part, found in zip(parts, scores, strict=True)
        ],
        "spread_parts": {m: _spread([score[m] for score in scores]) for m in METRICS},
    }


def _duplicates(
    parts: Sequence[Part],
    judged: Sequence[_Judged],
    guids: Sequence[str],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    names: Sequence[str],
) -> Record:
    """Which outer rows show a post that their part learned from, and the figures without them."""
    twins = [np.isin(groups[part.judged], groups[part.development]) for part in parts]
    rows = np.concatenate([part.judged[~twin] for part, twin in zip(parts, twins, strict=True)])
    found = np.concatenate(
        [of.calibration(of.outer)[~twin] for of, twin in zip(judged, twins, strict=True)]
    )
    doubled = np.concatenate([part.judged[twin] for part, twin in zip(parts, twins, strict=True)])
    return {
        "duplicates": {
            "rows": len(doubled),
            "guids": [guids[row] for row in sorted(doubled.tolist())],
        },
        "outer_without_duplicates": (
            probability_score(labels[rows], found, names) if len(rows) else None
        ),
    }


def _of_members(
    settings: Sequence[Setting],
    parts: Sequence[Part],
    trained: Sequence[Sequence[_Pair]],
    fits: Sequence[Fit],
    bank: FeatureBank,
    labels: NDArray[np.int64],
) -> Record:
    """A record a member of the folds: where it stopped, what it is worth alone; and the spread."""
    place = {id(fit.model): number for number, fit in enumerate(fits)}
    records = []
    for number, setting in enumerate(settings):
        for outer, (part, pairs) in enumerate(zip(parts, trained, strict=True)):
            for task, model in zip(part.tasks, pairs[number].folds.members, strict=True):
                kept = fits[place[id(model)]].kept
                found = predict(model, bank, part.judged, setting)
                records.append(
                    {
                        "member": place[id(model)] + 1,
                        "setting": number + 1,
                        "part": outer + 1,
                        "seed": task.seed,
                        "best_epoch": kept["epoch"],
                        "training_rows": len(task.train),
                        "stopping_rows": len(task.validation),
                        **{metric: kept[metric] for metric in METRICS},
                        "outer": selection_score(labels[part.judged], found),
                    }
                )
    spread = {m: _spread([record["outer"][m] for record in records]) for m in METRICS}
    return {"members": records, "spread": spread}


def _mean_calibration(found: Sequence[Calibration]) -> Calibration:
    """One for the members of all parts: geometric mean of temperatures, mean of offsets."""
    temperature = float(np.exp(np.mean([np.log(c.temperature) for c in found])))
    offsets = np.mean([c.offsets for c in found], axis=0)
    return Calibration(temperature, tuple(offsets.tolist()))


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample deviation; a single value has none (0)."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "deviation": deviation}
