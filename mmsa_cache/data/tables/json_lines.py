"""JSON Lines: one object per line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsa_cache.config.sections import DataSettings

from . import Cell, Note
from .columns import find_columns
from .text_lines import TextLines

_LOOK = 1000
"""First lines, whose names are the columns."""


def open_table(path: Path, root: Path, data: DataSettings, note: Note) -> JsonTable:
    """See `mmsa_cache.data.tables.open_table`."""
    return JsonTable(path, root, data, note)


class JsonTable:
    """A text file with one object per line; missing names are empty cells."""

    names: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, path: Path, root: Path, data: DataSettings, note: Note) -> None:
        self._lines = TextLines(path, root, data)
        self._note = note
        # Some rows of a file may have "label" and others "tag".
        self._label = "label" if data.columns.label is None else "tag"
        first = itertools.islice(self._objects(lambda *_: None), _LOOK)
        self.columns = tuple(dict.fromkeys(key for _, record in first for key in record))
        columns = find_columns(self.columns, data.columns)
        self._used, self._guid = columns.used, columns.guid

    def records(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """See `TableFile`."""
        for line, record in self._objects(self._note):
            wrong = [
                key
                for key in self._used
                if isinstance(value := record.get(key), (dict, list))
                or (key == self._guid and isinstance(value, bool))
            ]
            for key in wrong:
                cause = f"column {key} holds neither a string nor a number"
                self._note(line, cause, f"column {key} holds {record[key]!r}, expected a string")
            if not wrong:
                yield line, record

    def _objects(self, note: Note) -> Iterator[tuple[int, dict[str, Any]]]:
        for line, source in enumerate(self._lines, start=1):
            if not source.strip():
                continue
            try:
                items = json.loads(source, object_pairs_hook=_Items)
            except (ValueError, RecursionError) as error:
                note(line, "not JSON", f"not JSON ({error})")
                continue
            if not isinstance(items, _Items):
                note(line, 'expected one object a line, as {"text": …, "image": …}', "")
                continue
            named = [(self._label if key == "tag" else key, value) for key, value in items]
            record = dict(named)
            if len(record) < len(named):
                cause = "a column occurs twice (label and tag are the same column)"
                note(line, cause, f"{cause}: {[key for key, _ in items]}")
                continue
            yield line, record


class _Items(list[tuple[str, Any]]):
    """The members of a JSON object, including repeated names."""
