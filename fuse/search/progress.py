"""Where a search is, for whoever shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fuse.setting import Setting

from .baseline_record import Baseline
from .trial_record import Trial


@dataclass(slots=True)
class RunningTrial:
    """A trial at work."""

    number: int
    setting: Setting
    units: list[float] = field(default_factory=list)
    """Scores of the finished trainings."""
    together: int = 1
    """Trainings that are at work side by side."""
    pruned: bool = False
    epoch: int = 0
    """Epochs that they have behind them."""
    steps: dict[int, float] = field(default_factory=dict)
    """Values at the comparable steps, see `fuse.search.pruning`."""


@dataclass(slots=True)
class SearchProgress:
    """Where a search is, for whoever shows it."""

    wanted: int
    units: int
    """Trainings a trial."""
    trials: list[Trial] = field(default_factory=list)
    finished_before: int = 0
    started: float = field(default_factory=time.monotonic)
    busy: float = 0.0
    """Seconds that workers of this process have trained, all together."""
    running: dict[int, RunningTrial] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Trials that failed in this process, and why."""
    baselines: list[Baseline] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Baselines that could not be fitted, and why."""

    @property
    def finished(self) -> int:
        """Complete and pruned trials, whoever ran them."""
        return sum(trial.is_finished for trial in self.trials)
