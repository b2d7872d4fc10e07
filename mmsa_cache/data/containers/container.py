"""What all files that hold pictures have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from mmsa_cache.errors import BadFileError
from mmsa_cache.files.untrusted import descriptor_path, open_regular

MAX_CONTAINER_BYTES = 1 << 44
"""Of a file that is never read as a whole."""


class Container(Protocol):
    """An open file that holds pictures."""

    def picture(self, member: str, limit: int) -> bytes:
        """The bytes of a picture.

        Raises:
            BadFileError: There is none of this name, or it has more than ``limit`` bytes.
            OSError: The file cannot be read.
            ValueError: It is damaged.
        """
        ...


def arrow_source(path: Path, *, mapped: bool = False) -> Any:
    """A regular file as pyarrow reads it.

    Args:
        path: The file.
        mapped: Whether its pages are the arrays' memory.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file.
    """
    with open_regular(path) as file:
        name = descriptor_path(file, path)
        return pa.memory_map(name) if mapped else pa.OSFile(name)


def validate_batch(batch: Any) -> Any:
    """A batch of anybody's whose values can be used; if texts are no UTF-8, all are bytes.

    Raises:
        ArrowException: It is damaged: its values would lie outside of it.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        batch = pa.RecordBatch.from_arrays(
            [_as_bytes(c) for c in batch.columns], batch.schema.names
        )
        batch.validate(full=True)
    return batch


def _as_bytes(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, _as_bytes(column.dictionary))
    if pa.types.is_string(column.type):
        return column.view(pa.binary())
    return column.view(pa.large_binary()) if pa.types.is_large_string(column.type) else column


def require_picture(data: Any, limit: int) -> bytes:
    """The bytes of a member that may be missing or too large.

    Raises:
        BadFileError: It is.
    """
    if not isinstance(data, bytes):
        raise BadFileError("missing", "no picture is there")
    if len(data) > limit:
        raise too_large(len(data), limit)
    return data


def too_large(size: int, limit: int) -> BadFileError:
    """A member has more bytes than a picture may have."""
    return BadFileError("too large", f"{size} bytes, more than the limit of {limit}")


def parse_column_row(member: str) -> tuple[str, int]:
    """``COLUMN/ROW``, rows from 0.

    Raises:
        BadFileError: It is none.
    """
    column, _, row = member.rpartition("/")
    if not column or not row.isascii() or not row.isdecimal() or len(row) > 15:
        raise BadFileError("missing", "no picture is there (expected COLUMN/ROW)")
    return column, int(row)
