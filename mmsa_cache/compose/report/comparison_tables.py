"""The tables of the page that compares runs."""

from __future__ import annotations

from collections.abc import Mapping

from fuse.evidence.comparison import Comparison
from fuse.figures.record import LEVEL, Interval
from fuse.figures.records import ScoreIntervals, Scores
from mmsa_cache.runs.record import RunRecord

from .cells import BOTH, INTERVAL, confusion_table, decision_cells, figure_cells
from .sections import FIGURES
from .tables import SIGNED, FigureTable
from .templates import plain

_VALUES = 4
"""Values of a setting that are shown of a run with several models."""


def settings_table(records: Mapping[str, RunRecord]) -> FigureTable:
    """What the runs differ in, by their names; no rows where they are alike."""
    described = [_described(record) for record in records.values()]
    keys = dict.fromkeys(key for of in described for key in of)
    return FigureTable(
        "settings",
        "What the runs differ in. Of an ensemble the values of its settings.",
        ["Setting", *records],
        [
            [key, *(of.get(key) for of in described)]
            for key in keys
            if len({of.get(key) for of in described}) > 1
        ],
        of_words=True,
    )


def _described(record: RunRecord) -> dict[str, str]:
    """Everything that makes a model, in words."""
    protocol = record.protocol
    found = {
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
        found[key] = ", ".join([*values][:_VALUES]) + (" …" if len(values) > _VALUES else "")
    return found


def comparison_tables(
    found: Comparison, scores: Mapping[str, Scores], intervals: Mapping[str, ScoreIntervals]
) -> list[FigureTable]:
    """What the runs reach and how they differ.

    Args:
        found: The comparison.
        scores: Of each run, by name.
        intervals: Of these.
    """
    names = [run.run for run in found.runs]
    columns = [f"{name}{what}" for name in names for what in ("", f", {INTERVAL}")]
    beside = [(scores[name], intervals[name]) for name in names]
    return [
        FigureTable(
            "figures",
            f"Figures on the {found.rows} rows that every run judged, with {LEVEL:.0%} bootstrap "
            "percentile intervals.",
            ["Figure", *columns],
            [
                [title, *(c for pair in beside for c in figure_cells(*pair, key))]
                for key, title in FIGURES.items()
            ],
        ),
        FigureTable(
            "decisions",
            "What each decision rule is worth; the figures above are by each run’s own.",
            ["Run", "Decided for", *BOTH],
            [
                [run.run, rule, *decision_cells(of)]
                for run in found.runs
                for rule, of in run.decisions.items()
            ],
        ),
        _differences(found),
        FigureTable(
            "classes",
            f"F1 of each class, with {LEVEL:.0%} intervals.",
            ["Class", "Rows", *columns],
            [
                [name, of.support, *(c for pair in beside for c in _f1(*pair, name))]
                for name, of in found.runs[0].scores.per_class.items()
                if of.support
            ],
            of_classes=True,
        ),
        *(
            confusion_table(f"confusion-{number}", f"Run {run.run}.", run.scores)
            for number, run in enumerate(found.runs, start=1)
        ),
        _disagreements(found),
    ]


def _f1(scores: Scores, intervals: ScoreIntervals, name: str) -> tuple[float, Interval]:
    """F1 of a class, and its interval."""
    return scores.per_class[name].f1, intervals.per_class[name].f1


def _differences(found: Comparison) -> FigureTable:
    p_values = ["McNemar p", "p, Holm"]
    several = len(found.pairs) > 1
    return FigureTable(
        "differences",
        f"Paired differences, second − first, with {LEVEL:.0%} intervals.",
        ["First", "Second", *BOTH, *p_values[: 1 + several]],
        [
            [
                pair.first,
                pair.second,
                pair.accuracy.difference,
                pair.accuracy.interval,
                pair.macro_f1.difference,
                pair.macro_f1.interval,
                *[pair.mcnemar.p_value, pair.mcnemar.p_holm][: 1 + several],
            ]
            for pair in found.pairs
        ],
        dict.fromkeys(BOTH, SIGNED) | dict.fromkeys(p_values, ".3g"),
    )


def _disagreements(found: Comparison) -> FigureTable:
    return FigureTable(
        "disagreements",
        f"How many of {found.rows} rows two runs differ on.",
        ["First", "Second", "Only first right", "Only second right", "Both wrong"],
        [
            [pair.first, pair.second, *(len(rows) for _, rows in pair.differing)]
            for pair in found.pairs
        ],
    )
