"""Scores of a final model and of its members on rows that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.figures.calibration import Calibration, Probabilities
from fuse.figures.intervals import intervals
from fuse.figures.metrics import probability_score, selection_score
from fuse.figures.records import (
    METRICS,
    Duplicates,
    MemberRecord,
    Metric,
    MetricScores,
    PartScores,
    RunFigures,
    Scores,
    Spread,
)
from fuse.setting import Setting
from mmsa_cache.features.bank import FeatureBank

from .calibration import calibrate
from .classifier import predict
from .ensemble import Blend
from .plan import Part
from .task import Fit


@dataclass(frozen=True, slots=True)
class PartFits:
    """Members of one setting on one outer part."""

    setting: Setting
    folds: list[Fit]
    """Each without one fold, in the order of `Part.tasks`."""
    model: list[Fit]
    """Those that the final model is of."""

    @property
    def blend(self) -> Blend:
        """Of the final model's members."""
        return _blend(self.setting, self.model)


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """What the members of one outer part predict."""

    part: Part
    inner: Probabilities
    """Of development rows by members that did not learn from them, fold after fold"""
    inner_rows: NDArray[np.int64]
    outer: Probabilities
    """Of the outer rows, in the order of `Part.judged`"""
    calibration: Calibration

    @classmethod
    def of(
        cls, part: Part, fits: Sequence[PartFits], bank: FeatureBank, labels: NDArray[np.int64]
    ) -> JudgedPart:
        """Predicts with the fits of every setting, and calibrates as the first setting says."""
        inner, rows = [], []
        for fold, task in enumerate(part.tasks[: part.folds]):
            # A fold's rows are predicted by the members, one a seed, that did not learn from them.
            without = [_blend(of.setting, of.folds[fold :: part.folds]) for of in fits]
            inner.append(np.mean([b.predict(bank, task.validation) for b in without], axis=0))
            rows.append(task.validation)
        setting = fits[0].setting
        offsets = setting.offsets
        if offsets == "fitted" and setting.metric != "macro_f1":
            offsets = "none"
        truth = [labels[fold] for fold in rows]
        return cls(
            part,
            np.concatenate(inner),
            np.concatenate(rows),
            np.mean([of.blend.predict(bank, part.judged) for of in fits], axis=0),
            calibrate(inner, truth, offsets=offsets, prior=setting.prior),
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of a final model on its outer rows."""

    rows: NDArray[np.int64]
    """Sorted."""
    probabilities: Probabilities
    """(rows, classes), calibrated."""
    calibration: Calibration
    figures: RunFigures


def judge(
    judged: Sequence[JudgedPart],
    members: Sequence[MemberRecord],
    bank: FeatureBank,
    groups: NDArray[np.int64],
    names: Sequence[str],
) -> Judgement:
    """The figures of a final model.

    Args:
        judged: What the members of each outer part predict.
        members: See `member_records`.
        bank: Features of the labelled rows.
        groups: Duplicate groups, (samples,).
        names: Class names.
    """
    labels = bank.labels.cpu().numpy()
    order = np.argsort(np.concatenate([of.part.judged for of in judged]))
    rows = np.concatenate([of.part.judged for of in judged])[order]
    outer = np.concatenate([of.calibration(of.outer) for of in judged])[order]
    inner_rows = np.concatenate([of.inner_rows for of in judged])
    twins = np.concatenate(
        [np.isin(groups[of.part.judged], groups[of.part.development]) for of in judged]
    )[order]
    calibration = mean_calibration([of.calibration for of in judged])
    parts = [selection_score(labels[of.part.judged], of.calibration(of.outer)) for of in judged]

    def scored(rows: NDArray[np.int64], probabilities: Probabilities) -> Scores:
        return probability_score(labels[rows], probabilities, names)

    figures = RunFigures(
        outer=scored(rows, outer),
        outer_uncalibrated=scored(rows, np.concatenate([of.outer for of in judged])[order]),
        inner=scored(inner_rows, np.concatenate([of.calibration(of.inner) for of in judged])),
        inner_uncalibrated=scored(inner_rows, np.concatenate([of.inner for of in judged])),
        calibration=calibration,
        parts=[
            PartScores(rows=len(of.part.judged), **found.model_dump())
            for of, found in zip(judged, parts, strict=True)
        ],
        spread_parts=_spreads(parts),
        duplicates=Duplicates(
            rows=int(twins.sum()), guids=[bank.guids[row] for row in rows[twins].tolist()]
        ),
        outer_without_duplicates=None if twins.all() else scored(rows[~twins], outer[~twins]),
        members=list(members),
        spread=_spreads([member.outer for member in members if member.outer]),
        intervals=intervals(labels[rows], outer, names),
        training_rows=len(judged[0].part.development),
    )
    return Judgement(rows, outer, calibration, figures)


def member_records(
    parts: Sequence[Part],
    trained: Sequence[Sequence[PartFits]],
    bank: FeatureBank,
) -> list[MemberRecord]:
    """A record a member of the folds.

    Args:
        parts: The outer parts.
        trained: Fits a part and setting.
        bank: Features of the labelled rows.
    """
    labels = bank.labels.cpu().numpy()
    records = []
    for number in range(len(trained[0])):
        for outer, (part, every) in enumerate(zip(parts, trained, strict=True), start=1):
            setting = every[number].setting
            for task, fit in zip(part.tasks, every[number].folds, strict=True):
                found = predict(fit.model, bank, part.judged, setting)
                records.append(
                    MemberRecord(
                        member=fit.kept.member,
                        setting=number + 1,
                        part=outer,
                        seed=task.seed,
                        best_epoch=fit.kept.epoch,
                        training_rows=len(task.train),
                        stopping_rows=len(task.validation),
                        **{metric: fit.kept.value(metric) for metric in METRICS},
                        outer=selection_score(labels[part.judged], found),
                    )
                )
    return records


def mean_calibration(found: Sequence[Calibration]) -> Calibration:
    """One for the members of all parts: geometric mean of temperatures, mean of offsets."""
    temperature = float(np.exp(np.mean([np.log(c.temperature) for c in found])))
    offsets = np.mean([c.offsets for c in found], axis=0)
    return Calibration(temperature, tuple(offsets.tolist()))


def _blend(setting: Setting, fits: Sequence[Fit]) -> Blend:
    return Blend(setting, [fit.model for fit in fits])


def _spreads(scores: Sequence[MetricScores]) -> dict[Metric, Spread]:
    """Mean and sample deviation of each metric; a single value has deviation 0."""
    found: dict[Metric, Spread] = {}
    for metric in METRICS:
        values = [score.value(metric) for score in scores]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        found[metric] = Spread(mean=float(np.mean(values)), deviation=deviation)
    return found
