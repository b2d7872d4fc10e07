"""CSV and TSV files, and label files in plain text.

The separator is the one of ``,``, ``;`` and tab that finds most usual column names in the header.
Cells are quoted as by Python's ``csv``. In a TSV quotes may be part of the text instead: the file
is read the way that gives fewer rows with a wrong number of columns, then the one with more rows.
"""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.files import MAX_TEXT_BYTES

from . import Cell, Note
from .columns import find_columns
from .text_lines import TextLines

_SEPARATORS = (",", ";", "\t")
# Twice the limit of a text, so that a text that is too long is a flaw of its row only.
csv.field_size_limit(2 * MAX_TEXT_BYTES)


def open_table(path: Path, root: Path, data: DataSettings, note: Note) -> CsvFile:
    """See `mmsa_cache.data.tables.open_table`."""
    return CsvFile(path, root, data, note)


class CsvFile:
    """A text file of separated cells with a header."""

    names: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, path: Path, root: Path, data: DataSettings, note: Note) -> None:
        self._lines = TextLines(path, root, data)
        self._note = note
        usual = "\t" if path.suffix.lower() == ".tsv" else ","
        self._separator = self._find_separator(usual, data)
        self.columns = tuple(next(self._cells(csv.QUOTE_MINIMAL, lambda *_: None), (0, []))[1])
        self._quoting = self._find_quoting() if self._separator == "\t" else csv.QUOTE_MINIMAL

    def records(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """See `TableFile`."""
        rows = self._cells(self._quoting, self._note)
        next(rows, None)
        width = len(self.columns)
        for line, cells in rows:
            blank = not any(cell.strip() for cell in cells)  # as at the end of spreadsheets
            if len(cells) == width and not blank:
                yield line, dict(zip(self.columns, cells, strict=True))
            elif not blank:
                cause = "another number of columns than the header"
                self._note(line, cause, f"expected {width} columns, received {len(cells)}")

    def _cells(self, quoting: int, note: Note) -> Iterator[tuple[int, list[str]]]:
        """Yields the line where each row begins, and its cells; the header comes first."""
        rows = csv.reader(
            iter(self._lines),
            delimiter=self._separator,
            quoting=quoting,  # type: ignore[arg-type]  # QUOTE_MINIMAL or QUOTE_NONE
            strict=True,
        )
        while True:
            line = rows.line_num + 1  # a quoted cell may span several lines
            try:
                yield line, next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                note(line, f"{error} (is a quote left open?)", "")

    def _find_separator(self, usual: str, data: DataSettings) -> str:
        header = next(iter(self._lines), "")

        def found(separator: str) -> tuple[int, bool]:
            names = _split(header, separator)
            return len(find_columns(names, data.columns).used), separator == usual

        return max(_SEPARATORS, key=found)

    def _find_quoting(self) -> int:
        if not any('"' in line for line in self._lines):
            return csv.QUOTE_MINIMAL
        return min((csv.QUOTE_MINIMAL, csv.QUOTE_NONE), key=self._count_bad_rows)

    def _count_bad_rows(self, quoting: int) -> tuple[int, int]:
        """Number of rows with another number of cells than the header, and minus that of others."""
        problems: list[int] = []
        rows = self._cells(quoting, lambda line, *_: problems.append(line))
        cells = Counter(len(cells) for _, cells in rows)
        right = cells.pop(len(self.columns), 0)
        return cells.total() - cells[0] + len(problems), -right


def _split(header: str, separator: str) -> Sequence[str]:
    with contextlib.suppress(csv.Error):  # reading the file reports it
        return next(csv.reader([header], delimiter=separator), [])
    return []
