"""Pruning: a trial is compared, at comparable steps, with every finished one.

A trial trains on the inner folds one after another, or on several side by side (on a GPU, where
three folds take little longer than one). A step is a quarter of the epochs of one fold (trials with
other numbers of epochs, or stopped early, meet at the same steps); with n folds side by side every
quarter is n steps. The value is the mean of the finished folds and of the current ones. Running
trials play no part. A pruned trial keeps the value at which it stopped, so that the surviving
trials do not raise the bar for each other.

Folds side by side are cut where a rule judges the end of a fold: where it waits for the end of the
first one and keeps a third there, two thirds of the trials need no other, and the choice is that of
folds one after another. A rule that judges within the first fold sees the mean of all folds there
instead, which says more and comes as soon.
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
    """The rule of a study."""

    kind: Literal["percentile", "halving", "none"] = "percentile"
    """``percentile``: a share is kept at every step; ``halving``: at steps that grow by a factor,
    among the trials that came so far; ``none``."""
    keep: float = Field(default=0.5, gt=0, lt=1)
    """Share of the finished trials that a trial must not fall below (0.5: the median); of
    ``halving`` 1 / factor."""
    startup: int = Field(default=10, ge=1, strict=True)
    """Finished trials before the first is pruned."""
    warmup: int = Field(default=3, ge=0, strict=True)
    """Quarters of the first fold, and of those beside it, that are not judged. Under a one-cycle
    schedule the scores within a fold said little of the final one (correlation below 0.4 over 16
    trials of ``pooled``, 0.7 at the fold's end), hence the default."""

    def prunes(
        self,
        step: int,
        value: float,
        finished: Sequence[Mapping[int, float]],
        done: int = 0,
        together: int = 1,
    ) -> bool:
        """Whether to prune a trial with this value at this step.

        Args:
            step: Quarters of folds done, from 1.
            value: Higher is better.
            finished: The values of every finished trial, by step.
            done: Folds that were finished before those at work.
            together: Folds that are at work side by side.
        """
        warmup = self.warmup * (1 if done or self.warmup >= QUARTERS else together)
        if self.kind == "none" or step <= warmup:
            return False
        if not any(self._judges(step - before) for before in range(together)):
            return False
        if self.kind == "halving":
            others = [steps[step] for steps in finished if step in steps]
        else:
            others = [last for steps in finished if (last := _at(steps, step)) is not None]
        if len(others) < self.startup:
            return False
        return value < float(np.quantile(others, 1 - self.keep))

    def cuts(self, units: int) -> list[int]:
        """Numbers of trainings after which those side by side end, for the trial to be judged.

        Args:
            units: Trainings of a trial.
        """
        if self.kind == "none" or self.warmup < QUARTERS - 1:
            return []
        ends = range(self.warmup // QUARTERS + 1, units)
        if self.kind == "percentile":
            return [*ends[:1]]
        return [end for end in ends if self._judges(QUARTERS * end)]

    def _judges(self, step: int) -> bool:
        if self.kind != "halving":
            return True
        first, factor = self.warmup + 1, max(1 / self.keep, 1.5)
        power = round(math.log(step / first, factor))
        return step == round(first * factor**power)


def _at(steps: Mapping[int, float], step: int) -> float | None:
    """The value at a step, or the last one before it."""
    known = [number for number in steps if number <= step]
    return steps[max(known)] if known else None


def step_of(done: int, epoch: int, epochs: int, together: int = 1) -> int | None:
    """The step that an epoch ends, if it ends one.

    Args:
        done: Trainings of the trial that are done.
        epoch: Epochs of the present ones that are done, from 1.
        epochs: Epochs that they have at most.
        together: Present trainings.
    """
    quarter = QUARTERS * epoch // epochs
    if quarter == QUARTERS * (epoch - 1) // epochs or quarter == QUARTERS:
        return None  # the last quarter is the fold's end, when its kept score is known
    return done * QUARTERS + together * quarter
