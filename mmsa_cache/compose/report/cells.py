"""Cells and tables that pages of one run and of several runs share."""

from __future__ import annotations

from fuse.figures.record import LEVEL, Interval
from fuse.figures.records import Decision, ScoreIntervals, Scores

from .tables import Cell, ReportTable

INTERVAL = f"{LEVEL:.0%} interval"
DECISION_COLUMNS = ["Accuracy", f"Accuracy, {INTERVAL}", "Macro F1", f"Macro F1, {INTERVAL}"]
"""Columns of the two metrics that decision rules optimise."""
_NEGATED = ("neg_log_loss",)
"""Metrics that are shown with the opposite sign."""


def as_loss(value: float | Interval | None, key: str) -> Cell:
    """A score or its interval, by its key in ``metrics.json``; negated scores as losses."""
    if value is None or key not in _NEGATED:
        return value
    return Interval(-value.high, -value.low) if isinstance(value, Interval) else -value


def score_cell(scores: Scores, key: str) -> Cell:
    """A score by its key."""
    return as_loss(getattr(scores, key), key)


def score_cells(scores: Scores, intervals: ScoreIntervals | None, key: str) -> list[Cell]:
    """A score by its key, and its interval."""
    interval = as_loss(getattr(intervals, key), key) if intervals else None
    return [score_cell(scores, key), interval]


def decision_cells(decision: Decision) -> list[Cell]:
    """Cells of `DECISION_COLUMNS`."""
    intervals = decision.intervals
    return [
        *(decision.accuracy, intervals.get("accuracy")),
        *(decision.macro_f1, intervals.get("macro_f1")),
    ]


def confusion_table(name: str, caption: str, scores: Scores) -> ReportTable:
    """Counts by true (row) and predicted class; the template adds the shares."""
    classes = [*scores.per_class]
    rows: list[list[Cell]] = [
        [name, *counts] for name, counts in zip(classes, scores.confusion, strict=True)
    ]
    return ReportTable(name, caption, ["true \\ predicted", *classes], rows, of_classes=True)
