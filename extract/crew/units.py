"""Windows that were handed out, and how fast workers are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pieces import Window


@dataclass(slots=True, eq=False)
class Unit:
    """Windows that are handed out together until their rows are present."""

    job: int
    windows: list[Window]
    """Their missing rows; empty once all rows are present or given up."""
    failures: int = 0
    lost_machines: int = 0
    """Machines that went while they had it."""
    workers: int = 0
    """Workers that have it, or whose replies are not processed yet."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers of all windows, (rows,)."""
        return np.concatenate(self.windows)

    def remove(self, present: NDArray[np.bool_]) -> None:
        """Removes rows by a mask, (rows,)."""
        cuts = np.cumsum([len(window) for window in self.windows])[:-1]
        masks = np.split(present, cuts)
        windows = [window[~mask] for window, mask in zip(self.windows, masks, strict=True)]
        self.windows = [window for window in windows if len(window)]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A unit that a worker has; times in seconds."""

    unit: Unit
    since: float
    deadline: float
    """When another worker gets it."""


@dataclass(slots=True)
class Rate:
    """Rows a second of a worker; recent measurements count more."""

    rows: float = 0.0
    seconds: float = 0.0

    def add(self, rows: int, seconds: float) -> None:
        self.rows = 0.9 * self.rows + rows
        self.seconds = 0.9 * self.seconds + seconds

    @property
    def value(self) -> float | None:
        """None until something was measured."""
        return self.rows / self.seconds if self.rows and self.seconds else None
