"""Scores of the trainings of one setting that run side by side."""

from __future__ import annotations

import math

from fuse.figures.records import EpochRecord, Metric
from fuse.setting import Setting
from fuse.training.stopping import is_last_epoch


class GroupScores:
    """Current scores of trainings that run at the same time, or one after another as one.

    Args:
        setting: Of all of them.
        metric: What is reported.
        count: Number of trainings.

    Attributes:
        values: What each training would score if it ended now; −∞ before its first epoch.
    """

    def __init__(self, setting: Setting, metric: Metric, count: int) -> None:
        self._setting, self._metric = setting, metric
        self.values = [-math.inf] * count
        self._epochs, self._best_epochs = [0] * count, [0] * count
        self._common = 0

    def add(self, record: EpochRecord) -> int | None:
        """Adds an epoch of one training.

        Returns:
            The number of epochs that every running training has finished, if it has grown.
        """
        index, value = record.member - 1, record.value(self._metric)
        self._epochs[index] = record.epoch
        if self._setting.keep == "last" or value > self.values[index]:
            self.values[index], self._best_epochs[index] = value, record.epoch
        running = [
            epoch
            for epoch, best in zip(self._epochs, self._best_epochs, strict=True)
            if not is_last_epoch(self._setting, epoch, best)
        ]
        common = min(running, default=max(self._epochs))
        if common <= self._common:
            return None
        self._common = common
        return common
