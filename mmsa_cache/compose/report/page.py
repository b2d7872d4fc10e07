"""The report of a run: one HTML file that opens offline, without scripts or requests.

Everything that is a number is computed in `sections`, `gallery`, `charts` and the tables;
``report*.j2`` lay it out. What comes from data (texts, guids, class names, the command) reaches the
page only through jinja2's autoescape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from fuse.figures.confusion import confusion
from fuse.figures.record import LEVEL
from fuse.figures.reliability import reliability_bins
from fuse.figures.resampling import RESAMPLES, SEED
from fuse.setting import Setting
from mmsa_cache.errors import ModelError
from mmsa_cache.runs.folder import REMAKE, RunFolder
from mmsa_cache.runs.record import RunRecord

from ..pages.shell import printable
from .attention import LEAST_SCALE, Maps
from .charts import class_colours, learning_curves
from .gallery import GalleryPost, cards, confident_errors, least_certain
from .run_tables import bin_table, curve_tables, recall_table, result_tables
from .sections import (
    Against,
    against_dots,
    distinct,
    figure_dots,
    figure_intervals,
    study_section,
)
from .study_tables import ensemble_tables, study_tables
from .tables import FigureTable
from .templates import report_templates

_OUTER = {
    "report": "the report’s 20 %; training rows that show one of its posts are left out",
    "report-parity": "the report’s 20 %, with duplicates of its posts left in training",
    "val": "the rows of the split val; training rows that show one of its posts are left out",
    "grouped": "a stratified fifth that keeps duplicate posts together",
}
"""Outer splits in words."""
Explain = Callable[[list[str]], Maps]
"""Guids → attention of their words."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and what its tables hold."""

    html: str
    """To be saved as UTF-8."""
    tables: list[FigureTable]


def no_maps(guids: list[str]) -> Maps:
    """Maps of no post."""
    return Maps("The model was not asked which patches its words attend to.")


def render(
    run: RunFolder,
    posts: Mapping[str, GalleryPost],
    title: str,
    *,
    against: Against | None = None,
    explain: Explain = no_maps,
) -> Page:
    """Writes the report of a run as one HTML file.

    Args:
        run: The run.
        posts: Text and picture by guid, for the gallery; it may lack guids.
        title: Name of the run.
        against: Another run, for what the loss does.
        explain: Gives the attention of words for posts of the gallery.

    Raises:
        ModelError: A file is missing or malformed, or two of them contradict each other.
    """
    record, figures, predictions = run.record, run.figures, run.predictions
    check_agreement(run)
    likeliest = predictions.probabilities.argmax(1)
    bins, error = reliability_bins(
        predictions.probabilities.max(1), predictions.labels == likeliest
    )
    intervals = figure_intervals(predictions, record.classes)
    wrong, close = confident_errors(predictions), least_certain(predictions)
    shown = [predictions.guids[place] for place in dict.fromkeys([*wrong, *close])]
    maps = explain(shown)
    apart = distinct(figures, predictions, record.classes)
    charts = learning_curves(run.history, figures.members)
    studies = [study_section(study) for study in run.snapshots]
    compared = against.compared if against else None
    tables = [
        *result_tables(record, figures, intervals, apart),
        *curve_tables(charts, figures),
        *([recall_table(compared)] if compared else []),
        bin_table(bins),
        *study_tables(studies),
        *ensemble_tables(figures.ensembles),
    ]
    of_val = record.protocol.judging == "val"
    page = (
        report_templates()
        .get_template("report.html.j2")
        .render(
            run=title,
            record=record,
            classes=record.classes,
            source=next(iter(record.searched), None),
            defaults=asdict(Setting()),
            always=("fusion", "level", "modality", "loss"),
            caveats=[*record.notes, *random_weights(record)],
            colours=class_colours(record.classes),
            env=run.environment.as_json(),
            command=run.command,
            metrics=figures,
            tables={table.name: table for table in tables},
            grouped=predictions.groups is not None,
            distinct=apart,
            intervals=intervals,
            figure_dots=figure_dots(figures.outer, intervals),
            charts=charts,
            against=against or Against("No other run was given to compare with."),
            against_dots=against_dots(compared),
            bins=bins,
            calibration_error=error,
            largest_bin=max(b.rows for b in bins),
            studies=studies,
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
    return Page(printable(page), tables)


def check_agreement(run: RunFolder) -> None:
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


def random_weights(record: RunRecord) -> list[str]:
    """The sentence that names encoders without trained weights, if there are any."""
    names = [
        f"{modality} encoder"
        for modality, named in record.encoders.items()
        if any(identity.random_weights for identity in named.values())
    ]
    return [f"Random weights: {' and '.join(names)} not pretrained."] if names else []
