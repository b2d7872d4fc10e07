"""Checks the values of imported rows, and makes shards of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.data.table import IntArray
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.schema import FEATURE_DTYPE, Shard

from .source import Rows

POOL = "mean"
_LARGEST = float(np.finfo(FEATURE_DTYPE).max)


def find_faults(rows: Rows) -> Iterator[tuple[int, str]]:
    """Yields the rows of a piece that cannot be features, with the first fault of each."""
    yield from rows.bad.items()
    for row in np.flatnonzero(np.diff(rows.offsets) == 0).tolist():
        yield row, "it has no positions"
    positions = np.flatnonzero(~(np.abs(rows.values) <= _LARGEST).all(1))
    owners = np.searchsorted(rows.offsets, positions, side="right") - 1
    for row, first in zip(*np.unique(owners, return_index=True), strict=True):
        vector = rows.values[positions[first]]
        index = int(np.flatnonzero(~(np.abs(vector) <= _LARGEST))[0])
        yield int(row), _describe_fault(float(vector[index]), index)


def _describe_fault(value: float, index: int) -> str:
    if np.isnan(value):
        return f"feature {index} is NaN"
    if np.isinf(value):
        return f"feature {index} is infinite"
    return f"feature {index} is {value:.6g}: float16 ends at {_LARGEST:g}"


def make_shard(rows: Rows, keys: Keys, *, tokens: bool) -> Shard:
    """Makes a shard of a piece: the mean of each row, and its positions where it has some."""
    values = rows.values.astype(FEATURE_DTYPE)
    starts = rows.offsets[:-1]
    if tokens:
        sums = np.add.reduceat(rows.values, starts, 0, np.float64)
        pooled = (sums / np.diff(rows.offsets)[:, None]).astype(FEATURE_DTYPE)
        offsets, positions = rows.offsets, values
    else:
        pooled, offsets, positions = values, np.zeros(len(rows) + 1, np.int64), values[:0]
    return Shard(keys, [""] * len(rows), offsets, positions, pooled[:, None], (POOL,))


class DuplicateCheck:
    """Counts rows that have the content of an earlier row, but other features.

    Args:
        content: Number of every row's content, (rows,).
    """

    def __init__(self, content: IntArray) -> None:
        self._content = content
        self._shared: NDArray[np.bool_] = np.bincount(content)[content] > 1
        self._first: dict[int, bytes] = {}
        self.differing = 0
        """Rows that differ from the first one of their content."""

    def add(self, start: int, rows: Rows) -> None:
        """Compares the rows of a piece.

        Args:
            start: Number of its first row.
            rows: The piece.
        """
        for row in np.flatnonzero(self._shared[start : start + len(rows)]).tolist():
            features = rows.values[rows.offsets[row] : rows.offsets[row + 1]]
            digest = hashlib.blake2b(features.tobytes(), digest_size=16).digest()
            first = self._first.setdefault(int(self._content[start + row]), digest)
            self.differing += first != digest
