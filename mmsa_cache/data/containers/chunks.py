"""The column chunks of a Parquet file, read from its footer.

pyarrow's own objects of them abort the process on a damaged footer: an uncaught C++ exception.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow.parquet as pq

from mmsa_cache.data.thrift import ThriftReader, ThriftStruct, typed

_MAX_FOOTER = 64 << 20
_END = 8
"""Bytes behind the footer: its length and the magic number."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The values of a column in a row group."""

    path: str
    """Dotted path of the column."""
    values: int
    start: int
    """Offset of its first page."""
    size: int
    """Bytes of its pages in the file."""
    unpacked: int
    """Bytes of its pages in memory, as the file claims."""
    nulls: int | None
    """Number of nulls, if stated."""


def chunks(
    read_at: Callable[[int, int], bytes], size: int, metadata: pq.FileMetaData
) -> list[list[Chunk]]:
    """The chunks of every row group, in the order of the columns.

    Args:
        read_at: Reads (bytes, offset) of the file.
        size: Bytes of the file.
        metadata: pyarrow's metadata of the file.

    Raises:
        ValueError: The footer is damaged.
    """
    length = int.from_bytes(read_at(4, max(0, size - _END)), "little")
    if not 0 < length <= min(_MAX_FOOTER, size - _END):
        raise ValueError(f"its footer cannot have {length} bytes")
    footer = ThriftReader(memoryview(read_at(length, size - _END - length))).read_struct()
    paths = [metadata.schema.column(index).path for index in range(len(metadata.schema))]
    groups = typed(footer.get(4), list)
    groups_of_chunks = [[_chunk(typed(c, dict)) for c in typed(g.get(1), list)] for g in groups]
    if any([chunk.path for chunk in group] != paths for group in groups_of_chunks):
        raise ValueError("it is damaged: a column is not where it says")
    return groups_of_chunks


def _chunk(column: ThriftStruct) -> Chunk:
    metadata = typed(column.get(3), dict)
    start, dictionary = typed(metadata.get(9), int), metadata.get(11)
    nulls = typed(metadata.get(12, {}), dict).get(3)
    return Chunk(
        path=b".".join(typed(part, bytes) for part in typed(metadata.get(3), list)).decode(),
        values=typed(metadata.get(5), int),
        start=start if dictionary is None else min(start, typed(dictionary, int)),
        size=typed(metadata.get(7), int),
        unpacked=typed(metadata.get(6), int),
        nulls=None if nulls is None else typed(nulls, int),
    )
