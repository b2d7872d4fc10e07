"""The table of an ablation: for a terminal, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from fuse.evidence.parity import markdown
from mmsa_cache.console import format_table

_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


def format_ablation(record: dict[str, Any], axes: Sequence[str]) -> str:
    """The table as a person reads it."""
    header, rows = _cells(record, axes)
    return "\n".join([format_table(header, rows), "", _method(record)])


def _cells(record: dict[str, Any], axes: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    names = list(record["judged"])
    header = [*axes]
    for title in _FIGURES.values():
        header += [title, "95 %"]
    header += ["Δ macro-F1", "95 %", *(f"recall {name}" for name in names)]
    rows = []
    for cell in record["cells"]:
        row = [cell["labels"][axis] for axis in axes]
        for key in _FIGURES:
            row += [_plus_minus(cell[key]), f"{cell[key]['low']:.3f} … {cell[key]['high']:.3f}"]
        change = cell["change"]["macro_f1"]
        row += [f"{change['mean']:+.4f}", f"{change['low']:+.3f} … {change['high']:+.3f}"]
        rows.append([*row, *(_plus_minus(cell["recall"][name]) for name in names)])
    return header, rows


def _plus_minus(figure: dict[str, Any]) -> str:
    deviation = figure["deviation"]
    return f"{figure['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _method(record: dict[str, Any]) -> str:
    rows = ", ".join(f"{count} {name}" for name, count in record["judged"].items())
    return (
        f"Mean of {record['members']} training(s) ± deviation of single ones, on "
        f"{sum(record['judged'].values())} rows ({rows}; outer split {record['outer']}). "
        f"Intervals of the mean from {record['resamples']} resamples of these rows, Δ against the "
        "first line on the same resamples; they do not hold the chance of training again."
    )


def _csv(record: dict[str, Any]) -> str:
    """A line a cell, every figure with mean, deviation and interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "deviation", "low", "high")
    keys = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
    names = list(record["judged"])
    titles = [*keys, *(f"recall_{name}" for name in names)]
    columns = [f"{title}_{part}" for title in titles for part in parts]
    writer.writerow([*record["axes"], "members", *columns, "parameters", "seconds"])
    for cell in record["cells"]:
        figures = [cell[key] for key in keys] + [cell["recall"][name] for name in names]
        own = [cell["labels"][axis] for axis in record["axes"]]
        values = [figure[part] for figure in figures for part in parts]
        writer.writerow([*own, cell["members"], *values, cell["parameters"], cell["seconds"]])
    return text.getvalue()


def _markdown(record: dict[str, Any]) -> str:
    lines = [
        f"Command: `{record['command']}`",
        "",
        f"Encoders: {record['encoders']['text']} and {record['encoders']['image']}; "
        f"{record['trainings']} trainings, {record['seconds_of_trainings']:.0f} s of training.",
        "",
        *(f"Note: {note}.\n" for note in record["notes"]),
        *markdown(*_cells(record, record["axes"])),
        "",
        _method(record),
        "",
    ]
    return "\n".join(lines)


WRITERS = {
    ".csv": _csv,
    ".md": _markdown,
    ".json": lambda record: json.dumps(record, indent=1) + "\n",
}
