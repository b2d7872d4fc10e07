"""Finds keys among a million, in arrays: a dictionary takes five times the memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sortable(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Keys of one length, (rows, bytes), as (rows,) values that can be sorted and compared."""
    return np.ascontiguousarray(keys).view(f"S{keys.shape[1]}").reshape(-1)


class KeyTable:
    """Finds keys; grows without being sorted anew each time.

    Args:
        width: Bytes of a key.

    Attributes:
        count: Keys that were added.
    """

    _MOST_PENDING = 1 << 14

    def __init__(self, width: int) -> None:
        self.count = 0
        self._base = _Sorted(np.empty(0, f"S{width}"), np.empty(0, np.int64))
        self._pending = self._base

    def add(self, keys: NDArray[np.uint8]) -> None:
        """Adds keys, (rows, bytes); their places are counted on."""
        places = np.arange(self.count, self.count + len(keys))
        self.count += len(keys)
        self._pending = self._pending.with_more(sortable(keys), places)
        if len(self._pending.places) > self._MOST_PENDING:
            self._base = self._base.with_more(self._pending.values, self._pending.places)
            self._pending = _Sorted(self._base.values[:0], self._base.places[:0])

    def places(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Where keys were first added, counted from 0; −1 where they were not, (rows,)."""
        values = sortable(keys)
        found = self._base.places_of(values)
        return np.where(found >= 0, found, self._pending.places_of(values))


class _Sorted:
    """Keys in order, and where each was added."""

    def __init__(self, values: NDArray[np.bytes_], places: NDArray[np.int64]) -> None:
        self.values, self.places = values, places

    def with_more(self, values: NDArray[np.bytes_], places: NDArray[np.int64]) -> _Sorted:
        every = np.concatenate([self.values, values])
        order = np.argsort(every, kind="stable")
        return _Sorted(every[order], np.concatenate([self.places, places])[order])

    def places_of(self, values: NDArray[np.bytes_]) -> NDArray[np.int64]:
        if not len(self.values):
            return np.full(len(values), -1)
        order = np.argsort(values)  # in order they are found without leaving the cache
        wanted = values[order]
        near = np.searchsorted(self.values, wanted).clip(max=len(self.values) - 1)
        places = np.empty(len(values), np.int64)
        places[order] = np.where(self.values[near] == wanted, self.places[near], -1)
        return places
