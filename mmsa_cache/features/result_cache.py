"""A cache of results by the rows that they were computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_MOST = 64
"""Most results, enough for the folds of a search."""

_Result = TypeVar("_Result")


class ResultsByRows(Generic[_Result]):
    """Results by their rows; the oldest are dropped. Results must not be changed."""

    def __init__(self) -> None:
        self._results: dict[tuple[Hashable, bytes], _Result] = {}

    def of(
        self, rows: NDArray[np.int64], read: Hashable, compute: Callable[[], _Result]
    ) -> _Result:
        """The result for some rows.

        Args:
            rows: Numbers that identify the rows.
            read: Whatever else the result depends on.
            compute: Computes a result that is not cached.
        """
        key = read, hashlib.blake2b(rows.tobytes()).digest()
        if key not in self._results:
            while len(self._results) >= _MOST:
                del self._results[next(iter(self._results))]
            self._results[key] = compute()
        return self._results[key]
