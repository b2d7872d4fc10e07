"""Pictures in an Arrow file, as ``datasets`` saves it: mapped, never copied."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .container import arrow_source, checked, column_and_row

_FILE = b"ARROW1"


def arrow_batches(path: Path) -> tuple[pa.Schema, list[Any]]:
    """Schema and batches of an Arrow file or stream; their memory is the file's.

    Nothing is checked of the values: `validate` a batch or a column before it is used.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no such file, or compressed.
    """
    source = arrow_source(path, mapped=True)
    try:
        if source.read_at(len(_FILE), 0) == _FILE:
            reader = pa.ipc.open_file(source)
            return reader.schema, [reader.get_batch(n) for n in range(reader.num_record_batches)]
        reader = pa.ipc.open_stream(source)
        return reader.schema, list(reader)
    except pa.ArrowException as error:
        raise ValueError(f"it is no Arrow file, or damaged: {error}") from error


class ArrowPictures:
    """Pictures by column and row.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._schema, self._batches = arrow_batches(path)
        self._ends = np.cumsum([len(batch) for batch in self._batches])
        self._columns: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()

    def picture(self, member: str, limit: int) -> bytes:
        """The bytes of ``COLUMN/ROW``."""
        column, row = column_and_row(member)
        if self._schema.names.count(column) != 1 or not len(self._ends) or row >= self._ends[-1]:
            return checked(None, limit)
        number = int(np.searchsorted(self._ends, row, "right"))
        batch = self._batches[number]
        values = self._column(column, number)[row - int(self._ends[number]) + len(batch)]
        found = values.as_py() if values.is_valid else None
        return checked(found["bytes"] if isinstance(found, dict) else found, limit)

    def _column(self, name: str, number: int) -> Any:
        with self._lock:
            if (name, number) not in self._columns:
                column = self._batches[number].column(name)
                try:
                    column.validate(full=True)
                except pa.ArrowException as error:
                    raise ValueError(f"it is damaged: {error}") from error
                self._columns[name, number] = column
            return self._columns[name, number]
