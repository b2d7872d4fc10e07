"""The tables of a run's page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fuse.evidence.comparison import Comparison
from fuse.figures.record import LEVEL, Interval
from fuse.figures.records import RunFigures, ScoreIntervals, Scores
from fuse.figures.reliability import Bin
from mmsa_cache.runs.record import RunRecord

from .cells import (
    DECISION_COLUMNS,
    INTERVAL,
    confusion_table,
    decision_cells,
    score_cell,
    score_cells,
)
from .charts import LearningCurve
from .sections import METRICS, DistinctScores, calibration_scores
from .tables import SIGNED, Cell, ReportTable

_CALIBRATED = (
    "accuracy",
    "macro_f1",
    "macro_recall",
    "neg_log_loss",
    "brier",
    "calibration_error",
)
"""Metrics that calibration changes."""


def class_table(scores: Scores, intervals: ScoreIntervals) -> ReportTable:
    """Scores of each class."""
    average = ["Average precision", f"Average precision, {INTERVAL}"]
    rows: list[list[Cell]] = []
    for name, score in scores.per_class.items():
        spans = intervals.per_class[name]
        values = [score.precision, score.recall, score.f1, spans.f1]
        rows.append(
            [
                *(name, score.support, *(values if score.support else [None] * len(values))),
                *(score.average_precision, spans.average_precision),
            ]
        )
    return ReportTable(
        "results-classes",
        f"Each class on the outer rows, with {LEVEL:.0%} intervals.",
        ["Class", "Rows", "Precision", "Recall", "F1", f"F1, {INTERVAL}", *average],
        rows,
        of_classes=True,
    )


def result_tables(
    record: RunRecord,
    figures: RunFigures,
    intervals: ScoreIntervals,
    distinct: DistinctScores | None,
) -> Iterator[ReportTable]:
    """The scores of a run on its outer rows.

    Args:
        record: The run.
        figures: Its scores.
        intervals: Intervals of the outer scores.
        distinct: Scores without duplicates of training posts.
    """
    outer = figures.outer
    yield ReportTable(
        "results-figures",
        f"Scores on the {outer.rows} outer rows, with {LEVEL:.0%} bootstrap percentile intervals.",
        ["Figure", "Value", INTERVAL],
        [[name, *score_cells(outer, intervals, key)] for key, name in METRICS.items()],
    )
    yield class_table(outer, intervals)
    yield confusion_table(
        "confusion-figures",
        "Rows: true class. Columns: predicted class. Count, and its share of the true class, which "
        "is also the shade.",
        outer,
    )
    if figures.decisions:
        yield ReportTable(
            "results-decisions",
            f"Scores of each decision rule on the outer rows, with {LEVEL:.0%} intervals. This run "
            f"decides for {record.decide}; mmsa predict --decide takes the other one.",
            ["Decided for", *DECISION_COLUMNS],
            [[rule, *decision_cells(decision)] for rule, decision in figures.decisions.items()],
        )
    if distinct and distinct.scores:
        yield _duplicates_table(outer, intervals, distinct.scores, distinct.intervals)
    if figures.halves:
        keys = _common_metrics(figures.halves.values())
        yield ReportTable(
            "results-halves",
            "Outer rows by the modalities that they have.",
            ["Rows", "Count", *(METRICS[key] for key in keys)],
            [
                [kind, scores.rows, *(score_cell(scores, key) for key in keys)]
                for kind, scores in figures.halves.items()
            ],
        )
    yield from _calibration_tables(record, figures)


def _duplicates_table(
    outer: Scores,
    intervals: ScoreIntervals,
    distinct: Scores,
    distinct_intervals: ScoreIntervals | None,
) -> ReportTable:
    every, without = f"All {outer.rows} rows", f"Without, {distinct.rows} rows"
    return ReportTable(
        "results-duplicates",
        "Scores on all outer rows and without those that have a duplicate in training.",
        ["Figure", every, f"{every}, {INTERVAL}", without, f"{without}, {INTERVAL}"],
        [
            [
                name,
                *score_cells(outer, intervals, key),
                *score_cells(distinct, distinct_intervals, key),
            ]
            for key, name in METRICS.items()
            if getattr(distinct, key) is not None
        ],
    )


def _calibration_tables(record: RunRecord, figures: RunFigures) -> Iterator[ReportTable]:
    if rows := calibration_scores(figures):
        keys = _common_metrics(row.scores for row in rows)
        yield ReportTable(
            "results-calibration",
            "Scores with and without calibration.",
            ["Rows", "Calibration", "Count", *(METRICS[key] for key in keys)],
            [
                [
                    *(row.row_kind, row.calibration, row.scores.rows),
                    *(score_cell(row.scores, key) for key in keys),
                ]
                for row in rows
            ],
        )
    if fitted := figures.calibration:
        yield ReportTable(
            "results-offset-values",
            "The bias of each class, and its offset in decisions for macro-F1.",
            ["Class", "Bias", "Offset"],
            [[*row] for row in zip(record.classes, fitted.biases, fitted.offsets, strict=True)],
            {"Bias": SIGNED, "Offset": SIGNED},
            of_classes=True,
        )


def _common_metrics(scores: Iterable[Scores]) -> list[str]:
    """The metrics that all scores have."""
    every = list(scores)
    return [key for key in _CALIBRATED if all(getattr(s, key) is not None for s in every)]


def curve_tables(curves: Sequence[LearningCurve], figures: RunFigures) -> Iterator[ReportTable]:
    """The learning curves by epoch, and the members."""
    if curves:
        columns = [f"{curve.title}{suffix}" for curve in curves for suffix in ("", ", range")]
        yield ReportTable(
            "epochs",
            "Mean and range over the members that reached the epoch. metrics.jsonl has every epoch "
            "of every member.",
            ["Epoch", "Members", *columns],
            _epoch_rows(curves),
        )
    if figures.members:
        yield ReportTable(
            "members",
            "Each member on its own stopping rows, at the epoch that it kept.",
            ["Member", "Best epoch", "Training rows", "Stopping rows", "Macro F1", "Accuracy"],
            [
                [
                    *(m.member, m.best_epoch, m.training_rows),
                    *(m.stopping_rows, m.macro_f1, m.accuracy),
                ]
                for m in figures.members
            ],
        )


def _epoch_rows(curves: Sequence[LearningCurve]) -> list[list[Cell]]:
    by_epoch: dict[int, list[list[float]]] = {}
    for index, curve in enumerate(curves):
        for line in curve.lines:
            for epoch, value in line:
                by_epoch.setdefault(epoch, [[] for _ in curves])[index].append(value)
    return [
        [epoch, len(lists[0]), *(cell for values in lists for cell in _mean_and_range(values))]
        for epoch, lists in sorted(by_epoch.items())
    ]


def _mean_and_range(values: list[float]) -> list[Cell]:
    return [sum(values) / len(values), Interval(min(values), max(values))] if values else [None] * 2


def recall_table(comparison: Comparison) -> ReportTable:
    """The recalls of two runs and their differences."""
    (pair,) = comparison.pairs
    return ReportTable(
        "recall-figures",
        f"Recall of each class on the {comparison.rows} rows that both runs judged.",
        ["Class", "Rows", pair.first, pair.second, "Difference", INTERVAL],
        [
            [name, r.rows, r.first, r.second, r.difference, r.difference_interval]
            for name, r in pair.recall.items()
            if r.rows
        ],
        {"Difference": SIGNED, INTERVAL: SIGNED},
        of_classes=True,
    )


def bin_table(bins: Sequence[Bin]) -> ReportTable:
    """The numbers of the reliability diagram."""
    return ReportTable(
        "bins",
        "Bins of the reliability diagram.",
        ["Confidence", "Rows", "Mean confidence", "Accuracy"],
        [
            [
                f"{b.low:.1f}–{b.high:.1f}",
                b.rows,
                b.confidence if b.rows else None,
                b.accuracy if b.rows else None,
            ]
            for b in bins
        ],
    )
