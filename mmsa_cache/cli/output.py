"""Tables and notes on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mmsa_cache.console import format_table, print_result, say
from mmsa_cache.escaping import single_line

if TYPE_CHECKING:
    from fuse.evidence.comparison import IntervalDifference
    from fuse.figures.calibration import Decide
    from fuse.figures.record import Interval
    from fuse.figures.records import Decision, Scores


def say_notes(notes: Iterable[str]) -> None:
    """Prints notes for people, a line each."""
    for note in notes:
        say(single_line(f"Note: {note.removesuffix('.')}."))


def format_duration(seconds: float | None) -> str:
    """``40 s``, ``12 min``, ``5.2 h`` or ``3.1 d``; ``0 s`` where a clock was ahead."""
    if seconds is None:
        return "–"
    seconds = max(0.0, seconds)
    if seconds < 3600:
        return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 86400 else f"{seconds / 86400:.1f} d"


def show_table(records: Sequence[Mapping[str, object]], columns: list[str]) -> None:
    """Prints some columns of records as a table."""
    cells = [[_cell(record[column]) for column in columns] for record in records]
    print_result(format_table(columns, cells))


def format_interval(interval: Interval | IntervalDifference, sign: str = "") -> str:
    """``0.7100 … 0.7690``; with the sign ``+`` both numbers have one."""
    return f"{interval.low:{sign}.4f} … {interval.high:{sign}.4f}"


def score_cells(scores: Scores | Decision, intervals: Mapping[str, Interval]) -> list[str]:
    """Accuracy and macro-F1, each followed by its interval where there is one."""
    cells = []
    for metric in ("accuracy", "macro_f1"):
        span = format_interval(intervals[metric]) if metric in intervals else "–"
        cells += [f"{getattr(scores, metric):.4f}", span]
    return cells


def format_decisions(decisions: Mapping[Decide, Decision], rule: Decide, title: str = "") -> str:
    """A table of the scores that each decision rule gives.

    Args:
        decisions: By rule.
        rule: The rule in use.
        title: Names the rows, before the first column's title.
    """
    rows = [
        [f"{name} (used)" if name == rule else name, *score_cells(decision, decision.intervals)]
        for name, decision in decisions.items()
    ]
    level = "95% interval"
    return format_table([f"{title}decided for", "accuracy", level, "macro-F1", level], rows)


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_cell, value))})"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(part)}" for key, part in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)
