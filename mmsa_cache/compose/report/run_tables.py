"""The tables of a run's page, by their ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fuse.evidence.comparison import Comparison
from fuse.figures.record import LEVEL, Interval
from fuse.figures.records import RunFigures, ScoreIntervals, Scores
from fuse.figures.reliability import Bin
from mmsa_cache.runs.record import RunRecord

from .cells import BOTH, INTERVAL, confusion_table, decision_cells, figure_cell, figure_cells
from .charts import Chart
from .sections import FIGURES, Distinct, score_rows
from .tables import SIGNED, Cell, FigureTable

_CALIBRATED = (
    "accuracy",
    "macro_f1",
    "macro_recall",
    "neg_log_loss",
    "brier",
    "calibration_error",
)
"""Figures that calibration changes."""


def class_table(scores: Scores, intervals: ScoreIntervals) -> FigureTable:
    """Figures of each class."""
    average = ["Average precision", f"Average precision, {INTERVAL}"]
    rows: list[list[Cell]] = []
    for name, of in scores.per_class.items():
        found = intervals.per_class[name]
        own = [of.precision, of.recall, of.f1, found.f1] if of.support else [None] * 4
        rows.append([name, of.support, *own, of.average_precision, found.average_precision])
    return FigureTable(
        "results-classes",
        f"Each class on the outer rows, with {LEVEL:.0%} intervals.",
        ["Class", "Rows", "Precision", "Recall", "F1", f"F1, {INTERVAL}", *average],
        rows,
        of_classes=True,
    )


def result_tables(
    record: RunRecord, figures: RunFigures, intervals: ScoreIntervals, apart: Distinct | None
) -> list[FigureTable]:
    """What a run reaches on its outer rows.

    Args:
        record: Of the run.
        figures: Of the run.
        intervals: Of its outer figures.
        apart: Without duplicates of learned posts.
    """
    outer = figures.outer
    found = [
        FigureTable(
            "results-figures",
            f"Figures on the {outer.rows} outer rows, with {LEVEL:.0%} bootstrap percentile "
            "intervals.",
            ["Figure", "Value", INTERVAL],
            [[name, *figure_cells(outer, intervals, key)] for key, name in FIGURES.items()],
        ),
        class_table(outer, intervals),
        confusion_table(
            "confusion-figures",
            "Rows: true class. Columns: predicted class. Count, and its share of the true class, "
            "which is also the shade.",
            outer,
        ),
    ]
    if figures.decisions:
        found.append(_decisions(record, figures))
    if apart and apart.score:
        found.append(_without_duplicates(outer, intervals, apart, apart.score))
    if figures.halves:
        keys = _known(figures.halves.values())
        found.append(
            FigureTable(
                "results-halves",
                "Outer rows apart by what they have.",
                ["Rows", "Count", *(FIGURES[key] for key in keys)],
                [
                    [kind, of.rows, *(figure_cell(of, key) for key in keys)]
                    for kind, of in figures.halves.items()
                ],
            )
        )
    return found + _calibration(record, figures)


def _decisions(record: RunRecord, figures: RunFigures) -> FigureTable:
    return FigureTable(
        "results-decisions",
        f"What each decision rule is worth on the outer rows, with {LEVEL:.0%} intervals. This run "
        f"decides for {record.decide}; mmsa predict --decide takes the other one.",
        ["Decided for", *BOTH],
        [[rule, *decision_cells(of)] for rule, of in figures.decisions.items()],
    )


def _without_duplicates(
    outer: Scores, intervals: ScoreIntervals, apart: Distinct, score: Scores
) -> FigureTable:
    every, without = f"All {outer.rows} rows", f"Without, {score.rows} rows"
    return FigureTable(
        "results-duplicates",
        "Figures on all outer rows and without those that have a duplicate in training.",
        ["Figure", every, f"{every}, {INTERVAL}", without, f"{without}, {INTERVAL}"],
        [
            [
                name,
                *figure_cells(outer, intervals, key),
                *figure_cells(score, apart.intervals, key),
            ]
            for key, name in FIGURES.items()
            if getattr(score, key) is not None
        ],
    )


def _calibration(record: RunRecord, figures: RunFigures) -> list[FigureTable]:
    found, scores = [], score_rows(figures)
    if scores:
        keys = _known(row.score for row in scores)
        found.append(
            FigureTable(
                "results-calibration",
                "Figures with and without calibration.",
                ["Rows", "Calibration", "Count", *(FIGURES[key] for key in keys)],
                [
                    [
                        row.rows_of,
                        row.calibration,
                        row.score.rows,
                        *(figure_cell(row.score, key) for key in keys),
                    ]
                    for row in scores
                ],
            )
        )
    fitted = figures.calibration
    if fitted:
        found.append(
            FigureTable(
                "results-offset-values",
                "The bias of each class, and its offset in decisions for macro-F1.",
                ["Class", "Bias", "Offset"],
                [
                    [name, bias, offset]
                    for name, bias, offset in zip(
                        record.classes, fitted.biases, fitted.offsets, strict=True
                    )
                ],
                {"Bias": SIGNED, "Offset": SIGNED},
                of_classes=True,
            )
        )
    return found


def _known(scores: Iterable[Scores]) -> list[str]:
    """The figures that all scores have."""
    every = list(scores)
    return [key for key in _CALIBRATED if all(getattr(of, key) is not None for of in every)]


def curve_tables(charts: Sequence[Chart], figures: RunFigures) -> list[FigureTable]:
    """The learning curves by epoch, and the members."""
    found = []
    if charts:
        columns = [f"{chart.title}{what}" for chart in charts for what in ("", ", range")]
        found.append(
            FigureTable(
                "epochs",
                "Mean and range over the members that reached the epoch. metrics.jsonl has every "
                "epoch of every member.",
                ["Epoch", "Members", *columns],
                _by_epoch(charts),
            )
        )
    if figures.members:
        found.append(
            FigureTable(
                "members",
                "Each member on its own stopping rows, at the epoch that it kept.",
                ["Member", "Best epoch", "Training rows", "Stopping rows", "Macro F1", "Accuracy"],
                [
                    [
                        m.member,
                        m.best_epoch,
                        m.training_rows,
                        m.stopping_rows,
                        m.macro_f1,
                        m.accuracy,
                    ]
                    for m in figures.members
                ],
            )
        )
    return found


def _by_epoch(charts: Sequence[Chart]) -> list[list[Cell]]:
    reached: dict[int, list[list[float]]] = {}
    for place, chart in enumerate(charts):
        for line in chart.lines:
            for epoch, value in line:
                reached.setdefault(epoch, [[] for _ in charts])[place].append(value)
    return [
        [epoch, len(curves[0]), *(cell for values in curves for cell in _mean_and_range(values))]
        for epoch, curves in sorted(reached.items())
    ]


def _mean_and_range(values: list[float]) -> list[Cell]:
    return [sum(values) / len(values), Interval(min(values), max(values))] if values else [None] * 2


def recall_table(compared: Comparison) -> FigureTable:
    """The recalls of two runs and their differences."""
    (pair,) = compared.pairs
    return FigureTable(
        "recall-figures",
        f"Recall of each class on the {compared.rows} rows that both runs judged.",
        ["Class", "Rows", pair.first, pair.second, "Difference", INTERVAL],
        [
            [name, of.rows, of.first, of.second, of.difference, of.difference_interval]
            for name, of in pair.recall.items()
            if of.rows
        ],
        {"Difference": SIGNED, INTERVAL: SIGNED},
        of_classes=True,
    )


def bin_table(bins: Sequence[Bin]) -> FigureTable:
    """The reliability diagram."""
    return FigureTable(
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
