"""Scores of a final model and of its members on rows that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fuse.figures.calibration import DECIDE, Calibration, Decide, Probabilities
from fuse.figures.halves import rows_by_presence
from fuse.figures.intervals import score_decisions, score_intervals
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

from .calibration import calibrate, cross_fitted, mean_calibration
from .classifier import predict
from .ensemble import Blend, weighted_mean
from .plan import OuterPart
from .task import Fit

_PIECES = 5
"""What the rows of a single fold are cut into, to fit on some and try on others."""


@dataclass(frozen=True, slots=True)
class PartFits:
    """Members of one setting on one outer part."""

    number: int
    """Of the setting in the whole model, from 1."""
    setting: Setting
    weight: float
    """Of the members in the part's average."""
    folds: list[Fit]
    """Each without one fold, in the order of `OuterPart.tasks`."""
    neighbours: list[Fit]
    """Each without two folds, in the order of `OuterPart.neighbours`; may be none."""
    model: list[Fit]
    """Those that the final model is of."""
    known: Probabilities | None = None
    """In the place of folds: what members of a search predicted of rows that they had not learned,
    (samples, classes)"""

    def held_out(
        self, fold: int, part: OuterPart, bank: FeatureBank
    ) -> tuple[float, Probabilities]:
        """The weight, and what the members that did not learn from a fold predict of its rows."""
        rows = part.tasks[fold].validation
        if self.known is not None:
            return self.weight, self.known[rows]
        folds = part.folds
        pairs = [*self.neighbours[fold::folds], *self.neighbours[(fold - 1) % folds :: folds]]
        return self.predict([*self.folds[fold::folds], *pairs], bank, rows)

    def predict(
        self, fits: Sequence[Fit], bank: FeatureBank, rows: NDArray[np.int64]
    ) -> tuple[float, Probabilities]:
        """The weight, and what some of the members predict on average, (rows, classes)."""
        return self.weight, Blend(self.setting, [fit.model for fit in fits]).predict(bank, rows)


@dataclass(frozen=True, slots=True)
class RowPredictions:
    """Predictions of some rows."""

    plain: Probabilities
    """(rows, classes), uncalibrated"""
    calibrated: Probabilities
    decided: dict[Decide, NDArray[np.int64]]
    """Class codes by each decision rule, (rows,)"""

    @classmethod
    def of(cls, plain: Probabilities, calibration: Calibration) -> RowPredictions:
        """Calibrates uncalibrated probabilities and decides by both rules."""
        calibrated = calibration(plain)
        return cls(plain, calibrated, {r: calibration.decide(calibrated, r) for r in DECIDE})

    @classmethod
    def joined(cls, parts: Sequence[RowPredictions]) -> RowPredictions:
        """The rows of several, one after the other."""
        return cls(
            np.concatenate([part.plain for part in parts]),
            np.concatenate([part.calibrated for part in parts]),
            {rule: np.concatenate([part.decided[rule] for part in parts]) for rule in DECIDE},
        )

    def at(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> RowPredictions:
        """Some of the rows."""
        decided = {rule: codes[rows] for rule, codes in self.decided.items()}
        return RowPredictions(self.plain[rows], self.calibrated[rows], decided)


def predict_held_out(
    part: OuterPart, fits: Sequence[PartFits], bank: FeatureBank
) -> tuple[list[Probabilities], list[NDArray[np.int64]]]:
    """What members that did not learn from them predict of development rows, fold after fold.

    Returns:
        Uncalibrated probabilities of each fold, (rows, classes), and its rows.
    """
    probabilities, rows = [], []
    for fold, task in enumerate(part.tasks[: part.folds]):
        found = weighted_mean([of.held_out(fold, part, bank) for of in fits])
        # One fold's rows are cut for the calibration alone, no member learned from any.
        pieces = 1 if part.folds > 1 else min(_PIECES, len(found))
        probabilities += [found[piece::pieces] for piece in range(pieces)]
        rows += [task.validation[piece::pieces] for piece in range(pieces)]
    return probabilities, rows


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """What the members of one outer part predict."""

    part: OuterPart
    inner: RowPredictions
    """Of development rows by members that did not learn from them, fold after fold; calibrated on
    the other folds"""
    inner_rows: NDArray[np.int64]
    outer: RowPredictions
    """Of the outer rows, in the order of `OuterPart.judged`"""
    calibration: Calibration

    @classmethod
    def of(
        cls,
        part: OuterPart,
        fits: Sequence[PartFits],
        setting: Setting,
        bank: FeatureBank,
        labels: NDArray[np.int64],
    ) -> JudgedPart:
        """Predicts with the fits of every setting, and calibrates as one setting says."""
        inner, rows = predict_held_out(part, fits, bank)
        truth = [labels[fold] for fold in rows]
        fitted = partial(calibrate, offsets=setting.offsets, prior=setting.prior)
        calibration = fitted(inner, truth)
        found = weighted_mean([of.predict(of.model, bank, part.judged) for of in fits])
        return cls(
            part,
            RowPredictions.joined(
                [
                    RowPredictions.of(p, other)
                    for p, other in zip(inner, cross_fitted(inner, truth, fitted), strict=True)
                ]
            ),
            np.concatenate(rows),
            RowPredictions.of(found, calibration),
            calibration,
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of a final model on its outer rows."""

    rows: NDArray[np.int64]
    """Sorted."""
    probabilities: Probabilities
    """(rows, classes), calibrated."""
    predicted: dict[Decide, NDArray[np.int64]]
    """Class codes by each decision rule, (rows,)."""
    calibration: Calibration
    figures: RunFigures


def judge(
    judged: Sequence[JudgedPart],
    members: Sequence[MemberRecord],
    bank: FeatureBank,
    groups: NDArray[np.int64],
    names: Sequence[str],
    decide: Decide,
) -> Judgement:
    """The figures of a final model.

    Args:
        judged: What the members of each outer part predict.
        members: See `member_records`.
        bank: Features of the labelled rows.
        groups: Duplicate groups, (samples,).
        names: Class names.
        decide: Decision rule of the figures.
    """
    labels = bank.labels.cpu().numpy()
    order = np.argsort(np.concatenate([of.part.judged for of in judged]))
    rows = np.concatenate([of.part.judged for of in judged])[order]
    outer = RowPredictions.joined([of.outer for of in judged]).at(order)
    inner = RowPredictions.joined([of.inner for of in judged])
    inner_rows = np.concatenate([of.inner_rows for of in judged])
    twins = np.concatenate(
        [np.isin(groups[of.part.judged], groups[of.part.development]) for of in judged]
    )[order]
    calibration = mean_calibration([of.calibration for of in judged])
    parts = [
        selection_score(
            labels[of.part.judged], of.outer.calibrated, predicted=of.outer.decided[decide]
        )
        for of in judged
    ]

    def scored(rows: NDArray[np.int64], found: RowPredictions) -> Scores:
        predicted = found.decided[decide]
        return probability_score(labels[rows], found.calibrated, names, predicted=predicted)

    def plain(rows: NDArray[np.int64], found: RowPredictions) -> Scores:
        return probability_score(labels[rows], found.plain, names)

    figures = RunFigures(
        outer=scored(rows, outer),
        outer_uncalibrated=plain(rows, outer),
        inner=scored(inner_rows, inner),
        inner_uncalibrated=plain(inner_rows, inner),
        decisions=score_decisions(labels[rows], outer.decided, len(names), groups=groups[rows]),
        calibration=calibration,
        parts=[
            PartScores(rows=len(of.part.judged), **found.model_dump())
            for of, found in zip(judged, parts, strict=True)
        ],
        spread_parts=_spreads(parts),
        duplicates=Duplicates(
            rows=int(twins.sum()), guids=[bank.guids[row] for row in rows[twins].tolist()]
        ),
        outer_without_duplicates=None if twins.all() else scored(rows[~twins], outer.at(~twins)),
        halves={
            kind: scored(rows[here], outer.at(here))
            for kind, here in rows_by_presence(bank.present[rows]).items()
        },
        members=list(members),
        spread=_spreads([member.outer for member in members if member.outer]),
        intervals=score_intervals(
            labels[rows],
            outer.calibrated,
            names,
            predicted=outer.decided[decide],
            groups=groups[rows],
        ),
        training_rows=len(judged[0].part.development),
    )
    return Judgement(rows, outer.calibrated, outer.decided, calibration, figures)


def member_records(
    parts: Sequence[OuterPart],
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
    for outer, (part, every) in enumerate(zip(parts, trained, strict=True), start=1):
        for of in every:
            for task, fit in zip(part.tasks, of.folds, strict=of.known is None):
                found = predict(fit.model, bank, part.judged, of.setting)
                records.append(
                    MemberRecord(
                        member=fit.kept.member,
                        setting=of.number,
                        part=outer,
                        seed=task.seed,
                        best_epoch=fit.kept.epoch,
                        training_rows=len(task.train),
                        stopping_rows=len(task.validation),
                        **{metric: fit.kept.value(metric) for metric in METRICS},
                        outer=selection_score(labels[part.judged], found),
                    )
                )
    return sorted(records, key=lambda record: (record.setting, record.part, record.member))


def _spreads(scores: Sequence[MetricScores]) -> dict[Metric, Spread]:
    """Mean and sample deviation of each metric; a single value has deviation 0."""
    found: dict[Metric, Spread] = {}
    for metric in METRICS if scores else ():
        values = [score.value(metric) for score in scores]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        found[metric] = Spread(mean=float(np.mean(values)), deviation=deviation)
    return found
