"""Tables and notes on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mmsa_cache.console import format_table, print_result, say
from mmsa_cache.shown import on_a_line


def say_notes(notes: Iterable[str]) -> None:
    """Says what a reader of figures must know."""
    for note in notes:
        say(on_a_line(f"Note: {note}."))


def show_table(records: Sequence[Mapping[str, object]], columns: list[str]) -> None:
    """Prints some columns of records."""
    cells = [[_cell(record[column]) for column in columns] for record in records]
    print_result(format_table(columns, cells))


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_cell, value))})"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(part)}" for key, part in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)
