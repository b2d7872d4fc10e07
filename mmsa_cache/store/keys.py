"""Keys of rows: what a row was computed from, in 16 bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16
Keys = NDArray[np.uint8]
"""Keys, (rows, 16)."""


def content_keys(digests: NDArray[np.uint8]) -> Keys:
    """Keys of originals: the first half of the sha256 of their contents.

    Args:
        digests: (rows, 32)
    """
    return np.ascontiguousarray(digests[:, :KEY_BYTES])


def variant_key(content_sha256: str, augmentation: str, variant: int) -> bytes:
    """Key of one augmented copy.

    Args:
        content_sha256: Of the original's content, hex.
        augmentation: The policy and its seed.
        variant: 1 … K; 0, the original, has a key of `content_keys`.
    """
    if not variant:
        return bytes.fromhex(content_sha256)[:KEY_BYTES]
    name = f"{content_sha256}\0{augmentation}\0{variant}".encode()
    return hashlib.sha256(name).digest()[:KEY_BYTES]


def as_keys(rows: Iterable[bytes]) -> Keys:
    """Keys of single rows as one array, (rows, 16)."""
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, KEY_BYTES)


def sortable(keys: Keys) -> NDArray[np.bytes_]:
    """The same keys as (rows,) values that can be sorted and compared."""
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1)


class KeyTable:
    """Finds keys; grows a shard at a time without being sorted anew each time.

    Attributes:
        count: Keys that were added.
    """

    _MOST_PENDING = 1 << 14

    def __init__(self) -> None:
        self.count = 0
        self._base = _Sorted(sortable(as_keys([])), np.empty(0, np.int64))
        self._pending = self._base

    def add(self, keys: Keys) -> None:
        """Adds keys; their places are counted on."""
        places = np.arange(self.count, self.count + len(keys))
        self.count += len(keys)
        self._pending = self._pending.with_more(sortable(keys), places)
        if len(self._pending.places) > self._MOST_PENDING:
            self._base = self._base.with_more(self._pending.values, self._pending.places)
            self._pending = _Sorted(self._base.values[:0], self._base.places[:0])

    def places(self, keys: Keys) -> NDArray[np.int64]:
        """Where keys were added, counted from 0; −1 where they were not, (rows,)."""
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
