"""Figures and charts of the report's sections."""

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

from .charts import Dots, History, Mark, Surface, search_history, surface

FIGURES = {
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
"""The figures of a run, by their key in ``metrics.json``."""
_CHARTED = ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall", "roc_auc")
"""Figures on one scale, of which more is better."""


@dataclass(frozen=True, slots=True)
class Against:
    """What the section on the loss shows."""

    said: str
    """What is compared, or why nothing is."""
    command: str = ""
    """What makes the missing run; empty where there is one."""
    compared: Comparison | None = None
    """Of the two runs."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A row of the table with and without calibration."""

    rows_of: str
    calibration: str
    score: Scores


@dataclass(frozen=True, slots=True)
class Distinct:
    """Figures without the outer rows that show a post which was learned from."""

    rows: int
    """Those rows."""
    score: Scores | None
    """Of the other ones; None where there are none."""
    intervals: ScoreIntervals | None


@dataclass(frozen=True, slots=True)
class StudySection:
    """A study, counted and drawn."""

    study: StudySnapshot
    history: History | None
    complete: int
    pruned: int
    failed: int
    fusion_dots: Dots | None
    importance_dots: Dots | None
    surface: Surface | None


def figure_intervals(predictions: Predictions, classes: Sequence[str]) -> ScoreIntervals:
    return score_intervals(
        predictions.labels,
        predictions.probabilities,
        classes,
        predicted=predictions.predicted,
        groups=predictions.groups,
    )


def figure_dots(outer: Scores, intervals: ScoreIntervals) -> Dots:
    values = {key: getattr(outer, key) for key in _CHARTED}
    return Dots.of(
        [
            (FIGURES[key], [Mark(value, getattr(intervals, key))])
            for key, value in values.items()
            if value is not None
        ]
    )


def score_rows(figures: RunFigures) -> list[ScoreRow]:
    """The rows of the table with and without calibration; empty with nothing to compare."""
    scores = [
        ("outer", "with", figures.outer),
        ("outer", "without", figures.outer_uncalibrated),
        ("inner", "with", figures.inner),
        ("inner", "without", figures.inner_uncalibrated),
    ]
    rows = [ScoreRow(rows, how, score) for rows, how, score in scores if score is not None]
    return rows if len(rows) > 1 else []


def distinct(
    figures: RunFigures, predictions: Predictions, classes: Sequence[str]
) -> Distinct | None:
    """The figures without duplicates of learned posts; None in a run that did not tell them."""
    if figures.duplicates is None:
        return None
    twins = set(figures.duplicates.guids)
    kept = np.array([guid not in twins for guid in predictions.guids])
    score, found = figures.outer_without_duplicates, None
    if score is not None and kept.any():
        found = figure_intervals(predictions.only(kept), classes)
    return Distinct(len(twins), score, found)


def against_dots(compared: Comparison | None) -> dict[str, Dots] | None:
    """The recalls of both runs, and their differences."""
    if compared is None:
        return None
    recalls = {name: of for name, of in compared.pairs[0].recall.items() if of.rows}
    values = [
        (name, [Mark(of.first, of.intervals[0]), Mark(of.second, of.intervals[1], series=1)])
        for name, of in recalls.items()
    ]
    differences = [
        (name, [Mark(of.difference, of.difference_interval, series=1)])
        for name, of in recalls.items()
    ]
    return {"values": Dots.of(values), "difference": Dots.of(differences, 0.0)}


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
        Dots.of(fusions) if fusions else None,
        Dots.of(parameters, 0.0) if parameters else None,
        surface(study.alpha_beta),
    )
