"""Progress of a search, for display."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fuse.setting import Setting

from .baseline_record import Baseline
from .trial_record import Trial


@dataclass(slots=True)
class RunningTrial:
    """A trial in training."""

    number: int
    setting: Setting
    scores: list[float] = field(default_factory=list)
    """Of the finished trainings."""
    parallel: int = 1
    """Trainings that run side by side now."""
    pruned: bool = False
    epoch: int = 0
    """Epochs that they have finished."""
    steps: dict[int, float] = field(default_factory=dict)
    """Values at the comparable steps, see `fuse.search.pruning`."""


@dataclass(slots=True)
class SearchProgress:
    """Progress of a search."""

    target: int
    """Finished trials to reach."""
    trainings: int
    """Of each trial."""
    trials: list[Trial] = field(default_factory=list)
    finished_before: int = 0
    """Trials that were finished when this process began."""
    started: float = field(default_factory=time.monotonic)
    training_seconds: float = 0.0
    """Sum over the workers of this process."""
    running: dict[int, RunningTrial] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Trials that failed in this process, and why."""
    baselines: list[Baseline] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Baselines that could not be fitted, and why."""

    @property
    def finished(self) -> int:
        """Complete and pruned trials, whichever process ran them."""
        return sum(trial.is_finished for trial in self.trials)
