"""Pruning: compares a trial with every finished trial at comparable steps.

A trial trains on the inner folds one after another, or on several side by side (on a GPU, where
three folds take little longer than one). A step is a quarter of the epochs of one fold, so that
trials with different numbers of epochs, or that stop early, can be compared. With n folds side by
side a quarter is n steps. The value at a step is the mean over the finished and the current folds.
Running trials are not compared. A pruned trial keeps the value at which it stopped, so that the
surviving trials do not raise the bar for each other.

Folds side by side are cut where a rule judges the end of a fold. If it judges the end of the first
fold and keeps a third, two thirds of the trials need no other fold, and the same trials are pruned
as with one fold after another. A rule that judges within the first fold sees the mean of all folds
instead, which is more reliable and as early.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from mmsa_cache.validation import Table

QUARTERS = 4


class PruningRule(Table):
    """When a study prunes a trial."""

    kind: Literal["percentile", "halving", "none"] = "percentile"
    """``percentile``: keeps a share at every step. ``halving``: keeps a share at steps that grow by
    a factor, among the trials that reached them. ``none``: prunes nothing."""
    keep: float = Field(default=0.5, gt=0, lt=1)
    """Share of the finished trials that is kept (0.5: those above the median); of ``halving`` it is
    1 / factor."""
    startup: int = Field(default=10, ge=1, strict=True)
    """Finished trials before the first is pruned."""
    warmup: int = Field(default=3, ge=0, strict=True)
    """Quarters of the first fold (or of the first folds side by side) that are not judged. Default:
    under a one-cycle schedule scores within a fold said little of the final one (correlation below
    0.4 over 16 trials of ``pooled``, 0.7 at the fold's end)."""

    def prunes(
        self,
        step: int,
        value: float,
        finished: Sequence[Mapping[int, float]],
        folds_done: int = 0,
        parallel: int = 1,
    ) -> bool:
        """Whether to prune a trial with this value at this step.

        Args:
            step: Finished quarters of folds, from 1.
            value: Higher is better.
            finished: Values of every finished trial by step.
            folds_done: Folds that ended before the current ones.
            parallel: Folds that run side by side.
        """
        warmup = self.warmup * (1 if folds_done or self.warmup >= QUARTERS else parallel)
        if self.kind == "none" or step <= warmup:
            return False
        if not any(self._judges(step - before) for before in range(parallel)):
            return False
        if self.kind == "halving":
            others = [steps[step] for steps in finished if step in steps]
        else:
            others = [last for steps in finished if (last := _value_at(steps, step)) is not None]
        if len(others) < self.startup:
            return False
        return value < float(np.quantile(others, 1 - self.keep))

    def cuts(self, trainings: int) -> list[int]:
        """Where to cut the trainings side by side, so that the trial is judged in between.

        Args:
            trainings: Number of trainings of a trial.
        """
        if self.kind == "none" or self.warmup < QUARTERS - 1:
            return []
        ends = range(self.warmup // QUARTERS + 1, trainings)
        if self.kind == "percentile":
            return [*ends[:1]]
        return [end for end in ends if self._judges(QUARTERS * end)]

    def _judges(self, step: int) -> bool:
        if self.kind != "halving":
            return True
        first, factor = self.warmup + 1, max(1 / self.keep, 1.5)
        power = round(math.log(step / first, factor))
        return step == round(first * factor**power)


def _value_at(steps: Mapping[int, float], step: int) -> float | None:
    """The value at a step, or the last one before it."""
    reached = [number for number in steps if number <= step]
    return steps[max(reached)] if reached else None


def step_of(folds_done: int, epoch: int, epochs: int, parallel: int = 1) -> int | None:
    """The step that an epoch ends, if it ends one.

    Args:
        folds_done: Folds that ended before the current ones.
        epoch: Finished epochs of the current folds, from 1.
        epochs: Epochs of a fold at most.
        parallel: Folds that run side by side.
    """
    quarter = QUARTERS * epoch // epochs
    if quarter == QUARTERS * (epoch - 1) // epochs or quarter == QUARTERS:
        return None  # the last quarter ends with the fold, when its final score is known
    return folds_done * QUARTERS + parallel * quarter
