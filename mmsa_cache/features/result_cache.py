"""What is computed of sets of rows, kept for the next model that is trained on the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_MOST = 64
"""Sets of rows: those of the folds of a search, by what is read."""

_Found = TypeVar("_Found")


class ResultsByRows(Generic[_Found]):
    """Results by the rows that they are of; the oldest goes where there are too many.

    Nobody may change a result.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Hashable, bytes], _Found] = {}

    def of(self, rows: NDArray[np.int64], read: Hashable, compute: Callable[[], _Found]) -> _Found:
        """The result of some rows.

        Args:
            rows: Any numbers that name them.
            read: What else it depends on.
            compute: Gives it where it is not known.
        """
        key = read, hashlib.blake2b(rows.tobytes()).digest()
        if key not in self._kept:
            while len(self._kept) >= _MOST:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = compute()
        return self._kept[key]
