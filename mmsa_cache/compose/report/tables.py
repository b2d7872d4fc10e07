"""Tables of the report pages: figures, and the numbers behind each chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fuse.figures.record import Interval
from mmsa_cache.escaping import csv_text

MOST_ROWS = 500
"""Rows of a table that a page shows; its CSV has all."""
SIGNED = "+.3f"
"""Format of differences."""
_PLAIN = ".3f"

Cell = str | int | float | Interval | None


@dataclass(frozen=True, slots=True)
class FigureTable:
    """Numbers, shown on a page with three decimals and written to CSV as they are."""

    name: str
    """Id on the page, and name of the CSV file."""
    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    formats: Mapping[str, str] = field(default_factory=dict)
    """Formats of numbers by column, where they are not shown with three decimals."""
    of_classes: bool = False
    """Whether the first column names classes, which have colours."""
    of_words: bool = False
    """Whether the cells are words, which may take several lines."""

    def shown(self) -> list[list[str]]:
        """The first `MOST_ROWS` rows as text."""
        specs = [self.formats.get(title, _PLAIN) for title in self.columns]
        return [
            [shown(cell, spec) for cell, spec in zip(row, specs, strict=True)]
            for row in self.rows[:MOST_ROWS]
        ]

    def csv(self) -> str:
        """All rows; an interval takes two columns."""
        spans = [
            any(isinstance(row[place], Interval) for row in self.rows)
            for place in range(len(self.columns))
        ]
        header = [
            name
            for title, is_span in zip(self.columns, spans, strict=True)
            for name in ([f"{title}, low", f"{title}, high"] if is_span else [title])
        ]
        return csv_text([header, *(_flat(row, spans) for row in self.rows)])


def _flat(row: list[Cell], spans: list[bool]) -> list[object]:
    cells: list[object] = []
    for cell, is_span in zip(row, spans, strict=True):
        if isinstance(cell, Interval):
            cells += [cell.low, cell.high]
        else:
            cells += ["", ""] if is_span else ["" if cell is None else cell]
    return cells


def shown(cell: Cell, spec: str = _PLAIN) -> str:
    """A cell as text: numbers with a real minus, what is missing as a dash.

    Args:
        cell: An interval that begins below 0 is shown with signs.
        spec: Format of a number.
    """
    if cell is None:
        return "–"
    if isinstance(cell, Interval):
        if spec == _PLAIN and cell.low < 0:
            spec = SIGNED
        between = " … " if spec.startswith("+") else "–"
        return f"{shown(cell.low, spec)}{between}{shown(cell.high, spec)}"
    if isinstance(cell, float):
        return format(cell, spec).replace("-", "−")
    return str(cell)
