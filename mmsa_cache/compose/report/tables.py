"""Tables of the report pages: scores, and the numbers behind each chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fuse.figures.record import Interval
from mmsa_cache.escaping import csv_text

MOST_ROWS = 500
"""Rows shown on a page; the CSV has all."""
SIGNED = "+.3f"
"""Format of differences."""
_DEFAULT = ".3f"

Cell = str | int | float | Interval | None


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table of a page; CSV files have its unrounded numbers."""

    name: str
    """Id on the page, and name of the CSV file."""
    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    formats: Mapping[str, str] = field(default_factory=dict)
    """Number formats by column; default: three decimals."""
    of_classes: bool = False
    """Whether the first column names classes (they get colours)."""
    of_words: bool = False
    """Whether the cells are words (they wrap)."""

    def shown(self) -> list[list[str]]:
        """The first `MOST_ROWS` rows as text."""
        specs = [self.formats.get(title, _DEFAULT) for title in self.columns]
        return [
            [shown(cell, spec) for cell, spec in zip(row, specs, strict=True)]
            for row in self.rows[:MOST_ROWS]
        ]

    def csv(self) -> str:
        """All rows; an interval takes two columns."""
        has_intervals = [
            any(isinstance(row[index], Interval) for row in self.rows)
            for index in range(len(self.columns))
        ]
        header = [
            name
            for title, is_interval in zip(self.columns, has_intervals, strict=True)
            for name in ([f"{title}, low", f"{title}, high"] if is_interval else [title])
        ]
        return csv_text([header, *(_csv_row(row, has_intervals) for row in self.rows)])


def _csv_row(row: list[Cell], has_intervals: list[bool]) -> list[object]:
    values: list[object] = []
    for cell, is_interval in zip(row, has_intervals, strict=True):
        if isinstance(cell, Interval):
            values += [cell.low, cell.high]
        else:
            values += ["", ""] if is_interval else ["" if cell is None else cell]
    return values


def shown(cell: Cell, spec: str = _DEFAULT) -> str:
    """A cell as text: numbers with a minus sign (−), missing values as a dash.

    Args:
        cell: An interval below 0 is shown with signs.
        spec: Format of a number.
    """
    if cell is None:
        return "–"
    if isinstance(cell, Interval):
        if spec == _DEFAULT and cell.low < 0:
            spec = SIGNED
        between = " … " if spec.startswith("+") else "–"
        return f"{shown(cell.low, spec)}{between}{shown(cell.high, spec)}"
    if isinstance(cell, float):
        return format(cell, spec).replace("-", "−")
    return str(cell)
