"""Common parts of files that hold pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmsa_cache.errors import BadFileError
from mmsa_cache.files.untrusted import descriptor_path, open_regular

MAX_CONTAINER_BYTES = 1 << 44
"""Limit of a file that is never read as a whole."""


class Container(Protocol):
    """An open file that holds pictures."""

    def picture(self, member: str, limit: int) -> bytes:
        """The bytes of a picture.

        Raises:
            BadFileError: There is no such member, or it has more than ``limit`` bytes.
            OSError: The file cannot be read.
            ValueError: The file is damaged.
        """
        ...


def arrow_source(path: Path, *, mapped: bool = False) -> Any:
    """Opens a regular file for pyarrow.

    Args:
        path: The file.
        mapped: Whether to memory-map it.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is not a regular file.
    """
    with open_regular(path) as file:
        name = descriptor_path(file, path)
        return pa.memory_map(name) if mapped else pa.OSFile(name)


def validate_batch(batch: Any) -> Any:
    """Validates an untrusted batch; if some text is not UTF-8, all text columns become binary.

    Raises:
        ArrowException: The batch is damaged: values lie outside of its buffers.
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
    """Returns a member's bytes after checking them.

    Raises:
        BadFileError: They are missing or too many.
    """
    if not isinstance(data, bytes):
        raise BadFileError("missing", "no picture is there")
    if len(data) > limit:
        raise too_large_error(len(data), limit)
    return data


def too_large_error(size: int, limit: int) -> BadFileError:
    """The error of a member that is larger than a picture may be."""
    return BadFileError("too large", f"{size} bytes, more than the limit of {limit}")


def locate_cell(member: str, names: Sequence[str], ends: NDArray[np.int64]) -> tuple[str, int, int]:
    """Parses ``COLUMN/ROW``, rows from 0, into column, row and index of the row's group.

    Args:
        member: The member.
        names: Names of the columns.
        ends: Row behind each group of rows, (groups,).

    Raises:
        BadFileError: There is no such cell.
    """
    column, _, digits = member.rpartition("/")
    if not column or not digits.isascii() or not digits.isdecimal() or len(digits) > 15:
        raise BadFileError("missing", "no picture is there (expected COLUMN/ROW)")
    row = int(digits)
    group = int(np.searchsorted(ends, row, "right"))
    if names.count(column) != 1 or group == len(ends):
        raise BadFileError("missing", "no picture is there")
    return column, row, group
