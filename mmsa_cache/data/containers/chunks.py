"""The columns of a Parquet file's row groups, read from its footer.

Of a damaged footer pyarrow's own objects end the process: its library raises where nothing catches.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from mmsa_cache.data.thrift import Reader, Struct

_MAX_FOOTER = 64 << 20
_END = 8
"""Bytes behind the footer: its length, and what tells a Parquet file."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The values of a column in a row group."""

    path: str
    """Of the column, with dots."""
    values: int
    start: int
    """Place of its first page."""
    size: int
    """Bytes of its pages in the file."""
    unpacked: int
    """Bytes of its pages, as the file claims."""
    nulls: int | None
    """Values that are missing, where it says so."""


def chunks(
    read_at: Callable[[int, int], bytes], size: int, metadata: pq.FileMetaData
) -> list[list[Chunk]]:
    """The chunks of every row group, in the order of the columns.

    Args:
        read_at: Reads so many bytes from a place of the file.
        size: Bytes of the file.
        metadata: Of the same file.

    Raises:
        ValueError: Its footer is damaged.
    """
    length = int.from_bytes(read_at(4, max(0, size - _END)), "little")
    if not 0 < length <= min(_MAX_FOOTER, size - _END):
        raise ValueError(f"its footer cannot have {length} bytes")
    footer = Reader(memoryview(read_at(length, size - _END - length))).struct()
    paths = [metadata.schema.column(index).path for index in range(len(metadata.schema))]
    groups = _typed(footer.get(4), list)
    groups_of_chunks = [[_chunk(_typed(c, dict)) for c in _typed(g.get(1), list)] for g in groups]
    if any([chunk.path for chunk in group] != paths for group in groups_of_chunks):
        raise ValueError("it is damaged: a column is not where it says")
    return groups_of_chunks


def _chunk(column: Struct) -> Chunk:
    metadata = _typed(column.get(3), dict)
    start, dictionary = _typed(metadata.get(9), int), metadata.get(11)
    nulls = _typed(metadata.get(12, {}), dict).get(3)
    return Chunk(
        path=b".".join(_typed(part, bytes) for part in _typed(metadata.get(3), list)).decode(),
        values=_typed(metadata.get(5), int),
        start=start if dictionary is None else min(start, _typed(dictionary, int)),
        size=_typed(metadata.get(7), int),
        unpacked=_typed(metadata.get(6), int),
        nulls=None if nulls is None else _typed(nulls, int),
    )


def _typed(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise ValueError("its description is not that of a table")
    return value
