"""What the driver remembers of windows that it has handed out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pieces import Window


@dataclass(slots=True, eq=False)
class Unit:
    """Windows that are handed out together until their rows are there."""

    job: int
    windows: list[Window]
    """What is missing of them; empty when the rows are there or given up."""
    failed: int = 0
    nodes: int = 0
    """Machines that went under it."""
    running: int = 0
    """Workers that have it, or whose answers are not entered yet."""

    @property
    def places(self) -> NDArray[np.int64]:
        """The rows of all windows, (rows,)."""
        return np.concatenate(self.windows)

    def take_away(self, rows: NDArray[np.bool_]) -> None:
        """Takes some of the rows away, (rows,)."""
        cuts = np.cumsum([len(window) for window in self.windows])[:-1]
        parts = zip(self.windows, np.split(rows, cuts), strict=True)
        left = [window[~gone] for window, gone in parts]
        self.windows = [window for window in left if len(window)]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A unit in a worker's hands; times in seconds."""

    unit: Unit
    since: float
    limit: float
    """When it is given to another one."""


@dataclass(slots=True)
class Rate:
    """Rows a second of a worker; what was measured long ago counts less."""

    rows: float = 0.0
    seconds: float = 0.0

    def add(self, rows: int, seconds: float) -> None:
        self.rows = 0.9 * self.rows + rows
        self.seconds = 0.9 * self.seconds + seconds

    @property
    def value(self) -> float | None:
        """None until something was measured."""
        return self.rows / self.seconds if self.rows and self.seconds else None
