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
from fuse.figures.metrics import calibration_figures, probability_score, selection_score
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
"""Pieces that the rows of a single fold are cut into, to fit on some and test on others."""


@dataclass(frozen=True, slots=True)
class PartFits:
    """Members of one setting on one outer part."""

    number: int
    """Number of the setting in the whole model, from 1."""
    setting: Setting
    weight: float
    """Weight of the members in the average of the part."""
    folds: list[Fit]
    """Members trained without one fold, in the order of `OuterPart.tasks`."""
    pairs: list[Fit]
    """Members trained without two folds, in the order of `OuterPart.pair_tasks`; may be empty."""
    final: list[Fit]
    """Members of the final model."""
    stored: Probabilities | None = None
    """Instead of `folds`: held-out predictions of a search's members, (samples, classes)."""

    def predict_held_out(
        self, fold: int, part: OuterPart, bank: FeatureBank
    ) -> tuple[float, Probabilities]:
        """The weight, and predictions of a fold by the members that did not learn from it."""
        rows = part.tasks[fold].validation
        if self.stored is not None:
            return self.weight, self.stored[rows]
        folds = part.folds
        pairs = [*self.pairs[fold::folds], *self.pairs[(fold - 1) % folds :: folds]]
        return self.predict([*self.folds[fold::folds], *pairs], bank, rows)

    def predict(
        self, fits: Sequence[Fit], bank: FeatureBank, rows: NDArray[np.int64]
    ) -> tuple[float, Probabilities]:
        """The weight, and the mean predictions of some of the members, (rows, classes)."""
        return self.weight, Blend(self.setting, [fit.model for fit in fits]).predict(bank, rows)


@dataclass(frozen=True, slots=True)
class RowPredictions:
    """Predictions of some rows."""

    rows: NDArray[np.int64]
    plain: Probabilities
    """Uncalibrated, (rows, classes)."""
    calibrated: Probabilities
    """(rows, classes)."""
    decided: dict[Decide, NDArray[np.int64]]
    """Class codes by each decision rule, (rows,)."""

    @classmethod
    def of(
        cls, rows: NDArray[np.int64], plain: Probabilities, calibration: Calibration
    ) -> RowPredictions:
        """Calibrates probabilities, and decides by all rules."""
        calibrated = calibration(plain)
        return cls(rows, plain, calibrated, {r: calibration.decide(calibrated, r) for r in DECIDE})

    @classmethod
    def concatenate(cls, parts: Sequence[RowPredictions]) -> RowPredictions:
        """The rows of all parts, one part after another."""
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.plain for part in parts]),
            np.concatenate([part.calibrated for part in parts]),
            {rule: np.concatenate([part.decided[rule] for part in parts]) for rule in DECIDE},
        )

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> RowPredictions:
        """Some of the rows, by their order here or by a mask."""
        decided = {rule: codes[index] for rule, codes in self.decided.items()}
        return RowPredictions(self.rows[index], self.plain[index], self.calibrated[index], decided)

    def scores(self, labels: NDArray[np.int64], names: Sequence[str], rule: Decide) -> Scores:
        """Scores of the calibrated probabilities and of the decisions by a rule.

        Args:
            labels: Class codes of all samples, (samples,).
            names: Class names.
            rule: The decision rule.
        """
        decided = self.decided[rule]
        return probability_score(labels[self.rows], self.calibrated, names, predicted=decided)

    def plain_scores(self, labels: NDArray[np.int64], names: Sequence[str]) -> Scores:
        """Scores of the uncalibrated probabilities, see `scores`."""
        return probability_score(labels[self.rows], self.plain, names)


def predict_held_out(
    part: OuterPart, fits: Sequence[PartFits], bank: FeatureBank
) -> tuple[list[Probabilities], list[NDArray[np.int64]]]:
    """Predicts development rows, fold by fold, with the members that did not learn from them.

    Returns:
        Uncalibrated probabilities of each fold, (rows, classes), and its rows.
    """
    probabilities, rows = [], []
    for fold, task in enumerate(part.tasks[: part.folds]):
        mean = weighted_mean([own.predict_held_out(fold, part, bank) for own in fits])
        # No member learned from a single fold, so it is cut for the calibration alone.
        pieces = 1 if part.folds > 1 else min(_PIECES, len(mean))
        probabilities += [mean[piece::pieces] for piece in range(pieces)]
        rows += [task.validation[piece::pieces] for piece in range(pieces)]
    return probabilities, rows


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """Predictions of the members of one outer part."""

    part: OuterPart
    inner: RowPredictions
    """Of development rows, fold by fold, by members that did not learn from them; calibrated on
    the other folds."""
    outer: RowPredictions
    """Of the outer rows, in the order of `OuterPart.judged`."""
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
        """Predicts with the members of all settings, and calibrates as one setting says."""
        inner, rows = predict_held_out(part, fits, bank)
        truth = [labels[fold] for fold in rows]
        fit = partial(calibrate, offsets=setting.offsets, prior=setting.prior)
        others = cross_fitted(inner, truth, fit)
        calibration = fit(inner, truth)
        outer = weighted_mean([own.predict(own.final, bank, part.judged) for own in fits])
        return cls(
            part,
            RowPredictions.concatenate(list(map(RowPredictions.of, rows, inner, others))),
            RowPredictions.of(part.judged, outer, calibration),
            calibration,
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of a final model on its outer rows."""

    outer: RowPredictions
    """Predictions of the outer rows, which are sorted."""
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
    """Computes the figures of a final model.

    Args:
        judged: Predictions of each outer part.
        members: See `member_records`.
        bank: Features of the labelled rows.
        groups: Duplicate groups, (samples,).
        names: Class names.
        decide: Decision rule of the figures.
    """
    labels = bank.labels.cpu().numpy()
    outer = RowPredictions.concatenate([own.outer for own in judged])
    inner = RowPredictions.concatenate([own.inner for own in judged])
    order = np.argsort(outer.rows)
    outer = outer.select(order)
    learned = [np.isin(groups[own.outer.rows], groups[own.part.development]) for own in judged]
    is_duplicate = np.concatenate(learned)[order]
    parts = [_part_scores(own.outer, labels, decide) for own in judged]
    truth, outer_groups = labels[outer.rows], groups[outer.rows]
    calibration = mean_calibration([own.calibration for own in judged])
    figures = RunFigures(
        outer=outer.scores(labels, names, decide),
        outer_uncalibrated=outer.plain_scores(labels, names),
        inner=inner.scores(labels, names, decide),
        inner_uncalibrated=inner.plain_scores(labels, names),
        decisions=score_decisions(truth, outer.decided, len(names), groups=outer_groups),
        calibration=calibration,
        parts=parts,
        spread_parts=_spreads(parts),
        duplicates=Duplicates(
            rows=int(is_duplicate.sum()),
            guids=[bank.guids[row] for row in outer.rows[is_duplicate].tolist()],
        ),
        outer_without_duplicates=None
        if is_duplicate.all()
        else outer.select(~is_duplicate).scores(labels, names, decide),
        halves={
            presence: outer.select(mask).scores(labels, names, decide)
            for presence, mask in rows_by_presence(bank.present[outer.rows]).items()
        },
        members=list(members),
        spread=_spreads([member.outer for member in members if member.outer]),
        intervals=score_intervals(
            truth, outer.calibrated, names, predicted=outer.decided[decide], groups=outer_groups
        ),
        training_rows=len(judged[0].part.development),
    )
    return Judgement(outer, calibration, figures)


def _part_scores(outer: RowPredictions, labels: NDArray[np.int64], rule: Decide) -> PartScores:
    truth, decided = labels[outer.rows], outer.decided[rule]
    return PartScores(
        rows=len(outer.rows),
        **selection_score(truth, outer.calibrated, predicted=decided).model_dump(),
        calibration_error=calibration_figures(truth, outer.calibrated).calibration_error,
        uncalibrated=calibration_figures(truth, outer.plain),
    )


def member_records(
    parts: Sequence[OuterPart],
    fits: Sequence[Sequence[PartFits]],
    bank: FeatureBank,
) -> list[MemberRecord]:
    """A record of each member that was trained without a fold.

    Args:
        parts: The outer parts.
        fits: Fits by outer part and setting.
        bank: Features of the labelled rows.
    """
    labels = bank.labels.cpu().numpy()
    records = []
    for number, (part, part_fits) in enumerate(zip(parts, fits, strict=True), start=1):
        for own in part_fits:
            for task, fit in zip(part.tasks, own.folds, strict=own.stored is None):
                probabilities = predict(fit.model, bank, part.judged, own.setting)
                records.append(
                    MemberRecord(
                        member=fit.kept.member,
                        setting=own.number,
                        part=number,
                        seed=task.seed,
                        best_epoch=fit.kept.epoch,
                        training_rows=len(task.train),
                        stopping_rows=len(task.validation),
                        **{metric: fit.kept.value(metric) for metric in METRICS},
                        outer=selection_score(labels[part.judged], probabilities),
                    )
                )
    return sorted(records, key=lambda record: (record.setting, record.part, record.member))


def _spreads(scores: Sequence[MetricScores]) -> dict[Metric, Spread]:
    """Mean and sample deviation of each metric; a single value has deviation 0."""
    spreads: dict[Metric, Spread] = {}
    for metric in METRICS if scores else ():
        values = [score.value(metric) for score in scores]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        spreads[metric] = Spread(mean=float(np.mean(values)), deviation=deviation)
    return spreads
