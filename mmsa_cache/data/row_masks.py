"""Boolean masks over the rows of a table, encoded as text."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray


def pack_rows(rows: NDArray[np.bool_]) -> str:
    """Encodes a mask, (rows,), as base64 with one bit a row."""
    return base64.b64encode(np.packbits(rows).tobytes()).decode()


def unpack_rows(text: str, rows: int) -> NDArray[np.bool_]:
    """Decodes a mask of `pack_rows`.

    Args:
        text: The encoded mask.
        rows: Number of rows.

    Raises:
        ValueError: The text is not a mask of so many rows.
    """
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except binascii.Error as error:
        raise ValueError(f"it holds no bits: {error}") from error
    if len(data) != -(-rows // 8):
        raise ValueError(f"it holds {8 * len(data)} bits for {rows} rows")
    return np.unpackbits(data, count=rows).astype(bool)
