"""Pictures in a Parquet file: decoded a few rows at a time, however large its row groups are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .container import arrow_source, checked, column_and_row

_BUFFER = 1 << 20
_BATCH = 16
"""Rows that are decoded at once."""
_MOST_CURSORS = 4
_MOST_KEPT = 64 << 20
"""Bytes of pictures that were passed over, of one file."""


def open_parquet(path: Path) -> Any:
    """Opens a Parquet file whose columns are read page by page.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no Parquet file.
    """
    try:
        source = arrow_source(path)
        about = pq.read_metadata(source)
        columns = [about.schema.column(place) for place in range(about.num_columns)]
        # As they stand in the file: of a value that many rows share, one is made and not a row's.
        shared = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        return pq.ParquetFile(
            source, metadata=about, read_dictionary=shared, pre_buffer=False, buffer_size=_BUFFER
        )
    except pa.ArrowException as error:
        raise ValueError(f"it is no Parquet file, or damaged: {error}") from error


def leaf_of(field: pa.Field) -> str:
    """What Parquet calls the bytes of a column of pictures."""
    return f"{field.name}.bytes" if pa.types.is_struct(field.type) else field.name


def values_of(column: pa.Array) -> list[bytes | None]:
    """The bytes of some pictures."""
    if pa.types.is_struct(column.type):
        return [None if cell is None else cell["bytes"] for cell in column.to_pylist()]
    return list(column.to_pylist())


class ParquetPictures:
    """Pictures by column and row.

    Rows are found from the start of their row group, with a few cursors that go on where they
    are: pictures read in order, even by some threads at once, are decoded about once.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_parquet(path)
        about = self._file.metadata
        counts = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        self._ends = np.cumsum(counts)
        self._cursors: list[_Cursor] = []
        self._kept: OrderedDict[tuple[str, int], bytes | None] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def picture(self, member: str, limit: int) -> bytes:
        """The bytes of ``COLUMN/ROW``."""
        column, row = column_and_row(member)
        names = self._file.schema_arrow.names
        if names.count(column) != 1 or not len(self._ends) or row >= self._ends[-1]:
            return checked(None, limit)
        with self._lock:
            if (column, row) not in self._kept:
                try:
                    self._read(column, row)
                except pa.ArrowException as error:
                    raise ValueError(f"it is damaged: {error}") from error
            data = self._kept.pop((column, row))
            self._bytes -= len(data or b"")
        return checked(data, limit)

    def _read(self, column: str, row: int) -> None:
        group = int(np.searchsorted(self._ends, row, "right"))
        able = [c for c in self._cursors if (c.column, c.group) == (column, group) and c.row <= row]
        if able:
            cursor = max(able, key=lambda found: found.row)
            self._cursors.remove(cursor)
        else:
            first = int(self._ends[group - 1]) if group else 0
            cursor = _Cursor(self._file, column, group, first)
        self._cursors = [*self._cursors[1 - _MOST_CURSORS :], cursor]
        while cursor.row <= row:
            for at, data in cursor.following():
                if (column, at) not in self._kept:
                    self._kept[column, at] = data
                    self._bytes += len(data or b"")
        while self._bytes > _MOST_KEPT and len(self._kept) > 1:
            oldest = next(key for key in self._kept if key != (column, row))
            self._bytes -= len(self._kept.pop(oldest) or b"")


class _Cursor:
    """Reads a column of a row group forwards."""

    def __init__(self, file: Any, column: str, group: int, first: int) -> None:
        self.column, self.group, self.row = column, group, first
        leaf = leaf_of(file.schema_arrow.field(column))
        self._batches = file.iter_batches(_BATCH, row_groups=[group], columns=[leaf])

    def following(self) -> Iterator[tuple[int, bytes | None]]:
        batch = next(self._batches, None)
        if batch is None:
            raise ValueError("it is damaged: a row group is shorter than it states")
        first, self.row = self.row, self.row + len(batch)
        return zip(range(first, self.row), values_of(batch.column(0)), strict=True)
