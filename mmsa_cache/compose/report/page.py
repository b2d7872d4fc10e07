"""The report of a run: one HTML file that opens offline, without scripts or requests.

`sections`, `gallery`, `charts` and the tables compute all numbers; ``report*.j2`` lay them out.
Data (texts, guids, class names, the command) passes through jinja2's autoescape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fuse.figures.confusion import confusion
from fuse.figures.predictions import Predictions
from fuse.figures.record import LEVEL
from fuse.figures.reliability import reliability_bins
from fuse.figures.resampling import RESAMPLES, SEED
from fuse.setting import DEFAULTS
from mmsa_cache.errors import ModelError
from mmsa_cache.runs.folder import REMAKE, RunFolder
from mmsa_cache.runs.record import RunRecord

from .attention import LEAST_SCALE, AttentionMaps
from .charts import class_colours, learning_curves
from .gallery import GalleryPost, cards, confident_errors, least_certain
from .run_tables import bin_table, curve_tables, recall_table, result_tables
from .sections import (
    LossSection,
    distinct_scores,
    prediction_intervals,
    recall_dots,
    score_dots,
    study_section,
)
from .study_tables import ensemble_tables, study_tables
from .tables import ReportTable
from .templates import render_page

_OUTER_DESCRIPTIONS = {
    "report": "the report’s 20 %; training rows that show one of its posts are left out",
    "report-parity": "the report’s 20 %, with duplicates of its posts left in training",
    "val": "the rows of the split val; training rows that show one of its posts are left out",
    "grouped": "a stratified fifth that keeps duplicate posts together",
}
_ALWAYS_SHOWN = ("fusion", "level", "modality", "loss")
"""Settings that the page shows at their defaults too."""
Explain = Callable[[list[str]], AttentionMaps]
"""Attention maps of the posts with these guids."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page and its tables."""

    html: str
    """To be saved as UTF-8."""
    tables: list[ReportTable]


def skip_attention(guids: list[str]) -> AttentionMaps:
    """An `Explain` that draws nothing."""
    return AttentionMaps("The model was not asked which patches its words attend to.")


def render(
    run: RunFolder,
    posts: Mapping[str, GalleryPost],
    title: str,
    *,
    against: LossSection | None = None,
    explain: Explain = skip_attention,
) -> Page:
    """Renders the report of a run as one HTML file.

    Args:
        run: The run.
        posts: Text and picture by guid, for the gallery; guids may be missing.
        title: Name of the run.
        against: The section on the loss.
        explain: Computes the attention maps of the gallery's posts.

    Raises:
        ModelError: A file is missing or malformed, or two of them contradict each other.
    """
    check_agreement(run)
    record, scores, predictions = run.record, run.figures, run.predictions
    against = against or LossSection("No other run was given to compare with.")
    intervals = prediction_intervals(predictions, record.classes)
    distinct = distinct_scores(scores, predictions, record.classes)
    likeliest = predictions.probabilities.argmax(1)
    bins, error = reliability_bins(
        predictions.probabilities.max(1), predictions.labels == likeliest
    )
    curves = learning_curves(run.history, scores.members)
    studies = [study_section(study) for study in run.snapshots]
    tables = [
        *result_tables(record, scores, intervals, distinct),
        *curve_tables(curves, scores),
        *([recall_table(against.comparison)] if against.comparison else []),
        bin_table(bins),
        *study_tables(studies),
        *ensemble_tables(scores.ensembles),
    ]
    html = render_page(
        "report.html.j2",
        run=title,
        metrics=scores,
        tables={table.name: table for table in tables},
        distinct=distinct,
        intervals=intervals,
        score_dots=score_dots(scores.outer, intervals),
        charts=curves,
        against=against,
        recall_dots=recall_dots(against.comparison),
        bins=bins,
        calibration_error=error,
        largest_bin=max(b.rows for b in bins),
        studies=studies,
        **_run_facts(run),
        **_gallery(predictions, posts, explain),
    )
    return Page(html, tables)


def _run_facts(run: RunFolder) -> dict[str, object]:
    """Template variables that describe the run and the intervals."""
    record = run.record
    outer = "val" if record.protocol.judging == "val" else record.protocol.outer
    return {
        "record": record,
        "classes": record.classes,
        "caveats": [*record.notes, *random_weights(record)],
        "colours": class_colours(record.classes),
        "grouped": run.predictions.groups is not None,
        "resamples": RESAMPLES,
        "seed": SEED,
        "level": f"{LEVEL:.0%}",
        "source": next(iter(record.searched), None),
        "defaults": DEFAULTS,
        "always_shown": _ALWAYS_SHOWN,
        "env": run.environment.as_json(),
        "command": run.command,
        "outer_description": _OUTER_DESCRIPTIONS.get(outer, ""),
        "no_study": (
            "What the study found was not kept with this run; train it again to see it here."
            if record.searched
            else "This run’s setting was given, not searched, so there is no study to show."
        ),
    }


def _gallery(
    predictions: Predictions, posts: Mapping[str, GalleryPost], explain: Explain
) -> dict[str, object]:
    """Template variables of the gallery."""
    errors, uncertain = confident_errors(predictions), least_certain(predictions)
    maps = explain([predictions.guids[row] for row in dict.fromkeys([*errors, *uncertain])])
    return {
        "maps_note": maps.note,
        "mapped": bool(maps.posts),
        "least_scale": LEAST_SCALE,
        "errors": cards(errors, predictions, posts, maps),
        "uncertain": cards(uncertain, predictions, posts, maps),
        "wrong": int((predictions.labels != predictions.predicted).sum()),
    }


def check_agreement(run: RunFolder) -> None:
    """Checks that the stored scores are those of the stored predictions.

    Raises:
        ModelError: The confusion matrices differ.
    """
    predictions = run.predictions
    counted = confusion(predictions.labels, predictions.predicted, len(run.record.classes))
    if counted.tolist() != run.figures.outer.confusion:
        raise ModelError(
            f"{run.path / 'predictions.csv'} does not give the confusion matrix of "
            f"{run.path / 'metrics.json'}: expected {run.figures.outer.confusion}, received "
            f"{counted.tolist()}.",
            REMAKE,
        )


def random_weights(record: RunRecord) -> list[str]:
    """A caveat that names the encoders without trained weights; empty if there are none."""
    names = [
        f"{modality} encoder"
        for modality, named in record.encoders.items()
        if any(identity.random_weights for identity in named.values())
    ]
    return [f"Random weights: {' and '.join(names)} not pretrained."] if names else []
