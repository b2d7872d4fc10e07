"""The table of an ablation: for a terminal, as CSV and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable

from fuse.evidence.parity import format_interval, markdown_table, plus_minus
from fuse.evidence.records import AblationRecord
from mmsa_cache.console import format_table
from mmsa_cache.escaping import csv_text, escape_markdown, markdown_code

_SHOWN_METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
_CSV_METRICS = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
_CSV_PARTS = ("mean", "deviation", "low", "high")


def format_ablation(record: AblationRecord) -> str:
    """The table for a terminal."""
    header, rows = _table(record)
    return "\n".join([format_table(header, rows), "", _caption(record)])


def _table(record: AblationRecord) -> tuple[list[str], list[list[str]]]:
    header = [*record.axes]
    for title in _SHOWN_METRICS.values():
        header += [title, "95 %"]
    header += ["Δ macro-F1", "95 %", *(f"recall {name}" for name in _judged_classes(record))]
    rows = []
    for cell in record.cells:
        row = [cell.labels[axis] for axis in record.axes]
        for key in _SHOWN_METRICS:
            row += [plus_minus(cell.figure(key)), format_interval(cell.figure(key))]
        change = cell.change["macro_f1"]
        row += [f"{change.mean:+.4f}", format_interval(change, "+")]
        rows.append([*row, *(plus_minus(cell.recall[name]) for name in _judged_classes(record))])
    return header, rows


def _judged_classes(record: AblationRecord) -> list[str]:
    return [name for name, rows in record.judged.items() if rows]


def _caption(record: AblationRecord) -> str:
    rows = ", ".join(f"{count} {name}" for name, count in record.judged.items())
    return (
        f"Mean of {record.members} training(s) ± deviation of single ones, on "
        f"{sum(record.judged.values())} rows ({rows}; outer split {record.protocol.outer}). "
        f"Intervals of the mean from {record.resamples} resamples of these rows, Δ against the "
        "first line on the same resamples; they do not hold the chance of training again."
    )


def _csv(record: AblationRecord) -> str:
    """A line for each cell, every score with mean, deviation and interval."""
    titles = [*_CSV_METRICS, *(f"recall_{name}" for name in record.judged)]
    columns = [f"{title}_{part}" for title in titles for part in _CSV_PARTS]
    rows: list[list[object]] = [[*record.axes, "members", *columns, "parameters", "seconds"]]
    for cell in record.cells:
        scores = [cell.figure(key) for key in _CSV_METRICS]
        scores += [cell.recall[name] for name in record.judged]
        values = [getattr(score, part) for score in scores for part in _CSV_PARTS]
        labels = [cell.labels[axis] for axis in record.axes]
        rows.append([*labels, cell.members, *values, cell.parameters, cell.seconds])
    return csv_text(rows)


def _markdown(record: AblationRecord) -> str:
    lines = [
        f"Command: {markdown_code(record.command)}",
        "",
        f"Encoders: {escape_markdown(' and '.join(record.encoders.values()))}; "
        f"{record.trainings} trainings, {record.seconds_of_trainings:.0f} s of training.",
        "",
        *(f"Note: {escape_markdown(note)}.\n" for note in record.notes),
        *markdown_table(*_table(record)),
        "",
        escape_markdown(_caption(record)),
        "",
    ]
    return "\n".join(lines)


WRITERS: dict[str, Callable[[AblationRecord], str]] = {
    ".csv": _csv,
    ".md": _markdown,
    ".json": lambda record: json.dumps(record.as_json(), indent=1) + "\n",
}
