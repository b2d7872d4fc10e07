"""Writes plain Parquet files, and checks untrusted ones before a library decodes them.

Compression and dictionaries would let a small file fill the memory; plain values take as much
memory as the file. So a file must be laid out as by `write_table`: the chunks of all columns end to
end, uncompressed pages of plain values, and as many bytes as its rows need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .thrift import ThriftReader, ThriftStruct, typed

_MAGIC = b"PAR1"
_MAX_FOOTER = 1 << 20
_GROUP_ROWS = 1 << 16
_PLAIN, _RLE = 0, 3
_REQUIRED, _OPTIONAL = 0, 1
_INT32, _BYTES, _FIXED = 1, 6, 7
_DATA_PAGE = 0
_CHUNK_FIELDS = {2, 3}
"""Offset and metadata; no other file, index or encryption."""
_METADATA_FIELDS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17}
"""All but the offsets of index, dictionary and Bloom filter pages; 12 and 16 are statistics."""


def write_table(table: pa.Table, metadata: Mapping[bytes, bytes]) -> pa.Buffer:
    """Writes a plain, uncompressed Parquet file; equal tables give equal bytes."""
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


def read_footer(data: memoryview) -> ThriftStruct:
    """Reads the metadata of a Parquet file.

    Raises:
        ValueError: It is not a Parquet file, or its footer is damaged.
    """
    if len(data) < 12 or bytes(data[:4]) != _MAGIC or bytes(data[-4:]) != _MAGIC:
        raise ValueError("it is not a Parquet file")
    length, end = int.from_bytes(data[-8:-4], "little"), len(data) - 8
    if not 0 < length <= min(_MAX_FOOTER, end - 4):
        raise ValueError(f"its footer cannot have {length} bytes")
    reader = ThriftReader(data[end - length : end])
    footer = reader.read_struct()
    if reader.offset != length:
        raise ValueError("its footer is not the description of a table")
    return footer


def key_value_metadata(footer: ThriftStruct) -> dict[bytes, bytes]:
    """The key-value metadata of a footer."""
    pairs = [typed(pair, dict) for pair in typed(footer.get(5, []), list)]
    return {typed(pair.get(1), bytes): typed(pair.get(2), bytes) for pair in pairs}


def check_plain(data: memoryview, footer: ThriftStruct, schema: pa.Schema, row_bytes: int) -> None:
    """Checks that a file holds the columns of a schema as plain values.

    Args:
        data: The file.
        footer: Result of `read_footer`.
        schema: Columns of strings, 32-bit integers and fixed-size binaries.
        row_bytes: Fewest bytes of a row.

    Raises:
        ValueError: The file is laid out otherwise.
    """
    columns = [_column(element) for element in typed(footer.get(2), list)[1:]]
    if columns != [_expected_column(field) for field in schema]:
        raise ValueError("its columns are not those of a split's table")
    rows = typed(footer.get(3), int)
    if not 0 < rows * row_bytes <= len(data):
        raise ValueError(f"it cannot hold {rows} rows in {len(data)} bytes")
    offset = len(_MAGIC)
    for group in typed(footer.get(4), list):
        count = typed(typed(group, dict).get(3), int)
        chunks = typed(group.get(1), list)
        if not 0 < count <= rows or len(chunks) != len(columns):
            raise ValueError("its parts do not hold the rows that it states")
        rows -= count
        for chunk, (name, kind, *_) in zip(chunks, columns, strict=True):
            try:
                offset = _check_chunk(data, typed(chunk, dict), offset, (name, kind, count))
            except ValueError as error:
                raise ValueError(f"column {name.decode()}: {error}") from error
    if rows:
        raise ValueError("its parts do not hold the rows that it states")


def _expected_column(field: pa.Field) -> tuple[Any, ...]:
    """Name, type, length and repetition of a column, as in a footer."""
    width = field.type.byte_width if pa.types.is_fixed_size_binary(field.type) else None
    kind = _FIXED if width else _INT32 if pa.types.is_int32(field.type) else _BYTES
    return field.name.encode(), kind, width, _OPTIONAL if field.nullable else _REQUIRED, 0


def _column(element: ThriftStruct) -> tuple[Any, ...]:
    name, kind, width, repetition = (typed(element, dict).get(key) for key in (4, 1, 2, 3))
    return name, kind, width, repetition, element.get(5, 0)


def _check_chunk(
    data: memoryview, chunk: ThriftStruct, offset: int, column: tuple[bytes, int, int]
) -> int:
    """Checks one column of a row group and returns the offset behind it."""
    name, kind, rows = column
    metadata = typed(chunk.get(3), dict)
    size = typed(metadata.get(7), int)
    if set(chunk) - _CHUNK_FIELDS or set(metadata) - _METADATA_FIELDS:
        raise ValueError("it has a dictionary or an index, or lies in another file")
    if (metadata.get(1), metadata.get(3), metadata.get(5)) != (kind, [name], rows):
        raise ValueError("its parts disagree on its type and rows")
    if metadata.get(4) != 0 or metadata.get(6) != size:
        raise ValueError("it is compressed")
    if any(encoding not in (_PLAIN, _RLE) for encoding in typed(metadata.get(2), list)):
        raise ValueError("its encoding is not plain")
    if metadata.get(9) != offset or not 0 < size <= len(data) - offset:
        raise ValueError("it does not lie behind the column before it")
    end = offset + size
    while offset < end and rows > 0:
        reader = ThriftReader(data[:end], offset)
        page = reader.read_struct()
        values = typed(page.get(5), dict)
        sizes = page.get(2), page.get(3)
        if page.get(1) != _DATA_PAGE or {6, 7, 8} & set(page):
            raise ValueError("it holds a dictionary")
        if (values.get(2), values.get(3), values.get(4)) != (_PLAIN, _RLE, _RLE):
            raise ValueError("its encoding is not plain")
        count = typed(values.get(1), int)
        length = typed(sizes[0], int)
        if sizes[0] != sizes[1] or count <= 0 or length < 0:
            raise ValueError("it is compressed")
        rows -= count
        offset = reader.offset + length
    if offset != end or rows:
        raise ValueError("its pages do not hold its rows")
    return end
