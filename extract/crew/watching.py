"""What people see of the jobs that a crew works on, and what is counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extract.plan import FeatureJob, RowLookup


@dataclass(slots=True)
class Tally:
    """What a crew's work came to."""

    pieces: int = 0
    """Handed out."""
    again: int = 0
    """Of these: since they had failed, their worker had died, or was the last one to end."""
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
    """That they took the driver."""


class JobProgress:
    """Shows the jobs one after another: the first one that is not complete.

    Args:
        jobs: All of them.
        missing: Missing rows of each.
    """

    def __init__(self, jobs: Sequence[FeatureJob[RowLookup]], missing: Sequence[int]) -> None:
        self._jobs, self._missing = jobs, list(missing)
        self._done = [0] * len(jobs)
        self._shown = -1
        self._stack = contextlib.ExitStack()
        self._advance: Callable[[int], None] = lambda count: None
        self._move()

    def settled(self, job: int, rows: int, *, there: bool) -> None:
        """Rows of a job that are there now, or are given up."""
        self._missing[job] -= rows
        if there:
            self._done[job] += rows
            if job == self._shown:
                self._advance(rows)
        self._move()

    def _move(self) -> None:
        while self._shown < len(self._jobs) and (self._shown < 0 or not self._missing[self._shown]):
            self._stack.close()
            self._shown += 1
            if self._shown < len(self._jobs):
                self._advance = self._stack.enter_context(self._jobs[self._shown].watch())
                self._advance(self._done[self._shown])

    def close(self) -> None:
        """Counts what others added; ends what is shown."""
        self._stack.close()
        for job, done in zip(self._jobs, self._done, strict=True):
            job.present += done - job.computed
