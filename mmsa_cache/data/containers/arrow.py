"""Pictures in an Arrow file, as ``datasets`` saves it; the file is memory-mapped."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .container import arrow_source, locate_cell, require_picture, validate_batch

_FILE = b"ARROW1"
_START = 8
"""Offset of the stream in a file."""
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def arrow_batches(path: Path) -> tuple[pa.Schema, list[Any]]:
    """Maps the schema and batches of an Arrow file or stream.

    Values are not checked: use them through `validate_batch`.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is not an Arrow file, or compressed.
    """
    source = arrow_source(path, mapped=True)
    start = _START if source.read_at(len(_FILE), 0) == _FILE else 0
    try:
        source.seek(start)
        for message in pa.ipc.MessageReader.open_stream(source):
            if _is_compressed(message.metadata.to_pybytes()):
                raise ValueError("it is compressed; write it again without compression")
        source.seek(start)  # a file is a stream with a footer
        reader = pa.ipc.open_stream(source)
        return reader.schema, list(reader)
    except (pa.ArrowException, struct.error) as error:
        raise ValueError(f"it is no Arrow file, or damaged: {error}") from error


def _is_compressed(message: bytes) -> bool:
    """Whether a message is a compressed batch: a small file could then fill the memory.

    Follows https://github.com/apache/arrow/blob/main/format/Message.fbs in the flatbuffer.
    """

    def field_offset(table: int, number: int) -> int:
        """Offset of a table's field; 0 if it is not set."""
        (back,) = struct.unpack_from("<i", message, table)
        (size,) = struct.unpack_from("<H", message, table - back)
        slot = 4 + 2 * number
        value_offset = (
            struct.unpack_from("<H", message, table - back + slot)[0] if slot < size else 0
        )
        return table + value_offset if value_offset else 0

    def follow(offset: int) -> int:
        return offset + int(struct.unpack_from("<I", message, offset)[0])

    root = follow(0)
    kind, header = message[field_offset(root, 1)], follow(field_offset(root, 2))
    if kind == _DICTIONARY_BATCH:
        header = follow(field_offset(header, 1))
    return kind in (_DICTIONARY_BATCH, _RECORD_BATCH) and field_offset(header, 3) != 0


class ArrowPictures:
    """Pictures by column and row."""

    def __init__(self, path: Path) -> None:
        self._schema, self._batches = arrow_batches(path)
        self._ends = np.cumsum([len(batch) for batch in self._batches])
        self._columns: dict[tuple[str, int], Any] = {}

    def picture(self, member: str, limit: int) -> bytes:
        """The bytes of ``COLUMN/ROW``."""
        column, row, batch_index = locate_cell(member, self._schema.names, self._ends)
        if (column, batch_index) not in self._columns:
            try:
                batch = validate_batch(self._batches[batch_index].select([column]))
            except pa.ArrowException as error:
                raise ValueError(f"it is damaged: {error}") from error
            self._columns[column, batch_index] = batch.column(0)
        values = self._columns[column, batch_index]
        cell = values[row - int(self._ends[batch_index]) + len(values)].as_py()
        return require_picture(cell.get("bytes") if isinstance(cell, dict) else cell, limit)
