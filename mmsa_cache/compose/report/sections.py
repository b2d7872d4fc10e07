"""Scores and charts of the report's sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fuse.evidence.comparison import Comparison
from fuse.figures.intervals import score_intervals
from fuse.figures.predictions import Predictions
from fuse.figures.record import Interval
from fuse.figures.records import RunFigures, ScoreIntervals, Scores
from fuse.figures.study import StudySnapshot

from .charts import DotChart, Mark, SearchHistory, Surface, search_history, surface

METRICS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "roc_auc": "ROC-AUC",
    "neg_log_loss": "Log-loss",
    "brier": "Brier score",
    "calibration_error": "Calibration error (ECE)",
}
"""Titles of the metrics, by their key in ``metrics.json``."""
_CHARTED = ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall", "roc_auc")
"""Metrics of one scale, of which more is better."""


@dataclass(frozen=True, slots=True)
class LossSection:
    """Content of the section on the loss."""

    note: str
    """What is compared, or why nothing is."""
    command: str = ""
    """Command that makes the missing run; empty if there is one."""
    comparison: Comparison | None = None
    """Of the two runs."""


@dataclass(frozen=True, slots=True)
class CalibrationScores:
    """A row of the table with and without calibration."""

    row_kind: str
    calibration: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class DistinctScores:
    """Scores without the outer rows that duplicate a training post."""

    duplicates: int
    """Rows left out."""
    scores: Scores | None
    """None if no row is left."""
    intervals: ScoreIntervals | None


@dataclass(frozen=True, slots=True)
class StudySection:
    """Counts and charts of a study."""

    study: StudySnapshot
    history: SearchHistory | None
    complete: int
    pruned: int
    failed: int
    fusion_dots: DotChart | None
    importance_dots: DotChart | None
    surface: Surface | None


def prediction_intervals(predictions: Predictions, classes: Sequence[str]) -> ScoreIntervals:
    return score_intervals(
        predictions.labels,
        predictions.probabilities,
        classes,
        predicted=predictions.predicted,
        groups=predictions.groups,
    )


def score_dots(scores: Scores, intervals: ScoreIntervals) -> DotChart:
    return DotChart.of(
        [
            (METRICS[key], [Mark(value, getattr(intervals, key))])
            for key in _CHARTED
            if (value := getattr(scores, key)) is not None
        ]
    )


def calibration_scores(figures: RunFigures) -> list[CalibrationScores]:
    """Scores with and without calibration; empty if there is only one kind."""
    candidates = [
        ("outer", "with", figures.outer),
        ("outer", "without", figures.outer_uncalibrated),
        ("inner", "with", figures.inner),
        ("inner", "without", figures.inner_uncalibrated),
    ]
    rows = [
        CalibrationScores(kind, how, scores)
        for kind, how, scores in candidates
        if scores is not None
    ]
    return rows if len(rows) > 1 else []


def distinct_scores(
    figures: RunFigures, predictions: Predictions, classes: Sequence[str]
) -> DistinctScores | None:
    """Scores without duplicates of training posts; None if the run did not record duplicates."""
    if figures.duplicates is None:
        return None
    duplicates = set(figures.duplicates.guids)
    distinct = np.array([guid not in duplicates for guid in predictions.guids])
    scores, spans = figures.outer_without_duplicates, None
    if scores is not None and distinct.any():
        spans = prediction_intervals(predictions.only(distinct), classes)
    return DistinctScores(len(duplicates), scores, spans)


def recall_dots(comparison: Comparison | None) -> dict[str, DotChart] | None:
    """The recalls of two runs (``values``) and their ``difference``, by class."""
    if comparison is None:
        return None
    recalls = {name: r for name, r in comparison.pairs[0].recall.items() if r.rows}
    values = [
        (name, [Mark(r.first, r.intervals[0]), Mark(r.second, r.intervals[1], series=1)])
        for name, r in recalls.items()
    ]
    differences = [
        (name, [Mark(r.difference, r.difference_interval, series=1)]) for name, r in recalls.items()
    ]
    return {"values": DotChart.of(values), "difference": DotChart.of(differences, 0.0)}


def study_section(study: StudySnapshot) -> StudySection:
    states = [trial.state for trial in study.trials]
    fusions = [(str(best.value), [Mark(best.score)]) for best in study.by_fusion]
    parameters = [
        (row.parameter, [Mark(row.median, Interval(row.low, row.high))]) for row in study.importance
    ]
    return StudySection(
        study,
        search_history(study),
        states.count("complete"),
        states.count("pruned"),
        states.count("fail"),
        DotChart.of(fusions) if fusions else None,
        DotChart.of(parameters, 0.0) if parameters else None,
        surface(study.alpha_beta),
    )
