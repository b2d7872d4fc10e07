"""The page that compares runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.evidence.comparison import Comparison
from fuse.figures.predictions import Predictions
from fuse.figures.record import LEVEL
from fuse.figures.records import ScoreIntervals
from fuse.figures.resampling import RESAMPLES
from mmsa_cache.runs.folder import RunFolder

from .charts import DotChart, Mark, class_colours
from .comparison_tables import comparison_tables, settings_table
from .gallery import Card, GalleryPost, cards
from .page import Page, check_agreement, random_weights
from .sections import prediction_intervals
from .templates import render_page, short

POSTS = 12
"""Disagreements shown."""
_COMPARED = {"accuracy": "Accuracy", "macro_f1": "Macro F1"}
"""Titles of the metrics in charts, by their key."""


@dataclass(frozen=True, slots=True)
class RunPrediction:
    """The prediction of one run for a post."""

    run: str
    predicted: int
    probabilities: list[float]
    """Of the classes in the order of the page."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A post on which the runs differ."""

    card: Card
    predictions: list[RunPrediction]


def render_comparison(
    runs: Mapping[str, RunFolder],
    comparison: Comparison,
    posts: Mapping[str, GalleryPost],
    notes: Sequence[str],
) -> Page:
    """Renders the comparison of runs with the same outer rows as one HTML file.

    Args:
        runs: The runs, by their names on the page.
        comparison: Their comparison, under the same names.
        posts: Text and picture by guid; guids may be missing.
        notes: Caveats.

    Raises:
        ModelError: A file is missing or malformed, or two of them contradict each other.
    """
    for run in runs.values():
        check_agreement(run)
    classes = comparison.classes
    scores = {name: run.figures.outer for name, run in runs.items()}
    intervals = {
        name: prediction_intervals(run.predictions, run.record.classes)
        for name, run in runs.items()
    }
    tables = [
        settings_table({name: run.record for name, run in runs.items()}),
        *comparison_tables(comparison, scores, intervals),
    ]
    aligned = {name: align_predictions(run, classes) for name, run in runs.items()}
    rows = disagreement_rows([*aligned.values()])
    weights = [note for run in runs.values() for note in random_weights(run.record)]
    html = render_page(
        "comparison.html.j2",
        runs=[*runs],
        classes=classes,
        colours=class_colours(classes),
        caveats=[*dict.fromkeys([*notes, *weights])],
        comparison=comparison,
        tables={table.name: table for table in tables},
        score_dots=_score_dots(comparison, intervals),
        difference_dots=_difference_dots(comparison),
        class_dots=_class_dots(comparison, intervals),
        disagreements=_disagreements(rows, aligned, posts),
        disagreement_count=len(rows),
        resamples=RESAMPLES,
        level=f"{LEVEL:.0%}",
    )
    return Page(html, tables)


def align_predictions(run: RunFolder, classes: Sequence[str]) -> Predictions:
    """A run's predictions sorted by guid, with class codes in the order of ``classes``."""
    predictions, names = run.predictions, run.record.classes
    rows = np.argsort(np.array(predictions.guids), kind="stable")
    codes = np.array([classes.index(name) for name in names])
    return Predictions(
        [predictions.guids[row] for row in rows.tolist()],
        codes[predictions.labels[rows]],
        codes[predictions.predicted[rows]],
        predictions.probabilities[rows][:, [names.index(name) for name in classes]],
        None if predictions.groups is None else predictions.groups[rows],
    )


def disagreement_rows(runs: Sequence[Predictions]) -> NDArray[np.int64]:
    """Rows on which runs differ, sorted by the confidence of the least confident run.

    Args:
        runs: Predictions of the same rows in the same order.
    """
    predicted = np.stack([run.predicted for run in runs])
    rows = np.flatnonzero((predicted != predicted[0]).any(axis=0))
    confidence = np.stack([run.confidence for run in runs]).min(axis=0)[rows]
    return rows[np.argsort(-confidence, kind="stable")]


def drop_duplicates(rows: NDArray[np.int64], run: Predictions) -> NDArray[np.int64]:
    """The first row of each group of duplicates; all rows if the run has no groups."""
    if run.groups is None:
        return rows
    return rows[np.sort(np.unique(run.groups[rows], return_index=True)[1])]


def _disagreements(
    rows: NDArray[np.int64], runs: Mapping[str, Predictions], posts: Mapping[str, GalleryPost]
) -> list[Disagreement]:
    first = next(iter(runs.values()))
    rows = drop_duplicates(rows, first)[:POSTS]
    return [
        Disagreement(
            card,
            [
                RunPrediction(name, int(run.predicted[row]), run.probabilities[row].tolist())
                for name, run in runs.items()
            ],
        )
        for row, card in zip(rows.tolist(), cards(rows, first, posts), strict=True)
    ]


def _score_dots(
    comparison: Comparison, intervals: Mapping[str, ScoreIntervals]
) -> dict[str, DotChart]:
    """The scores of the runs, by title."""
    return {
        title: DotChart.of(
            [
                (run.run, [Mark(getattr(run.scores, key), getattr(intervals[run.run], key))])
                for run in comparison.runs
            ]
        )
        for key, title in _COMPARED.items()
    }


def _difference_dots(comparison: Comparison) -> dict[str, DotChart]:
    """The paired differences, by title."""
    return {
        title: DotChart.of(
            [
                (
                    f"{short(pair.second, 14)} − {short(pair.first, 14)}",
                    [Mark(paired.difference, paired.interval)],
                )
                for pair in comparison.pairs
                for paired in [getattr(pair, key)]
            ],
            0.0,
        )
        for key, title in _COMPARED.items()
    }


def _class_dots(
    comparison: Comparison, intervals: Mapping[str, ScoreIntervals]
) -> dict[str, DotChart]:
    """F1 of each class by run, on one axis."""
    rows = {
        name: [
            (
                run.run,
                [Mark(run.scores.per_class[name].f1, intervals[run.run].per_class[name].f1)],
            )
            for run in comparison.runs
        ]
        for name, first in comparison.runs[0].scores.per_class.items()
        if first.support
    }
    axis = DotChart.of([row for of_class in rows.values() for row in of_class]).ticks
    return {name: DotChart(of_class, axis) for name, of_class in rows.items()}
