"""Cells that tables of one run and of several have."""

from __future__ import annotations

from fuse.figures.record import LEVEL, Interval
from fuse.figures.records import Decision, ScoreIntervals, Scores

from .tables import Cell, FigureTable

INTERVAL = f"{LEVEL:.0%} interval"
BOTH = ["Accuracy", f"Accuracy, {INTERVAL}", "Macro F1", f"Macro F1, {INTERVAL}"]
"""Columns of the two figures that choices are made by."""
_NEGATED = ("neg_log_loss",)
"""Figures that are shown with their sign turned: log-loss for log-likelihood."""


def facing(value: float | Interval | None, key: str) -> Cell:
    """A value of a figure by its key in ``metrics.json``, or its interval, as it is shown."""
    if value is None or key not in _NEGATED:
        return value
    return Interval(-value.high, -value.low) if isinstance(value, Interval) else -value


def figure_cell(scores: Scores, key: str) -> Cell:
    """A figure by its key."""
    return facing(getattr(scores, key), key)


def figure_cells(scores: Scores, intervals: ScoreIntervals | None, key: str) -> list[Cell]:
    """A figure by its key, and its interval."""
    spanned = facing(getattr(intervals, key), key) if intervals else None
    return [figure_cell(scores, key), spanned]


def decision_cells(of: Decision) -> list[Cell]:
    """Under `BOTH`."""
    spans = of.intervals
    return [of.accuracy, spans.get("accuracy"), of.macro_f1, spans.get("macro_f1")]


def confusion_table(name: str, caption: str, scores: Scores) -> FigureTable:
    """Rows by true and predicted class; the template adds the shares."""
    classes = [*scores.per_class]
    rows: list[list[Cell]] = [
        [of, *counts] for of, counts in zip(classes, scores.confusion, strict=True)
    ]
    return FigureTable(name, caption, ["true \\ predicted", *classes], rows, of_classes=True)
