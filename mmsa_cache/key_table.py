"""A map from keys to indices in arrays, with a fifth of a dictionary's memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def as_sortable(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Keys (rows, bytes) as sortable values (rows,)."""
    return np.ascontiguousarray(keys).view(f"S{keys.shape[1]}").reshape(-1)


class KeyTable:
    """Maps keys to the index at which they were first added.

    Keys are kept in a few sorted runs, each at least `_RATIO` times as long as the next. Added keys
    are merged with the shorter runs, so that adding n keys takes n · log n in pieces of any size.

    Args:
        width: Bytes of a key.

    Attributes:
        count: Number of added keys.
    """

    _RATIO = 4

    def __init__(self, width: int) -> None:
        self.count = 0
        self._empty = _SortedRun(np.empty(0, f"S{width}"), np.empty(0, np.int64))
        self._runs: list[_SortedRun] = []

    def add(self, keys: NDArray[np.uint8]) -> None:
        """Adds keys, (rows, bytes), with the next indices."""
        indices = np.arange(self.count, self.count + len(keys))
        self.count += len(keys)
        run = self._empty.merge(as_sortable(keys), indices)
        while self._runs and len(self._runs[-1].indices) <= self._RATIO * len(run.indices):
            run = self._runs.pop().merge(run.values, run.indices)
        self._runs.append(run)

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Index at which each key was first added, from 0; −1 if it was not, (rows,)."""
        values = as_sortable(keys)
        order = np.argsort(values)  # sorted look-ups stay in the processor's cache
        ordered, found = values[order], np.full(len(keys), -1)
        for run in self._runs:
            found = np.where(found >= 0, found, run.find_sorted(ordered))
        indices = np.empty(len(keys), np.int64)
        indices[order] = found
        return indices


class _SortedRun:
    """Sorted keys with their indices."""

    def __init__(self, values: NDArray[np.bytes_], indices: NDArray[np.int64]) -> None:
        self.values, self.indices = values, indices

    def merge(self, values: NDArray[np.bytes_], indices: NDArray[np.int64]) -> _SortedRun:
        every = np.concatenate([self.values, values])
        order = np.argsort(every, kind="stable")  # merges sorted runs
        return _SortedRun(every[order], np.concatenate([self.indices, indices])[order])

    def find_sorted(self, values: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Indices of sorted values, −1 where they are not in the run."""
        if not len(self.values):
            return np.full(len(values), -1)
        near = np.searchsorted(self.values, values).clip(max=len(self.values) - 1)
        return np.where(self.values[near] == values, self.indices[near], -1)
