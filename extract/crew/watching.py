"""Progress of the jobs of a crew, and its statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extract.plan import FeatureJob, RowLookup


@dataclass(slots=True)
class Tally:
    """Statistics of a crew's work."""

    pieces: int = 0
    """Pieces that were handed out."""
    retries: int = 0
    """Of these: after a failure, after the death of a worker, or for a straggler."""
    lost: int = 0
    """Workers that died, or did not answer."""
    encoded: int = 0
    """Rows that workers sealed."""
    wasted: int = 0
    """Of these: rows that were in the index before they could be entered. Another worker or driver
    was first, or a command that began meanwhile entered the shard of this one."""
    adopted: int = 0
    """Shards that workers sealed."""
    store_operations: int = 0
    """Look-ups and entries."""
    store_seconds: float = 0.0
    """Of the driver, for these."""


class JobProgress:
    """Shows the progress of one job at a time: the first one that is not complete.

    Args:
        jobs: All jobs.
        missing: Missing rows of each.
    """

    def __init__(self, jobs: Sequence[FeatureJob[RowLookup]], missing: Sequence[int]) -> None:
        self._jobs, self._missing = jobs, list(missing)
        self._done = [0] * len(jobs)
        self._shown = -1
        self._stack = contextlib.ExitStack()
        self._advance: Callable[[int], None] = lambda count: None
        self._show_next()

    def settle(self, job: int, rows: int, *, present: bool) -> None:
        """Counts rows of a job that are present now, or given up."""
        self._missing[job] -= rows
        if present:
            self._done[job] += rows
            if job == self._shown:
                self._advance(rows)
        self._show_next()

    def _show_next(self) -> None:
        while self._shown < len(self._jobs) and (self._shown < 0 or not self._missing[self._shown]):
            self._stack.close()
            self._shown += 1
            if self._shown < len(self._jobs):
                self._advance = self._stack.enter_context(self._jobs[self._shown].watch())
                self._advance(self._done[self._shown])

    def close(self) -> None:
        """Ends the display; counts the rows that others added."""
        self._stack.close()
        for job, done in zip(self._jobs, self._done, strict=True):
            job.present += done - job.computed
