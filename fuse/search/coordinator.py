"""The coordinator: hands out trials, gives the weak ones up, writes down how each ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from fuse.setting import Setting
from mmsa_cache.errors import DeviceError, MmsaError, SettingsError

from .database import FINISHED
from .ledger import Claim, Ledger
from .pool import Event, Pool
from .pruning import QUARTERS, Rule, step_of
from .sampling import draw
from .space import Study
from .worker import Task

RETRIES = 2
"""Times that a trial is run again, with the same parameters, after its worker died."""
_FAILURES = 5
"""Failed trials before a search may end for them."""
_LOOK_AGAIN = 0.5
"""Seconds between looks at what other coordinators do."""


@dataclass(slots=True)
class Running:
    """A trial at work."""

    number: int
    setting: Setting
    units: list[float] = field(default_factory=list)
    """Scores of the trainings that are done."""
    epoch: int = 0
    steps: dict[int, float] = field(default_factory=dict)
    """Values at the comparable steps, see `fuse.search.pruning`."""


@dataclass(slots=True)
class Progress:
    """Where a search is, for whoever shows it."""

    wanted: int
    units: int
    """Trainings a trial."""
    trials: list[FrozenTrial] = field(default_factory=list)
    finished_before: int = 0
    started: float = field(default_factory=time.monotonic)
    busy: float = 0.0
    """Seconds that workers of this process have trained, all together."""
    running: dict[int, Running] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Trials that failed in this process, and why."""

    @property
    def finished(self) -> int:
        """Complete and pruned trials, whoever ran them."""
        return sum(trial.state in FINISHED for trial in self.trials)


class Coordinator:
    """Runs trials of one study until it has as many finished ones as wanted.

    Args:
        study: The space and the rules.
        ledger: Its record.
        pool: The workers.
        wanted: Finished trials in all.
        seed: Seed of the sampler.
        on_change: Called whenever there is something new to show.
    """

    def __init__(
        self,
        study: Study,
        ledger: Ledger,
        pool: Pool,
        wanted: int,
        seed: int,
        on_change: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._study, self._ledger, self._pool, self._seed = study, ledger, pool, seed
        self._rule = Rule(**study.pruner)
        self._on_change = on_change
        self._again: list[Claim] = []
        self._nothing_until = 0.0
        self._finished_here = 0
        self.progress = Progress(wanted, study.folds * study.seeds)
        self._look()
        self.progress.finished_before = self.progress.finished

    def run(self) -> Progress:
        """Works until the number is reached.

        Raises:
            DeviceError: Nearly all trials fail.
            SettingsError: Nearly all fail for what the study says.
        """
        while True:
            self._hand_out()
            if not self.progress.running:
                self._look()
                if self.progress.finished >= self.progress.wanted:
                    self._ledger.tidy()
                    self._on_change(self.progress)
                    return self.progress
            self._pool.open()
            for event in self._pool.wait(_LOOK_AGAIN):
                self._take(event)
            self._on_change(self.progress)

    def _hand_out(self) -> None:
        """Gives every idle worker a trial, while there are any to give."""
        while self._pool.idle:
            claim = self._again.pop() if self._again else self._claim()
            if claim is None:
                return
            self.progress.running[claim.number] = Running(claim.number, claim.setting)
            units = tuple(range(self.progress.units))
            self._pool.submit(Task(claim.number, claim.setting, units))

    def _claim(self) -> Claim | None:
        if time.monotonic() < self._nothing_until:
            return None
        claim = self._ledger.claim(
            self.progress.wanted, lambda record: draw(self._study, record, self._seed)
        )
        if claim is None:
            self._nothing_until = time.monotonic() + 2 * _LOOK_AGAIN
        return claim

    def _take(self, event: Event) -> None:
        running = self.progress.running[event.task.number]
        if event.kind == "report":
            self._pool.answer(event, self._goes_on(running, *event.content))
            return
        del self.progress.running[event.task.number]
        if event.kind == "died":
            self._died(running, event.content)
        elif event.kind == "failed":
            kind, reason = event.content
            self._failed(running.number, reason, kind)
        else:
            self._finished(running, event.content, pruned=event.kind == "stopped")
        self._nothing_until = 0.0

    def _goes_on(self, running: Running, position: int, epoch: int | None, value: float) -> bool:
        """Notes a value of one epoch, or of the end of one training where there is no epoch."""
        done = sum(running.units)
        if epoch is None:
            running.units.append(value)
            step: int | None = QUARTERS * (position + 1)
        else:
            running.epoch = epoch
            step = step_of(position, epoch, running.setting.epochs)
        if step is None:
            return True
        running.steps[step] = (done + value) / (position + 1)
        finished = [steps_of(trial) for trial in self.progress.trials if trial.state in FINISHED]
        return not self._rule.gives_up(step, running.steps[step], finished)

    def _finished(self, running: Running, result: dict[str, Any], *, pruned: bool) -> None:
        if not pruned:
            running.steps[QUARTERS * self.progress.units] = float(np.mean(result["units"]))
        value = running.steps[max(running.steps)]
        self._ledger.finish(
            running.number,
            result | {"steps": {str(step): v for step, v in running.steps.items()}},
            value,
            pruned=pruned,
        )
        self.progress.busy += result["seconds"]
        self._finished_here += 1
        self._look()

    def _died(self, running: Running, reason: str) -> None:
        if self._ledger.note_death(running.number) > RETRIES:
            self._failed(running.number, f"its worker died {RETRIES + 1} times: {reason}", "memory")
        else:
            self._again.append(Claim(running.number, running.setting))

    def _failed(self, number: int, reason: str, kind: str) -> None:
        self._ledger.fail(number, reason)
        self.progress.failures.append((number, reason))
        self._look()
        failed = len(self.progress.failures)
        if failed >= _FAILURES and failed >= 4 * self._finished_here:
            error: type[MmsaError] = SettingsError if kind == "settings" else DeviceError
            raise error(
                f"{failed} of {failed + self._finished_here} trials failed, so the search ends.",
                "Mend what they failed for; the same command goes on.",
                [f"trial {n}: {why}" for n, why in self.progress.failures[-_FAILURES:]],
            )

    def _look(self) -> None:
        self.progress.trials = self._ledger.trials()

    def judge(self, setting: Setting, units: int) -> list[Mapping[str, Any]]:
        """Trains a setting on every unit once more and predicts its held-out and the outer rows.

        Raises:
            DeviceError: A training fails.
        """
        waiting = [Task(unit, setting, (unit,), judge=True) for unit in range(units)]
        results: dict[int, Mapping[str, Any]] = {}
        deaths = 0
        self._pool.open()
        while len(results) < units:
            while waiting and self._pool.idle:
                self._pool.submit(waiting.pop(0))
            for event in self._pool.wait(_LOOK_AGAIN):
                if event.kind == "done":
                    results[event.task.number] = event.content
                    self.progress.busy += event.content["seconds"]
                    continue
                deaths += event.kind == "died"
                if event.kind == "failed" or deaths > RETRIES:
                    raise DeviceError(f"The choice could not be trained again: {event.content}")
                waiting.append(event.task)
        return [results[unit] for unit in range(units)]


def steps_of(trial: FrozenTrial) -> dict[int, float]:
    """The values of a finished trial, by step."""
    steps = trial.user_attrs.get("result", {}).get("steps", {})
    return {int(step): value for step, value in steps.items()}


def complete(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Those that were trained to the end."""
    return [trial for trial in trials if trial.state is TrialState.COMPLETE]
