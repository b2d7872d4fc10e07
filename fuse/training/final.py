"""Training of a final model: folds, seeds, several settings, and one judgement on outer rows."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fuse.figures.calibration import Decide, Probabilities
from fuse.figures.records import EpochRecord, RunFigures
from fuse.setting import Setting
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank

from .calibration import calibrate
from .ensemble import Blend, Ensemble
from .judging import JudgedPart, PartFits, judge, member_records, predict_held_out
from .plan import OuterPart, plan_part, plan_parts
from .recipe import Recipe, weighted_settings
from .task import Checkpoint, Fit, Task
from .trainer import fit_group

HeldOutProbabilities = Mapping[tuple[int, Setting], Probabilities]
"""Probabilities of held-out rows, (samples, classes), by place of the outer part and setting."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A final model and its figures on rows that took part in no choice."""

    ensemble: Ensemble
    fits: list[Fit]
    outer: NDArray[np.int64]
    """Rows that judged, sorted."""
    probabilities: Probabilities
    """(outer rows, classes), calibrated"""
    predicted: dict[Decide, NDArray[np.int64]]
    """Class codes by each decision rule, (outer rows,)"""
    figures: RunFigures


def train(
    recipes: Sequence[Recipe],
    bank: FeatureBank,
    groups: NDArray[np.int64],
    protocol: Protocol,
    *,
    names: Sequence[str],
    decide: Decide = "accuracy",
    averaged: bool = True,
    refit: bool = False,
    held_out: HeldOutProbabilities = MappingProxyType({}),
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    stacked: bool | None = None,
    checkpoint: Checkpoint = Checkpoint(),  # noqa: B008  (it holds nothing)
) -> Trained:
    """Trains recipes on the development rows and scores their averages once on the outer rows.

    Args:
        recipes: What to train: one recipe for all outer parts, or one a part.
        bank: Features of the labelled rows.
        groups: Duplicate groups, (samples,).
        protocol: See `plan_parts`. In a cross-validation the members that did not see a part judge
            it, and the final model has the members of all parts.
        names: Class names.
        decide: Decision rule of the figures; those of the others stand beside them.
        averaged: The model is the average of its members; else, of each setting, the member with
            the best value on its own held-out fold.
        refit: The folds' members only calibrate, and say after how many epochs training ends; the
            model's own, one a seed, learn from all development rows.
        held_out: What a search of the same folds and seeds predicted, of settings that
            `ignores_held_out`; with `refit`, their members of the folds are not trained again.
        on_epoch: Called with each epoch's record.
        stacked: See `trainer.fit_group`.
        checkpoint: See `trainer.fit_group`.

    Raises:
        SettingsError: ``refit`` and not ``averaged``.
    """
    if refit and not averaged:
        raise SettingsError("refit trains no member that could be the best of its folds.")
    labels = bank.labels.cpu().numpy()
    parts = plan_parts(labels, groups, protocol)
    members = _members(
        recipes,
        bank,
        parts,
        protocol,
        names=names,
        averaged=averaged,
        refit=refit,
        held_out=held_out,
        on_epoch=on_epoch,
        stacked=stacked,
        checkpoint=checkpoint,
    )
    trained = members.parts
    judged = [
        JudgedPart.of(part, trained[at], recipes[at % len(recipes)].settings[0], bank, labels)
        for at, part in enumerate(parts)
    ]
    records = member_records(parts, trained, bank)
    judgement = judge(judged, records, bank, groups, names, decide)
    return Trained(
        Ensemble(members.blends, judgement.calibration),
        members.fits,
        judgement.rows,
        judgement.probabilities,
        judgement.predicted,
        judgement.figures,
    )


def train_on_all_rows(
    setting: Setting,
    bank: FeatureBank,
    groups: NDArray[np.int64],
    protocol: Protocol,
    *,
    names: Sequence[str],
    refit: bool = False,
) -> Ensemble:
    """Trains a model of one setting on all rows of a bank; none are left to judge it.

    It is calibrated on the held-out rows of the folds, as that of `train`, which it equals on the
    same development rows.

    Args:
        setting: What to train.
        bank: Features of the labelled rows.
        groups: Duplicate groups, (samples,).
        protocol: Its folds, seeds and seed count.
        names: Class names.
        refit: See `train`.

    Raises:
        SettingsError: The setting makes no model, or a class has fewer groups than folds.
        TrainingError: The loss is not finite.
    """
    labels = bank.labels.cpu().numpy()
    none = np.empty(0, np.int64)
    part = plan_part(np.arange(len(labels)), none, labels, groups, protocol)
    members = _members([Recipe.single(setting)], bank, [part], protocol, names=names, refit=refit)
    probabilities, rows = predict_held_out(part, members.parts[0], bank)
    truth = [labels[fold] for fold in rows]
    calibration = calibrate(probabilities, truth, offsets=setting.offsets, prior=setting.prior)
    return Ensemble(members.blends, calibration)


@dataclass(frozen=True, slots=True)
class _Members:
    """Everything that was trained."""

    fits: list[Fit]
    """In the order of their numbers."""
    parts: list[list[PartFits]]
    """By outer part and setting."""
    blends: list[Blend]
    """Those of the final model."""


def _members(
    recipes: Sequence[Recipe],
    bank: FeatureBank,
    parts: Sequence[OuterPart],
    protocol: Protocol,
    *,
    names: Sequence[str],
    averaged: bool = True,
    refit: bool = False,
    held_out: HeldOutProbabilities = MappingProxyType({}),
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    stacked: bool | None = None,
    checkpoint: Checkpoint = Checkpoint(),  # noqa: B008  (it holds nothing)
) -> _Members:
    """Trains the members of all outer parts; arguments as of `train`."""
    fits: list[Fit] = []

    def fit_all(setting: Setting, tasks: list[Task]) -> list[Fit]:
        found = fit_group(
            setting,
            bank,
            tasks,
            names=names,
            on_epoch=on_epoch,
            first=len(fits),
            stacked=stacked,
            checkpoint=checkpoint,
        )
        fits.extend(found)
        return found

    trained: list[list[PartFits]] = [[] for _ in parts]
    blends: list[Blend] = []
    for number, weighted in enumerate(weighted_settings(recipes, len(parts)), start=1):
        setting, places = weighted.setting, weighted.parts
        known = {at: held_out[at, setting] for at in places if (at, setting) in held_out}
        tasks = {at: [] if at in known else parts[at].tasks for at in places}
        every = iter(fit_all(setting, [task for of_part in tasks.values() for task in of_part]))
        of_folds = [[next(every) for _ in tasks[at]] for at in places]
        alone = [at for at in places if _is_alone(recipes[at % len(recipes)], averaged, refit)]
        pairs = {at: parts[at].neighbours for at in alone}
        rest = iter(fit_all(setting, [task for tasks in pairs.values() for task in tasks]))
        blends.append(Blend(setting, [], weighted.weight))
        for at, members in zip(places, of_folds, strict=True):
            final = _kept(setting, members, averaged)
            if refit:
                final = fit_all(*_refitting(setting, members, parts[at], protocol.seeds))
            weight = weighted.weight * len(parts) / len(places)
            neighbours = [next(rest) for _ in pairs.get(at, [])]
            trained[at].append(
                PartFits(number, setting, weight, members, neighbours, final, known.get(at))
            )
            blends[-1].members.extend(fit.model for fit in final)
    return _Members(fits, trained, blends)


def count_members(
    recipes: Sequence[Recipe],
    parts: Sequence[OuterPart],
    protocol: Protocol,
    *,
    averaged: bool,
    refit: bool,
    held_out: Container[tuple[int, Setting]] = (),
) -> list[tuple[Setting, int]]:
    """How many members `train` trains of each setting.

    Args:
        recipes: As of `train`, as the next ones.
        parts: Of `plan_parts`.
        protocol: Which rows train and judge.
        averaged: Whether the model is the average of its members.
        refit: Whether these learn from all development rows.
        held_out: As of `train`.
    """
    found = []
    for weighted in weighted_settings(recipes, len(parts)):
        alone = [_is_alone(recipes[at % len(recipes)], averaged, refit) for at in weighted.parts]
        new = sum((at, weighted.setting) not in held_out for at in weighted.parts)
        members = protocol.seeds * (new * protocol.folds + len(weighted.parts) * refit)
        members += sum(alone) * len(parts[0].neighbours)
        found.append((weighted.setting, members))
    return found


def _is_alone(recipe: Recipe, averaged: bool, refit: bool) -> bool:
    """Whether the model averages the folds' members of a single setting.

    A row is held out from one of these alone, and a single member is surer of itself than their
    average. `OuterPart.neighbours` are trained beside them, so that held-out predictions are
    averages too. Refitted members, one a seed, and those of several settings have such averages
    anyway.
    """
    return averaged and not refit and len(recipe.settings) == 1


def ignores_held_out(setting: Setting) -> bool:
    """Whether nothing of a setting's training follows from held-out rows."""
    return setting.keep == "last" and setting.schedule != "plateau"


def _kept(setting: Setting, members: list[Fit], averaged: bool) -> list[Fit]:
    """The members that the model is of: all, or the best on its own held-out fold."""
    return members if averaged else [max(members, key=lambda fit: fit.kept.value(setting.metric))]


def _refitting(
    setting: Setting, members: Sequence[Fit], part: OuterPart, seeds: int
) -> tuple[Setting, list[Task]]:
    """Trains on all development rows as the folds' members were trained; nothing stops it.

    It takes the median number of their epochs, without them the setting's. ``plateau`` looks at
    held-out rows, of which there are none: the median learning rate of each of the members' epochs
    is used again.
    """
    kept = [fit.kept.epoch for fit in members] or [setting.epochs]
    epochs = round(float(np.median(kept)))
    rates: tuple[float, ...] = ()
    if setting.schedule == "plateau":
        histories = [fit.history for fit in members]
        rates = tuple(
            float(np.median([h[epoch].learning_rate for h in histories if epoch < len(h)]))
            for epoch in range(epochs)
        )
    nothing = np.empty(0, np.int64)
    tasks = [Task(part.development, nothing, task.seed, rates) for task in part.tasks[:seeds]]
    return replace(setting, keep="last", epochs=epochs), tasks
