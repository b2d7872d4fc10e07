"""The page that compares runs, of the parts that the page of one run is of."""

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

from ..pages.shell import printable
from .attention import Maps
from .charts import Dots, Mark, class_colours
from .comparison_tables import comparison_tables, settings_table
from .gallery import Card, GalleryPost, cards
from .page import Page, check_agreement, random_weights
from .sections import figure_intervals
from .templates import report_templates, short

POSTS = 12
"""Posts that the page shows of those on which runs differ."""


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """What one run says of a post."""

    run: str
    predicted: int
    probabilities: list[float]
    """Of the classes in the order of the page."""


@dataclass(frozen=True, slots=True)
class Contested:
    """A post on which the runs differ."""

    card: Card
    answers: list[RunAnswer]


def render_comparison(
    runs: Mapping[str, RunFolder],
    compared: Comparison,
    posts: Mapping[str, GalleryPost],
    notes: Sequence[str],
) -> Page:
    """Writes the comparison of runs that judged equal rows as one HTML file.

    Args:
        runs: By their names on the page.
        compared: Of them, under these names.
        posts: Text and picture by guid; it may lack guids.
        notes: What readers of the figures must know.

    Raises:
        ModelError: A file is missing or malformed, or two of them contradict each other.
    """
    for run in runs.values():
        check_agreement(run)
    classes = compared.classes
    scores = {name: run.figures.outer for name, run in runs.items()}
    intervals = {
        name: figure_intervals(run.predictions, run.record.classes) for name, run in runs.items()
    }
    tables = [
        settings_table({name: run.record for name, run in runs.items()}),
        *comparison_tables(compared, scores, intervals),
    ]
    aligned = {name: align(run, classes) for name, run in runs.items()}
    places = contested([*aligned.values()])
    weights = [line for run in runs.values() for line in random_weights(run.record)]
    page = (
        report_templates()
        .get_template("comparison.html.j2")
        .render(
            runs=[*runs],
            classes=classes,
            colours=class_colours(classes),
            caveats=[*dict.fromkeys([*notes, *weights])],
            compared=compared,
            tables={table.name: table for table in tables},
            figure_dots=_figure_dots(compared, intervals),
            difference_dots=_difference_dots(compared),
            class_dots=_class_dots(compared, intervals),
            contested=len(places),
            posts=_posts(places, aligned, posts),
            resamples=RESAMPLES,
            level=f"{LEVEL:.0%}",
        )
    )
    return Page(printable(page), tables)


def align(run: RunFolder, classes: Sequence[str]) -> Predictions:
    """A run's predictions in the order of the guids, with the codes of other classes' order."""
    found, own = run.predictions, run.record.classes
    rows = np.argsort(np.array(found.guids), kind="stable")
    code = np.array([classes.index(name) for name in own])
    return Predictions(
        [found.guids[row] for row in rows.tolist()],
        code[found.labels[rows]],
        code[found.predicted[rows]],
        found.probabilities[rows][:, [own.index(name) for name in classes]],
        None if found.groups is None else found.groups[rows],
    )


def contested(runs: Sequence[Predictions]) -> NDArray[np.int64]:
    """Rows on which runs differ, those first of which the least sure run is the surest.

    Args:
        runs: Of equal rows in equal order.
    """
    predicted = np.stack([run.predicted for run in runs])
    differing = np.flatnonzero((predicted != predicted[0]).any(axis=0))
    sureness = np.stack([run.confidence for run in runs]).min(axis=0)[differing]
    return differing[np.argsort(-sureness, kind="stable")]


def first_of_groups(places: NDArray[np.int64], run: Predictions) -> NDArray[np.int64]:
    """Of rows that show one post the first; all where the run does not tell them."""
    if run.groups is None:
        return places
    return places[np.sort(np.unique(run.groups[places], return_index=True)[1])]


def _posts(
    places: NDArray[np.int64], runs: Mapping[str, Predictions], posts: Mapping[str, GalleryPost]
) -> list[Contested]:
    first = next(iter(runs.values()))
    places = first_of_groups(places, first)[:POSTS]
    shown = cards(places, first, posts, Maps(""))
    return [
        Contested(
            card,
            [
                RunAnswer(name, int(of.predicted[place]), of.probabilities[place].tolist())
                for name, of in runs.items()
            ],
        )
        for place, card in zip(places.tolist(), shown, strict=True)
    ]


def _figure_dots(found: Comparison, intervals: Mapping[str, ScoreIntervals]) -> dict[str, Dots]:
    """The runs' figures, by title."""
    return {
        title: Dots.of(
            [
                (run.run, [Mark(getattr(run.scores, key), getattr(intervals[run.run], key))])
                for run in found.runs
            ]
        )
        for key, title in (("accuracy", "Accuracy"), ("macro_f1", "Macro F1"))
    }


def _difference_dots(found: Comparison) -> dict[str, Dots]:
    """The paired differences, by title."""
    return {
        title: Dots.of(
            [
                (
                    f"{short(pair.second, 14)} − {short(pair.first, 14)}",
                    [Mark(of.difference, of.interval)],
                )
                for pair in found.pairs
                for of in [getattr(pair, key)]
            ],
            0.0,
        )
        for key, title in (("accuracy", "Accuracy"), ("macro_f1", "Macro F1"))
    }


def _class_dots(found: Comparison, intervals: Mapping[str, ScoreIntervals]) -> dict[str, Dots]:
    """F1 of each class by run, on one axis."""
    rows = {
        name: [
            (
                run.run,
                [Mark(run.scores.per_class[name].f1, intervals[run.run].per_class[name].f1)],
            )
            for run in found.runs
        ]
        for name, of in found.runs[0].scores.per_class.items()
        if of.support
    }
    axis = Dots.of([row for some in rows.values() for row in some]).ticks
    return {name: Dots(some, axis) for name, some in rows.items()}
