"""Pieces: the rows that a worker gets at a time, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extract.plan import Row

SECONDS = 20.0
"""Target duration of a piece: about what the loss of a worker costs."""
MAX_ROWS = 1 << 13
"""Of a piece: each row of one that is handed out takes the driver about 1 kB."""

Window = NDArray[np.int64]
"""Numbers of the missing rows of one window, (rows,)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that one worker encodes and seals; it needs no table of the samples."""

    number: int
    """Unique: a piece that is handed out again gets a new number."""
    job: int
    """Index of the job, which tells the encoder and the sealer."""
    rows: tuple[Row, ...]
    windows: tuple[int, ...]
    """Rows of each window; batches never cross them, so a row's bytes are those of a plain run."""


class Backlog:
    """Windows that were not handed out yet, job by job.

    Args:
        windows: Those with missing rows, (jobs, windows, rows).
    """

    def __init__(self, windows: Sequence[Sequence[Window]]) -> None:
        self._windows = windows
        self._next = [0] * len(windows)
        self._job = 0

    @property
    def job(self) -> int | None:
        """The first job with windows left; None if there is none."""
        while self._job < len(self._windows):
            if self._next[self._job] < len(self._windows[self._job]):
                return self._job
            self._job += 1
        return None

    def take(self, rate: float | None, workers: int) -> list[Window]:
        """Removes the windows of one piece of `job`.

        One window at first, then as many as take `SECONDS` or have `MAX_ROWS`; fewer towards the
        end, so that all workers end together.

        Args:
            rate: Rows a second and worker; None until a piece of this encoder is done.
            workers: Share what is left.
        """
        job = self.job
        assert job is not None
        first, windows = self._next[job], self._windows[job]
        end = first + 1
        if rate is not None:
            fair_end = first + (len(windows) - first) // (2 * max(1, workers))
            rows = len(windows[first])
            max_rows = min(rate * SECONDS, MAX_ROWS)
            while end < fair_end and rows < max_rows:
                rows += len(windows[end])
                end += 1
        self._next[job] = end
        return list(windows[first:end])
