"""The tables of the page that compares runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fuse.evidence.comparison import Comparison
from fuse.figures.record import LEVEL
from fuse.figures.records import ScoreIntervals, Scores
from mmsa_cache.runs.record import RunRecord

from .cells import DECISION_COLUMNS, INTERVAL, confusion_table, decision_cells, score_cells
from .sections import METRICS
from .tables import SIGNED, ReportTable
from .templates import plain

_MOST_VALUES = 4
"""Values shown of a setting, for a run with several models."""


def settings_table(records: Mapping[str, RunRecord]) -> ReportTable:
    """Settings that differ between runs, by run name."""
    settings = [_settings(record) for record in records.values()]
    keys = dict.fromkeys(key for run in settings for key in run)
    return ReportTable(
        "settings",
        "What the runs differ in. Of an ensemble the values of its settings.",
        ["Setting", *records],
        [
            [key, *(run.get(key) for run in settings)]
            for key in keys
            if len({run.get(key) for run in settings}) > 1
        ],
        of_words=True,
    )


def _settings(record: RunRecord) -> dict[str, str]:
    """Everything that determines a model, in words."""
    protocol = record.protocol
    settings = {
        "text encoder": record.labels["text"],
        "image encoder": record.labels["image"],
        "study": ", ".join(dict.fromkeys(source.name for source in record.studies)) or "none",
        "settings": str(len(record.models)),
        "outer split": protocol.outer,
        "folds": str(protocol.folds),
        "seeds": str(protocol.seeds),
        "seed": str(protocol.seed),
        "members averaged": plain(record.averaged),
        "refit": plain(record.refit),
        "decides for": record.decide,
    }
    fields = dict.fromkeys(key for model in record.models for key in model.setting)
    for key in fields:
        values = dict.fromkeys(plain(model.setting.get(key)) for model in record.models)
        settings[key] = ", ".join([*values][:_MOST_VALUES]) + (
            " …" if len(values) > _MOST_VALUES else ""
        )
    return settings


def comparison_tables(
    comparison: Comparison, scores: Mapping[str, Scores], intervals: Mapping[str, ScoreIntervals]
) -> Iterator[ReportTable]:
    """The scores of runs and their differences.

    Args:
        comparison: The comparison.
        scores: The scores of each run, by name.
        intervals: The intervals of these scores.
    """
    names = [run.run for run in comparison.runs]
    columns = [f"{name}{suffix}" for name in names for suffix in ("", f", {INTERVAL}")]
    by_run = [(scores[name], intervals[name]) for name in names]
    yield ReportTable(
        "figures",
        f"Scores on the {comparison.rows} outer rows that all runs share, with {LEVEL:.0%} "
        "bootstrap percentile intervals.",
        ["Figure", *columns],
        [
            [title, *(cell for run in by_run for cell in score_cells(*run, key))]
            for key, title in METRICS.items()
        ],
    )
    yield ReportTable(
        "decisions",
        "Scores of each decision rule; the table above has those of each run’s own rule.",
        ["Run", "Decided for", *DECISION_COLUMNS],
        [
            [run.run, rule, *decision_cells(decision)]
            for run in comparison.runs
            for rule, decision in run.decisions.items()
        ],
    )
    yield _differences(comparison)
    yield ReportTable(
        "classes",
        f"F1 of each class, with {LEVEL:.0%} intervals.",
        ["Class", "Rows", *columns],
        [
            [
                *(name, first.support),
                *(c for s, i in by_run for c in (s.per_class[name].f1, i.per_class[name].f1)),
            ]
            for name, first in comparison.runs[0].scores.per_class.items()
            if first.support
        ],
        of_classes=True,
    )
    for number, run in enumerate(comparison.runs, start=1):
        yield confusion_table(f"confusion-{number}", f"Run {run.run}.", run.scores)
    yield ReportTable(
        "disagreements",
        f"How many of {comparison.rows} rows two runs differ on.",
        ["First", "Second", "Only first right", "Only second right", "Both wrong"],
        [
            [pair.first, pair.second, *(len(rows) for _, rows in pair.differing)]
            for pair in comparison.pairs
        ],
    )


def _differences(comparison: Comparison) -> ReportTable:
    several = len(comparison.pairs) > 1
    p_values = ["McNemar p", "p, Holm"][: 1 + several]
    return ReportTable(
        "differences",
        f"Paired differences, second − first, with {LEVEL:.0%} intervals.",
        ["First", "Second", *DECISION_COLUMNS, *p_values],
        [
            [
                *(pair.first, pair.second),
                *(pair.accuracy.difference, pair.accuracy.interval),
                *(pair.macro_f1.difference, pair.macro_f1.interval),
                *[pair.mcnemar.p_value, pair.mcnemar.p_holm][: 1 + several],
            ]
            for pair in comparison.pairs
        ],
        dict.fromkeys(DECISION_COLUMNS, SIGNED) | dict.fromkeys(p_values, ".3g"),
    )
