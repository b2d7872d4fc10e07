"""The tables of the page that compares runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fuse.evidence.comparison import Comparison
from fuse.figures.record import LEVEL
from fuse.figures.records import RunFigures, ScoreIntervals
from mmsa_cache.runs.record import RunRecord

from .run_tables import INTERVAL, confusion_table, figure, span
from .sections import FIGURES
from .tables import SIGNED, Cell, Table
from .templates import plain

_VALUES = 4
"""Values of a setting that are shown of a run with several models."""


def settings_table(records: Mapping[str, RunRecord]) -> Table:
    """What the runs differ in, by their names; no rows where they are alike."""
    described = [_described(record) for record in records.values()]
    keys = dict.fromkeys(key for of in described for key in of)
    return Table(
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
    found: Comparison,
    figures: Mapping[str, RunFigures],
    intervals: Mapping[str, ScoreIntervals],
) -> list[Table]:
    """What the runs reach and how they differ.

    Args:
        found: The comparison.
        figures: Of each run, by name.
        intervals: Of these.
    """
    names = [run.run for run in found.runs]
    beside = [f"{name}{what}" for name in names for what in ("", f", {INTERVAL}")]
    tables = [
        Table(
            "figures",
            f"Figures on the {found.rows} rows that every run judged, with {LEVEL:.0%} bootstrap "
            "percentile intervals.",
            ["Figure", *beside],
            [
                [
                    title,
                    *(
                        cell
                        for name in names
                        for cell in (figure(figures[name].outer, key), span(intervals[name], key))
                    ),
                ]
                for key, title in FIGURES.items()
            ],
        ),
        _differences(found),
        Table(
            "classes",
            f"F1 of each class, with {LEVEL:.0%} intervals.",
            ["Class", "Rows", *beside],
            [
                [name, of.support, *_f1(name, names, figures, intervals)]
                for name, of in found.runs[0].scores.per_class.items()
                if of.support
            ],
            of_classes=True,
        ),
        *(
            confusion_table(f"confusion-{number}", f"Run {run.run}.", run.scores)
            for number, run in enumerate(found.runs, start=1)
        ),
        Table(
            "disagreements",
            f"Of {found.rows} rows, those on which two runs differ.",
            ["First", "Second", "Only first right", "Only second right", "Both wrong"],
            [
                [
                    pair.first,
                    pair.second,
                    len(pair.differing.only_first_right),
                    len(pair.differing.only_second_right),
                    len(pair.differing.both_wrong),
                ]
                for pair in found.pairs
            ],
        ),
    ]
    return tables + _decisions(found)


def _f1(
    of_class: str,
    names: Sequence[str],
    figures: Mapping[str, RunFigures],
    intervals: Mapping[str, ScoreIntervals],
) -> list[Cell]:
    cells: list[Cell] = []
    for name in names:
        cells += [
            figures[name].outer.per_class[of_class].f1,
            intervals[name].per_class[of_class].f1,
        ]
    return cells


def _differences(found: Comparison) -> Table:
    spans = [f"Accuracy, {INTERVAL}", f"Macro F1, {INTERVAL}"]
    p_values = ["McNemar p", "p, Holm"]
    several = len(found.pairs) > 1
    return Table(
        "differences",
        f"Paired differences, second − first, with {LEVEL:.0%} intervals.",
        ["First", "Second", "Accuracy", spans[0], "Macro F1", spans[1]] + p_values[: 1 + several],
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
        dict.fromkeys(["Accuracy", "Macro F1", *spans], SIGNED) | dict.fromkeys(p_values, ".3g"),
    )


def _decisions(found: Comparison) -> list[Table]:
    if not any(run.decisions for run in found.runs):
        return []
    return [
        Table(
            "decisions",
            "What each decision rule is worth; the figures above are by each run’s own.",
            ["Run", "Decided for", "Accuracy", f"Accuracy, {INTERVAL}"]
            + ["Macro F1", f"Macro F1, {INTERVAL}"],
            [
                [
                    run.run,
                    rule,
                    of.accuracy,
                    of.intervals.get("accuracy"),
                    of.macro_f1,
                    of.intervals.get("macro_f1"),
                ]
                for run in found.runs
                for rule, of in run.decisions.items()
            ],
        )
    ]
