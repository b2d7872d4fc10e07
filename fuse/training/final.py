"""Training of a final model: folds, seeds, several settings, and a judgement on outer rows."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from .recipe import Recipe, part_recipes, weighted_settings
from .task import Checkpoint, Fit, Task
from .trainer import fit_group

HeldOutProbabilities = Mapping[tuple[int, Setting], Probabilities]
"""Probabilities of held-out rows, (samples, classes), by index of the outer part and setting."""
TrainFits = Callable[[Setting, Sequence[Task]], list[Fit]]
"""Trains the members of some tasks."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A final model, and its figures on rows that took part in no choice."""

    ensemble: Ensemble
    fits: list[Fit]
    outer: NDArray[np.int64]
    """The outer rows, sorted."""
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
        decide: Decision rule of the figures; those of the other rules are added.
        averaged: The model is the average of its members; if not, it has for each setting the
            member with the best value on its own held-out fold.
        refit: The members of the folds only calibrate, and say after how many epochs training
            ends. The model has further members, one a seed, that learn from all development rows.
        held_out: Predictions of a search with the same folds and seeds, of settings that
            `ignores_held_out` accepts. With `refit` their folds are not trained again.
        on_epoch: Called with each epoch's record.
        stacked: See `trainer.fit_group`.
        checkpoint: See `trainer.fit_group`.

    Raises:
        SettingsError: ``refit`` and not ``averaged``.
    """
    if refit and not averaged:
        raise SettingsError("refit trains no member that could be the best of its folds.")
    fit = partial(
        fit_group, bank=bank, names=names, on_epoch=on_epoch, stacked=stacked, checkpoint=checkpoint
    )
    labels = bank.labels.cpu().numpy()
    parts = plan_parts(labels, groups, protocol)
    members = _train_members(
        fit, recipes, parts, protocol.seeds, averaged=averaged, refit=refit, held_out=held_out
    )
    judged = [
        JudgedPart.of(part, fits, recipe.settings[0], bank, labels)
        for part, fits, recipe in zip(
            parts, members.parts, part_recipes(recipes, len(parts)), strict=True
        )
    ]
    records = member_records(parts, members.parts, bank)
    judgement = judge(judged, records, bank, groups, names, decide)
    ensemble, outer = Ensemble(members.blends, judgement.calibration), judgement.outer
    return Trained(
        ensemble, members.fits, outer.rows, outer.calibrated, outer.decided, judgement.figures
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
    """Trains a model of one setting on all rows of a bank, which leaves none to judge it.

    It is calibrated on the held-out rows of the folds. On equal development rows it is the model
    of `train`.

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
    fit = partial(fit_group, bank=bank, names=names)
    recipe = Recipe.single(setting)
    members = _train_members(fit, [recipe], [part], protocol.seeds, refit=refit)
    probabilities, rows = predict_held_out(part, members.parts[0], bank)
    truth = [labels[fold] for fold in rows]
    calibration = calibrate(probabilities, truth, offsets=setting.offsets, prior=setting.prior)
    return Ensemble(members.blends, calibration)


@dataclass(frozen=True, slots=True)
class _Members:
    """All trained members."""

    fits: list[Fit]
    """In the order of their numbers."""
    parts: list[list[PartFits]]
    """By outer part and setting."""
    blends: list[Blend]
    """Those of the final model."""


def _train_members(
    fit: Callable[..., list[Fit]],
    recipes: Sequence[Recipe],
    parts: Sequence[OuterPart],
    seeds: int,
    *,
    averaged: bool = True,
    refit: bool = False,
    held_out: HeldOutProbabilities = MappingProxyType({}),
) -> _Members:
    """Trains the members of all outer parts.

    Args:
        fit: `trainer.fit_group` without setting, tasks and first number.
        recipes: See `train`.
        parts: The outer parts.
        seeds: Number of seeds of each fold.
        averaged: See `train`.
        refit: See `train`.
        held_out: See `train`.
    """
    fits: list[Fit] = []

    def fit_tasks(setting: Setting, tasks: Sequence[Task]) -> list[Fit]:
        new = fit(setting, tasks=tasks, first=len(fits))
        fits.extend(new)
        return new

    of_parts = part_recipes(recipes, len(parts))
    part_fits: list[list[PartFits]] = [[] for _ in parts]
    blends: list[Blend] = []
    for number, weighted in enumerate(weighted_settings(recipes, len(parts)), start=1):
        setting, indices = weighted.setting, weighted.parts
        stored = {i: held_out[i, setting] for i in indices if (i, setting) in held_out}
        folds = _fit_parts(
            fit_tasks, setting, {i: [] if i in stored else parts[i].tasks for i in indices}
        )
        single = [i for i in indices if _is_single(of_parts[i], averaged, refit)]
        pairs = _fit_parts(fit_tasks, setting, {i: parts[i].pair_tasks for i in single})
        blend = Blend(setting, [], weighted.weight)
        blends.append(blend)
        for i in indices:
            final = _choose(setting, folds[i], averaged)
            if refit:
                final = fit_tasks(*_plan_refit(setting, folds[i], parts[i], seeds))
            weight = weighted.weight * len(parts) / len(indices)
            part_fits[i].append(
                PartFits(number, setting, weight, folds[i], pairs.get(i, []), final, stored.get(i))
            )
            blend.members.extend(fit.model for fit in final)
    return _Members(fits, part_fits, blends)


def _fit_parts(
    fit: TrainFits, setting: Setting, tasks: Mapping[int, Sequence[Task]]
) -> dict[int, list[Fit]]:
    """Trains the members of some outer parts as one group; tasks and fits by index of the part."""
    fits = iter(fit(setting, [task for own in tasks.values() for task in own]))
    return {index: [next(fits) for _ in own] for index, own in tasks.items()}


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
        recipes: See `train`.
        parts: The outer parts, see `plan_parts`.
        protocol: Folds and seeds.
        averaged: See `train`.
        refit: See `train`.
        held_out: Index of the part and setting of the predictions that `train` gets.
    """
    of_parts, counts = part_recipes(recipes, len(parts)), []
    for weighted in weighted_settings(recipes, len(parts)):
        single = sum(_is_single(of_parts[i], averaged, refit) for i in weighted.parts)
        new = sum((i, weighted.setting) not in held_out for i in weighted.parts)
        members = protocol.seeds * (new * protocol.folds + len(weighted.parts) * refit)
        counts.append((weighted.setting, members + single * len(parts[0].pair_tasks)))
    return counts


def _is_single(recipe: Recipe, averaged: bool, refit: bool) -> bool:
    """Whether the model is the average of the folds' members of a single setting.

    Only one of these members did not learn from a row, and a single member is surer of itself than
    their average. So the members of `OuterPart.pair_tasks` are trained too, which makes held-out
    predictions averages. Refitted members, one a seed, and those of several settings are averaged
    anyway.
    """
    return averaged and not refit and len(recipe.settings) == 1


def ignores_held_out(setting: Setting) -> bool:
    """Whether held-out rows change nothing in the training of a setting."""
    return setting.keep == "last" and setting.schedule != "plateau"


def _choose(setting: Setting, members: list[Fit], averaged: bool) -> list[Fit]:
    """The members of the model: all, or the best on its own held-out fold."""
    return members if averaged else [max(members, key=lambda fit: fit.kept.value(setting.metric))]


def _plan_refit(
    setting: Setting, members: Sequence[Fit], part: OuterPart, seeds: int
) -> tuple[Setting, list[Task]]:
    """Plans training on all development rows, as the members of the folds were trained.

    Nothing stops it early: it takes the median number of their epochs, or without them the
    setting's. ``plateau`` needs held-out rows, of which there are none; each epoch has the median
    of the members' learning rates instead.
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
