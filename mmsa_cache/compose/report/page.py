"""The report of a run: one HTML file that opens offline, without scripts or requests.

Everything that is a number is computed in `sections`, `gallery` or `charts`; ``report*.j2`` lay it
out. What comes from data (texts, guids, class names, the command) reaches the page only through
jinja2's autoescape.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import jinja2

from fuse.figures.confusion import confusion
from fuse.figures.record import LEVEL, Interval
from fuse.figures.records import Scores
from fuse.figures.reliability import calibration
from fuse.figures.resampling import RESAMPLES, SEED
from fuse.figures.study import NestedGain
from fuse.setting import Setting
from mmsa_cache.errors import ModelError
from mmsa_cache.runs.folder import REMAKE, RunFolder
from mmsa_cache.runs.record import RunRecord

from ..pages.shell import page_templates, printable
from .attention import LEAST_SCALE, Maps
from .charts import class_colours, learning_curves, tick_labels
from .gallery import Post, cards, confident_errors, least_certain
from .sections import (
    FIGURES,
    Against,
    against_dots,
    distinct,
    figure_dots,
    figure_intervals,
    score_rows,
    study_section,
)

_CALIBRATED = (
    "accuracy",
    "macro_f1",
    "macro_recall",
    "neg_log_loss",
    "brier",
    "calibration_error",
)
"""Figures that calibration changes."""
_LOSSES = ("neg_log_loss",)
"""Figures that are shown with their sign turned."""
_OUTER = {
    "report": "the report’s 20 %; training rows that show one of its posts are left out",
    "report-parity": "the report’s 20 %, with duplicates of its posts left in training",
    "val": "the rows of the split val; training rows that show one of its posts are left out",
    "grouped": "a stratified fifth that keeps duplicate posts together",
}
"""Outer splits in words."""
Explain = Callable[[list[str]], Maps]
"""Guids → attention of their words."""


def no_maps(guids: list[str]) -> Maps:
    """Maps of no post."""
    return Maps("The model was not asked which patches its words attend to.")


def render(
    run: RunFolder,
    posts: Mapping[str, Post],
    title: str,
    *,
    against: Against | None = None,
    explain: Explain = no_maps,
) -> str:
    """Writes the report of a run as the text of one HTML file.

    Args:
        run: The run.
        posts: Text and picture by guid, for the gallery; it may lack guids.
        title: Name of the run.
        against: Another run, for what the loss does.
        explain: Gives the attention of words for posts of the gallery.

    Returns:
        HTML, to be saved as UTF-8.

    Raises:
        ModelError: A file is missing or malformed, or two of them contradict each other.
    """
    record, figures, predictions = run.record, run.figures, run.predictions
    _check_agreement(run)
    likeliest = predictions.probabilities.argmax(1)
    bins, error = calibration(predictions.probabilities.max(1), predictions.labels == likeliest)
    intervals = figure_intervals(predictions, record.classes)
    wrong, close = confident_errors(predictions), least_certain(predictions)
    shown = [predictions.guids[place] for place in dict.fromkeys([*wrong, *close])]
    maps = explain(shown)
    scores = score_rows(figures)
    of_val = record.protocol.judging == "val"
    page = (
        report_templates()
        .get_template("report.html.j2")
        .render(
            run=title,
            record=record,
            source=next(iter(record.searched), None),
            defaults=asdict(Setting()),
            always=("fusion", "level", "modality", "loss"),
            caveats=[*record.notes, *_random_weights(record)],
            colours=class_colours(record.classes),
            env=run.environment.as_json(),
            command=run.command,
            metrics=figures,
            scores=scores,
            compared=_known(row.score for row in scores),
            halves_shown=_known(figures.halves.values()),
            grouped=predictions.groups is not None,
            distinct=distinct(figures, predictions, record.classes),
            figures=FIGURES,
            intervals=intervals,
            figure_dots=figure_dots(figures.outer, intervals),
            charts=learning_curves(run.history, figures.members),
            against=against or Against("No other run was given to compare with."),
            against_dots=against_dots(against.compared if against else None),
            bins=bins,
            calibration_error=error,
            largest_bin=max(b.rows for b in bins),
            studies=[study_section(study) for study in run.snapshots],
            outer_said=_OUTER.get("val" if of_val else record.protocol.outer, ""),
            search_said=(
                "What the study found was not kept with this run; train it again to see it here."
                if record.searched
                else "This run’s setting was given, not searched, so there is no study to show."
            ),
            maps_said=maps.said,
            mapped=bool(maps.posts),
            least_scale=LEAST_SCALE,
            errors=cards(wrong, predictions, posts, maps),
            uncertain=cards(close, predictions, posts, maps),
            wrong=int((predictions.labels != predictions.predicted).sum()),
            resamples=RESAMPLES,
            seed=SEED,
            level=f"{LEVEL:.0%}",
        )
    )
    return printable(page)


def _check_agreement(run: RunFolder) -> None:
    """The intervals are those of the figures only if both come from the same predictions."""
    predictions = run.predictions
    counted = confusion(predictions.labels, predictions.predicted, len(run.record.classes))
    if counted.tolist() != run.figures.outer.confusion:
        raise ModelError(
            f"{run.path / 'predictions.csv'} does not give the confusion matrix of "
            f"{run.path / 'metrics.json'}: expected {run.figures.outer.confusion}, received "
            f"{counted.tolist()}.",
            REMAKE,
        )


@functools.cache
def report_templates(*folders: Path) -> jinja2.Environment:
    """The templates of the report, with the filters that its parts need.

    Args:
        folders: Have templates that use them.
    """
    templates = page_templates(*folders, Path(__file__).parent)
    templates.filters |= {
        "plain": _plain,
        "labels": tick_labels,
        "signed": lambda value: f"{value:+.3f}".replace("-", "−"),
        "signed_span": lambda interval: _signed(interval.low, interval.high),
        "figure": _figure,
        "signed_gain": _signed_gain,
        "span": _span,
    }
    return templates


def _figure(value: float | None, key: str = "") -> str:
    """A figure by its key, as it is shown."""
    if value is None:
        return "–"
    return f"{-value if key in _LOSSES else value:.3f}"


def _span(interval: Interval | None, key: str = "") -> str:
    if interval is None:
        return "–"
    low, high = interval.low, interval.high
    if key in _LOSSES:
        low, high = -high, -low
    return _signed(low, high) if low < 0 else f"{low:.3f}–{high:.3f}"


def _signed_gain(gain: NestedGain, key: str) -> str:
    """The interval of a difference of two figures."""
    low, high = gain.interval.low, gain.interval.high
    return _signed(-high, -low) if key in _LOSSES else _signed(low, high)


def _signed(low: float, high: float) -> str:
    return f"{low:+.3f} … {high:+.3f}".replace("-", "−")


def _plain(value: object) -> str:
    """A setting's value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value or "–"
    return json.dumps(value, ensure_ascii=False)


def _random_weights(record: RunRecord) -> list[str]:
    """The sentence that names encoders without trained weights, if there are any."""
    names = [
        f"{modality} encoder"
        for modality, named in record.encoders.items()
        if any(identity.random_weights for identity in named.values())
    ]
    return [f"Random weights: {' and '.join(names)} not pretrained."] if names else []


def _known(scores: Iterable[Scores]) -> list[str]:
    """The figures of a table that all of its scores have."""
    every = list(scores)
    return [key for key in _CALIBRATED if all(getattr(of, key) is not None for of in every)]
