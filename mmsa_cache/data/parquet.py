"""Checks that a Parquet file is as plain as ours, before a library decodes any of it.

Compression and dictionaries would let a small file ask for any amount of memory; plain values take
as much as the file. So the file must be laid out as `write_table` does it: the chunks of all
columns end to end, uncompressed pages of plain values, and every row in as many bytes as it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .thrift import Reader, Struct

_MAGIC = b"PAR1"
_MAX_FOOTER = 1 << 20
_GROUP_ROWS = 1 << 16
_PLAIN, _RLE = 0, 3
_REQUIRED, _OPTIONAL = 0, 1
_INT32, _BYTES, _FIXED = 1, 6, 7
_DATA_PAGE = 0
_CHUNK_FIELDS = {2, 3}
"""Offset and description: no other file, index or encryption."""
_DESCRIPTION_FIELDS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17}
"""All but offsets of index, dictionary and Bloom filter pages; 12 and 16 are statistics."""


def write_table(table: pa.Table, metadata: Mapping[bytes, bytes]) -> pa.Buffer:
    """A table as a Parquet file, plain and uncompressed: equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(table, _GROUP_ROWS)
        writer.add_key_value_metadata(metadata)
    return sink.getvalue()


def read_footer(data: memoryview) -> Struct:
    """How a Parquet file describes itself.

    Raises:
        ValueError: It does not.
    """
    if len(data) < 12 or bytes(data[:4]) != _MAGIC or bytes(data[-4:]) != _MAGIC:
        raise ValueError("it is not a Parquet file")
    length, end = int.from_bytes(data[-8:-4], "little"), len(data) - 8
    if not 0 < length <= min(_MAX_FOOTER, end - 4):
        raise ValueError(f"its footer cannot have {length} bytes")
    reader = Reader(data[end - length : end])
    footer = reader.struct()
    if reader.at != length:
        raise ValueError("its footer is not the description of a table")
    return footer


def metadata_of(footer: Struct) -> dict[bytes, bytes]:
    """What was written beside the columns."""
    pairs = [_typed(pair, dict) for pair in _typed(footer.get(5, []), list)]
    return {_typed(pair.get(1), bytes): _typed(pair.get(2), bytes) for pair in pairs}


def check_plain(data: memoryview, footer: Struct, schema: pa.Schema, row_bytes: int) -> None:
    """Checks that a file holds the columns of a schema as plain values.

    Args:
        data: The file.
        footer: Of `read_footer`.
        schema: Columns of strings, 32-bit numbers and byte strings of one length.
        row_bytes: Fewest bytes of a row.

    Raises:
        ValueError: It does not.
    """
    columns = [_field_of(element) for element in _typed(footer.get(2), list)[1:]]
    if columns != [_expected(field) for field in schema]:
        raise ValueError("its columns are not those of a split's table")
    rows = _typed(footer.get(3), int)
    if not 0 < rows * row_bytes <= len(data):
        raise ValueError(f"it cannot hold {rows} rows in {len(data)} bytes")
    offset = len(_MAGIC)
    for group in _typed(footer.get(4), list):
        count = _typed(_typed(group, dict).get(3), int)
        chunks = _typed(group.get(1), list)
        if not 0 < count <= rows or len(chunks) != len(columns):
            raise ValueError("its parts do not hold the rows that it states")
        rows -= count
        for chunk, (name, kind, *_) in zip(chunks, columns, strict=True):
            try:
                offset = _check_chunk(data, _typed(chunk, dict), offset, (name, kind, count))
            except ValueError as error:
                raise ValueError(f"column {name.decode()}: {error}") from error
    if rows:
        raise ValueError("its parts do not hold the rows that it states")


def _expected(field: pa.Field) -> tuple[Any, ...]:
    """Name, type, length and repetition of a column, as a file states them."""
    width = field.type.byte_width if pa.types.is_fixed_size_binary(field.type) else None
    kind = _FIXED if width else _INT32 if pa.types.is_int32(field.type) else _BYTES
    return field.name.encode(), kind, width, _OPTIONAL if field.nullable else _REQUIRED, 0


def _field_of(element: Struct) -> tuple[Any, ...]:
    name, kind, width, repetition = (_typed(element, dict).get(key) for key in (4, 1, 2, 3))
    return name, kind, width, repetition, element.get(5, 0)


def _check_chunk(
    data: memoryview, chunk: Struct, offset: int, column: tuple[bytes, int, int]
) -> int:
    """Checks one column of one part; the place behind it."""
    name, kind, rows = column
    metadata = _typed(chunk.get(3), dict)
    size = _typed(metadata.get(7), int)
    if set(chunk) - _CHUNK_FIELDS or set(metadata) - _DESCRIPTION_FIELDS:
        raise ValueError("it has a dictionary or an index, or lies in another file")
    if (metadata.get(1), metadata.get(3), metadata.get(5)) != (kind, [name], rows):
        raise ValueError("its parts disagree on its type and rows")
    if metadata.get(4) != 0 or metadata.get(6) != size:
        raise ValueError("it is compressed")
    if any(encoding not in (_PLAIN, _RLE) for encoding in _typed(metadata.get(2), list)):
        raise ValueError("its encoding is not plain")
    if metadata.get(9) != offset or not 0 < size <= len(data) - offset:
        raise ValueError("it does not lie behind the column before it")
    end = offset + size
    while offset < end and rows > 0:
        reader = Reader(data[:end], offset)
        page = reader.struct()
        values = _typed(page.get(5), dict)
        sizes = page.get(2), page.get(3)
        if page.get(1) != _DATA_PAGE or {6, 7, 8} & set(page):
            raise ValueError("it holds a dictionary")
        if (values.get(2), values.get(3), values.get(4)) != (_PLAIN, _RLE, _RLE):
            raise ValueError("its encoding is not plain")
        count = _typed(values.get(1), int)
        length = _typed(sizes[0], int)
        if sizes[0] != sizes[1] or count <= 0 or length < 0:
            raise ValueError("it is compressed")
        rows -= count
        offset = reader.at + length
    if offset != end or rows:
        raise ValueError("its pages do not hold its rows")
    return end


def _typed(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise ValueError("its description is not that of a table")
    return value
