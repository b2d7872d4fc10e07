"""Windows: rows that are encoded together, and the jobs that they come from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.store.schema import Shard

from .plan import Job
from .publisher import Publisher
from .streams import Halving, Timings


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are encoded together."""

    job: Job
    model: Halving
    places: NDArray[np.int64]
    """Those that were missing when the extraction began."""


def mixed(work: Sequence[Sequence[Window]]) -> list[Window]:
    """The windows of jobs that are worked on side by side, each job's evenly spread."""
    places = [
        ((place + 0.5) / len(windows), number, window)
        for number, windows in enumerate(work)
        for place, window in enumerate(windows)
    ]
    return [window for _, _, window in sorted(places, key=lambda found: found[:2])]


class AtWork:
    """Jobs whose windows come one by one, in whatever order.

    Args:
        jobs: The jobs.
        batch_size: Rows a forward pass.
        timings: Seconds of sealing are added here.
        beside: Whether threads seal.
    """

    def __init__(
        self, jobs: Sequence[Job], batch_size: int, timings: Timings, beside: bool
    ) -> None:
        self._batch_size = batch_size
        self._stack = contextlib.ExitStack()
        self._jobs = jobs
        self._publishers = {id(job.writer): Publisher(job.writer, timings, beside) for job in jobs}
        self._advance: dict[int, Callable[[int], None]] = {}
        self._told: dict[int, int | None] = {}

    def __enter__(self) -> Self:
        with self._stack:
            for job in self._jobs:
                self._advance[id(job)] = self._stack.enter_context(job.watch())
            for publisher in self._publishers.values():
                self._stack.enter_context(publisher)
            self._stack = self._stack.pop_all()
        return self

    def add(self, window: Window, shard: Shard | None) -> None:
        """Hands a window's rows on to be sealed, None where none was missing any more."""
        window.job.computed += self._publishers[id(window.job.writer)].add(shard)

    def tell(self, window: Window) -> None:
        """Says that a window is done; nothing of its rows need be held any more."""
        job, most = window.job, window.model.most
        if most != self._told.get(id(job)):
            self._told[id(job)] = most
            job.notice(f"No memory for {self._batch_size} rows at once: {most} are run.")
        self._advance[id(job)](len(window.places))

    def __exit__(self, *ending: object) -> bool | None:
        return self._stack.__exit__(*ending)  # type: ignore[arg-type]
