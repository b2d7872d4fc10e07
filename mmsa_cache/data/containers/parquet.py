"""Pictures in a Parquet file, decoded a few rows at a time even of large row groups."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmsa_cache.data.thrift import ThriftReader

from .chunks import Chunk, chunks
from .container import arrow_source, locate_cell, require_picture, validate_batch

_BUFFER = 1 << 20
_MOST_HEADER = 1 << 16
"""Most bytes of a page's header."""
_DICTIONARY_PAGE = 2
_MOST_REPEATED = 256 << 20
"""Most bytes of a batch whose rows share one dictionary value."""
_LARGE_PAGE, _MOST_RATIO = 64 << 20, 20
"""Bytes of a page with any compression ratio, and the largest ratio of larger pages."""
_BATCH = 16
"""Rows that are decoded at once."""
_MOST_CURSORS, _MOST_PAGES = 4, 256 << 20
"""Most cursors of a file, and most bytes of all their pages; there is at least one."""
_MOST_KEPT = 128 << 20
"""Most bytes of one file's skipped pictures that are kept for later."""


class ParquetReader:
    """Reads the columns of a Parquet file page by page.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is not a Parquet file.
    """

    def __init__(self, path: Path) -> None:
        self._source = arrow_source(path)
        try:
            self._file = pq.ParquetFile(self._source, pre_buffer=False, buffer_size=_BUFFER)
        except pa.ArrowException as error:
            raise ValueError(f"it is no Parquet file, or damaged: {error}") from error
        self.metadata = self._file.metadata
        self.chunks = chunks(self._source.read_at, self._source.size(), self.metadata)
        self.schema: pa.Schema = self._file.schema_arrow
        self._pages: dict[tuple[int, str], tuple[int, int]] = {}

    def batches(self, group: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Yields the rows of a row group.

        Args:
            group: Index of the row group.
            columns: Names of columns, or of leaves.
            rows: Most rows of a batch; there are fewer if rows may share large values.

        Raises:
            ValueError: The file is damaged, or takes far more memory than its size.
        """
        repeated, _ = self.pages(group, columns)
        rows = max(1, min(rows, _MOST_REPEATED // max(1, repeated)))
        try:
            for batch in self._file.iter_batches(rows, row_groups=[group], columns=[*columns]):
                if batch.num_columns != len(columns):
                    raise ValueError("it is damaged: a column is not where it says")
                yield validate_batch(batch)
        except pa.ArrowException as error:
            raise ValueError(f"it is damaged: {error}") from error

    def pages(self, group: int, columns: Sequence[str]) -> tuple[int, int]:
        """Bytes of the largest dictionary page and of the largest page of some columns.

        Raises:
            ValueError: A page takes far more memory than in the file, or its offset is damaged.
        """
        sizes = [(0, 0)]
        for chunk in self.chunks[group]:
            path = chunk.path
            if any(f"{path}.".startswith(f"{name}.") for name in columns):
                if (group, path) not in self._pages:
                    self._pages[group, path] = self._measure(chunk)
                sizes.append(self._pages[group, path])
        repeated, largest = zip(*sizes, strict=True)
        return max(repeated), max(largest)

    def _measure(self, chunk: Chunk) -> tuple[int, int]:
        """See `pages`."""
        repeated = largest = 0
        if chunk.values == 0:
            return 0, 0
        offset, end = chunk.start, chunk.start + chunk.size
        if not 0 < offset <= end <= self._source.size():
            raise ValueError("it is damaged: a column does not lie in the file")
        while offset < end:
            reader = ThriftReader(
                memoryview(self._source.read_at(min(_MOST_HEADER, end - offset), offset))
            )
            page = reader.read_struct()
            large, small = page.get(2), page.get(3)
            if type(large) is not int or type(small) is not int or min(large, small) < 0:
                raise ValueError("it is damaged: a page does not state its size")
            if large > max(_LARGE_PAGE, _MOST_RATIO * small):
                raise ValueError(f"a page of {small} bytes would take {large} in memory")
            repeated = max(repeated, large) if page.get(1) == _DICTIONARY_PAGE else repeated
            largest = max(largest, large)
            offset += reader.offset + small
        return repeated, largest


def leaf_name(field: pa.Field) -> str:
    """Name of the leaf column that holds the bytes of a column of pictures."""
    return f"{field.name}.bytes" if pa.types.is_struct(field.type) else field.name


def picture_values(column: pa.Array) -> list[bytes | None]:
    """The bytes of a column of pictures."""
    if pa.types.is_struct(column.type):
        return [None if cell is None else cell["bytes"] for cell in column.to_pylist()]
    return list(column.to_pylist())


class ParquetPictures:
    """Pictures by column and row.

    Each row group is read from its start by a few cursors that continue where they are, so that
    pictures read in order, even by several threads, are decoded about once.
    """

    def __init__(self, path: Path) -> None:
        self._file = ParquetReader(path)
        metadata = self._file.metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._ends = np.cumsum(counts)
        self._cursors: list[_Cursor] = []
        self._passed: OrderedDict[tuple[str, int], bytes | None] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def picture(self, member: str, limit: int) -> bytes:
        """The bytes of ``COLUMN/ROW``."""
        column, row, group = locate_cell(member, self._file.schema.names, self._ends)
        with self._lock:
            if (column, row) not in self._passed:
                self._read(column, row, group)
            data = self._passed.pop((column, row))
            self._bytes -= len(data or b"")
        return require_picture(data, limit)

    def _read(self, column: str, row: int, group: int) -> None:
        leaf = leaf_name(self._file.schema.field(column))
        usable = [c for c in self._cursors if (c.leaf, c.group) == (leaf, group) and c.row <= row]
        if usable:
            cursor = max(usable, key=lambda cursor: cursor.row)
            self._cursors.remove(cursor)
        else:
            _, largest = self._file.pages(group, [leaf])
            most = max(1, min(_MOST_CURSORS, _MOST_PAGES // max(1, largest)))
            del self._cursors[: max(0, len(self._cursors) + 1 - most)]
            first = int(self._ends[group - 1]) if group else 0
            cursor = _Cursor(self._file, leaf, group, first)
        self._cursors.append(cursor)
        while cursor.row <= row:
            for index, data in cursor.read_batch():
                if (column, index) not in self._passed:
                    self._passed[column, index] = data
                    self._bytes += len(data or b"")
        while self._bytes > _MOST_KEPT and len(self._passed) > 1:
            oldest = next(key for key in self._passed if key != (column, row))
            self._bytes -= len(self._passed.pop(oldest) or b"")


class _Cursor:
    """Reads a column of a row group batch by batch."""

    def __init__(self, file: ParquetReader, leaf: str, group: int, first: int) -> None:
        self.leaf, self.group, self.row = leaf, group, first
        self._batches = file.batches(group, [leaf], _BATCH)

    def read_batch(self) -> Iterator[tuple[int, bytes | None]]:
        batch = next(self._batches, None)
        if batch is None:
            raise ValueError("it is damaged: a row group is shorter than it states")
        first, self.row = self.row, self.row + len(batch)
        return zip(range(first, self.row), picture_values(batch.column(0)), strict=True)
