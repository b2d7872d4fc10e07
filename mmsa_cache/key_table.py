"""Finds keys among a million, in arrays: a dictionary takes five times the memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def as_sortable(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Keys of one length, (rows, bytes), as (rows,) values that can be sorted and compared."""
    return np.ascontiguousarray(keys).view(f"S{keys.shape[1]}").reshape(-1)


class KeyTable:
    """Finds keys; grows without being sorted anew each time.

    Keys are kept in a few sorted runs, each several times as long as the next: what is added is
    merged with the runs that are not, so that n keys take n · log n, however few come at a time.

    Args:
        width: Bytes of a key.

    Attributes:
        count: Keys that were added.
    """

    _RATIO = 4
    """Of the lengths of two neighbouring runs, at least."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._none = _Sorted(np.empty(0, f"S{width}"), np.empty(0, np.int64))
        self._runs: list[_Sorted] = []

    def add(self, keys: NDArray[np.uint8]) -> None:
        """Adds keys, (rows, bytes); their places are counted on."""
        places = np.arange(self.count, self.count + len(keys))
        self.count += len(keys)
        run = self._none.with_more(as_sortable(keys), places)
        while self._runs and len(self._runs[-1].places) <= self._RATIO * len(run.places):
            run = self._runs.pop().with_more(run.values, run.places)
        self._runs.append(run)

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Where keys were first added, counted from 0; −1 where they were not, (rows,)."""
        values = as_sortable(keys)
        order = np.argsort(values)  # in order they are found without leaving the cache
        wanted, found = values[order], np.full(len(keys), -1)
        for run in self._runs:
            found = np.where(found >= 0, found, run.find_sorted(wanted))
        places = np.empty(len(keys), np.int64)
        places[order] = found
        return places


class _Sorted:
    """Keys in order, and where each was added."""

    def __init__(self, values: NDArray[np.bytes_], places: NDArray[np.int64]) -> None:
        self.values, self.places = values, places

    def with_more(self, values: NDArray[np.bytes_], places: NDArray[np.int64]) -> _Sorted:
        every = np.concatenate([self.values, values])
        order = np.argsort(every, kind="stable")  # runs that are sorted are merged
        return _Sorted(every[order], np.concatenate([self.places, places])[order])

    def find_sorted(self, wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Places of values that are in order."""
        if not len(self.values):
            return np.full(len(wanted), -1)
        near = np.searchsorted(self.values, wanted).clip(max=len(self.values) - 1)
        return np.where(self.values[near] == wanted, self.places[near], -1)
