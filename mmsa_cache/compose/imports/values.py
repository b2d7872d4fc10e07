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


def faults(rows: Rows) -> Iterator[tuple[int, str]]:
    """Rows of a piece that cannot be features, and why; one fault a row is named."""
    yield from rows.bad.items()
    for row in np.flatnonzero(np.diff(rows.offsets) == 0).tolist():
        yield row, "it has no positions"
    wrong = np.flatnonzero(~(np.abs(rows.values) <= _LARGEST).all(1))
    owners = np.searchsorted(rows.offsets, wrong, side="right") - 1
    for row, first in zip(*np.unique(owners, return_index=True), strict=True):
        vector = rows.values[wrong[first]]
        place = int(np.flatnonzero(~(np.abs(vector) <= _LARGEST))[0])
        yield int(row), _fault(float(vector[place]), place)


def _fault(value: float, place: int) -> str:
    if np.isnan(value):
        return f"feature {place} is NaN"
    if np.isinf(value):
        return f"feature {place} is infinite"
    return f"feature {place} is {value:.6g}: float16 ends at {_LARGEST:g}"


def make_shard(rows: Rows, keys: Keys, *, tokens: bool) -> Shard:
    """A piece in the store's form: its mean, and its positions where it has them."""
    values = rows.values.astype(FEATURE_DTYPE)
    starts = rows.offsets[:-1]
    if tokens:
        sums = np.add.reduceat(rows.values, starts, 0, np.float64)
        pooled = (sums / np.diff(rows.offsets)[:, None]).astype(FEATURE_DTYPE)
        offsets, positions = rows.offsets, values
    else:
        pooled, offsets, positions = values, np.zeros(len(rows) + 1, np.int64), values[:0]
    return Shard(keys, [""] * len(rows), offsets, positions, pooled[:, None], (POOL,))


class Twins:
    """Tells of rows with the same content whether their features differ.

    Args:
        content: Number of every row's content, (rows,).
    """

    def __init__(self, content: IntArray) -> None:
        self._content = content
        self._shared: NDArray[np.bool_] = np.bincount(content)[content] > 1
        self._first: dict[int, bytes] = {}
        self.differing = 0
        """Rows that differ from the first one of their content."""

    def look(self, start: int, rows: Rows) -> None:
        """Compares the rows of a piece, the first of which has a number."""
        for row in np.flatnonzero(self._shared[start : start + len(rows)]).tolist():
            features = rows.values[rows.offsets[row] : rows.offsets[row + 1]]
            digest = hashlib.blake2b(features.tobytes(), digest_size=16).digest()
            first = self._first.setdefault(int(self._content[start + row]), digest)
            self.differing += first != digest
