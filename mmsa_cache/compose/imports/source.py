"""Rows of features in a file of another program, read piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.features.batch import MAX_DIM

PIECE_BYTES = 16 << 20
"""Bytes that are read at once, unless a single row has more."""
MAX_ROW_BYTES = 256 << 20
MAX_GUID_BYTES = 4096


class RefusedError(Exception):
    """A file cannot be imported; the message says why."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Some consecutive rows of a file."""

    values: NDArray[Any]
    """(positions, dim) of float16, float32 or float64"""
    offsets: NDArray[np.int64]
    """(rows + 1,): row r is ``values[offsets[r]:offsets[r + 1]]``"""
    bad: dict[int, str] = field(default_factory=dict)
    """Index of a row → why it has no values."""

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """A file of features."""

    path: Path
    rows: int
    dim: int
    tokens: bool
    """Whether a row has several positions; else it is one vector."""
    dtype: np.dtype[Any]
    guids: list[str] | None
    """Names of its rows, if it has names."""
    pieces: Callable[[], Iterator[Rows]]
    """Reads the file from its beginning; raises `RefusedError`."""


def check_form(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Checks the shape and the type of features, before they are read.

    Args:
        shape: Shape of all rows, or of all positions.
        dtype: Type in the file.

    Raises:
        RefusedError: They cannot be features.
    """
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise RefusedError(f"its dtype is {dtype}, expected are float16, float32 or float64")
    if len(shape) not in (2, 3):
        raise RefusedError(
            f"its shape is {shape}, expected is (rows, dim) or (rows, positions, dim)"
        )
    if not all(shape):
        raise RefusedError(f"its shape is {shape}: it is empty")
    if shape[-1] > MAX_DIM or math.prod(shape[1:]) * dtype.itemsize > MAX_ROW_BYTES:
        raise RefusedError(f"its shape is {shape}: its rows are too large for features")


def rows_at_once(row_bytes: int) -> int:
    """The number of rows of a size in a piece."""
    return max(1, PIECE_BYTES // row_bytes)


def equal_rows(values: NDArray[Any]) -> Rows:
    """Rows with the same number of positions: an array (rows, dim) or (rows, positions, dim)."""
    each = 1 if values.ndim == 2 else values.shape[1]
    offsets = np.arange(len(values) + 1, dtype=np.int64) * each
    return Rows(values.reshape(-1, values.shape[-1]), offsets)


def spans(offsets: NDArray[np.int64], position_bytes: int) -> Iterator[tuple[int, int]]:
    """Divides rows into pieces; yields the first row of each and the row after its last.

    Args:
        offsets: Positions before each row, (rows + 1,).
        position_bytes: Bytes of a position.
    """
    first, most = 0, rows_at_once(position_bytes)
    while first < len(offsets) - 1:
        end = int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1
        end = min(max(end, first + 1), len(offsets) - 1, first + most)
        yield first, end
        first = end
