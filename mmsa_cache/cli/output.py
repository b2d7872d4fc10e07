"""Tables and notes on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mmsa_cache.console import format_table, print_result, say
from mmsa_cache.escaping import single_line

if TYPE_CHECKING:
    from fuse.figures.calibration import Decide
    from fuse.figures.record import Interval
    from fuse.figures.records import Decision


def say_notes(notes: Iterable[str]) -> None:
    """Says what a reader of figures must know."""
    for note in notes:
        say(single_line(f"Note: {note.removesuffix('.')}."))


def format_duration(seconds: float | None) -> str:
    """``40 s``, ``12 min``, ``5.2 h`` or ``3.1 d``; ``0 s`` of what a clock was ahead."""
    if seconds is None:
        return "–"
    seconds = max(0.0, seconds)
    if seconds < 3600:
        return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 86400 else f"{seconds / 86400:.1f} d"


def show_table(records: Sequence[Mapping[str, object]], columns: list[str]) -> None:
    """Prints some columns of records."""
    cells = [[_cell(record[column]) for column in columns] for record in records]
    print_result(format_table(columns, cells))


def format_decisions(decisions: Mapping[Decide, Decision], rule: Decide, title: str = "") -> str:
    """What the decisions of each rule are worth, as a table.

    Args:
        decisions: By rule.
        rule: The one that is used.
        title: Of which rows.
    """
    rows = [
        [
            f"{name} (used)" if name == rule else name,
            f"{of.accuracy:.4f}",
            _span(of.intervals.get("accuracy")),
            f"{of.macro_f1:.4f}",
            _span(of.intervals.get("macro_f1")),
        ]
        for name, of in decisions.items()
    ]
    interval = "95% interval"
    return format_table([f"{title}decided for", "accuracy", interval, "macro-F1", interval], rows)


def _span(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:.4f} … {interval.high:.4f}"


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_cell, value))})"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(part)}" for key, part in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)
