"""Trainings of one setting side by side, as whoever may prune the trial sees them."""

from __future__ import annotations

import math

from fuse.figures.records import EpochRecord, Metric
from fuse.setting import Setting
from fuse.training.stopping import is_last_epoch


class SideBySide:
    """The values of trainings that go on at the same time, or one after another as one.

    Args:
        setting: Of all of them.
        metric: What is reported.
        count: How many there are.

    Attributes:
        values: What each would score if it ended now; −∞ before its first epoch.
    """

    def __init__(self, setting: Setting, metric: Metric, count: int) -> None:
        self._setting, self._metric = setting, metric
        self.values = [-math.inf] * count
        self._done, self._best = [0] * count, [0] * count
        self._reached = 0

    def add(self, record: EpochRecord) -> int | None:
        """Takes in an epoch of a training.

        Returns:
            Epochs that every training has behind it that still goes on, where they are more now.
        """
        place, value = record.member - 1, record.value(self._metric)
        self._done[place] = record.epoch
        if self._setting.keep == "last" or value > self.values[place]:
            self.values[place], self._best[place] = value, record.epoch
        going_on = [
            done
            for done, best in zip(self._done, self._best, strict=True)
            if not is_last_epoch(self._setting, done, best)
        ]
        reached = min(going_on, default=max(self._done))
        if reached <= self._reached:
            return None
        self._reached = reached
        return reached
