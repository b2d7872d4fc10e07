"""Pieces: what a worker is handed at a time, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extract.plan import Row

SECONDS = 20.0
"""What a piece should take: about what the loss of a worker costs."""
MOST_ROWS = 1 << 13
"""Of a piece: each row of one that is handed out takes the driver about 1 kB."""

Window = NDArray[np.int64]
"""Numbers of the missing rows of one window, (rows,)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that one worker adds; it needs no table of the samples."""

    number: int
    """Told once: a piece that is handed out again has another number."""
    job: int
    """Number of the job, from 0: which encoder, and where its shards go."""
    rows: tuple[Row, ...]
    windows: tuple[int, ...]
    """Rows of each window; batches never cross them, so a row's bytes are those of a plain run."""


class Backlog:
    """The windows that were not handed out yet, job by job.

    Args:
        windows: Those with missing rows, (jobs, windows, rows).
    """

    def __init__(self, windows: Sequence[Sequence[Window]]) -> None:
        self._windows = windows
        self._next = [0] * len(windows)
        self._job = 0

    @property
    def job(self) -> int | None:
        """The first job that has some; None where none has."""
        while self._job < len(self._windows):
            if self._next[self._job] < len(self._windows[self._job]):
                return self._job
            self._job += 1
        return None

    def take(self, rate: float | None, workers: int) -> list[Window]:
        """Windows of `job` for one piece.

        One at first, then as many as take `SECONDS` or have `MOST_ROWS`; fewer at the end, so that
        all end together.

        Args:
            rate: Rows a second and worker; None until a piece of this encoder is done.
            workers: Those that share what is left.
        """
        job = self.job
        assert job is not None
        first, windows = self._next[job], self._windows[job]
        end = first + 1
        if rate is not None:
            fair = first + (len(windows) - first) // (2 * max(1, workers))
            rows = len(windows[first])
            most = min(rate * SECONDS, MOST_ROWS)
            while end < fair and rows < most:
                rows += len(windows[end])
                end += 1
        self._next[job] = end
        return list(windows[first:end])
