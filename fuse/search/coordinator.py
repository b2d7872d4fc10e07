"""The coordinator: hands out trials, prunes the weak ones, records how each ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from fuse.setting import Setting
from mmsa_cache.errors import DeviceError, MmsaError, SettingsError
from mmsa_cache.native.cores import usable_cores

from .baseline_record import TITLES
from .baselines import MOST_ROWS
from .dispatch import RETRY_SECONDS, dispatch
from .held_out import HeldOut
from .ledger import Ledger
from .messages import EpochReport, Failure, FoldPredictions, TrainingReply, TrainingRequest
from .pool import WorkerPool
from .progress import RunningTrial, SearchProgress
from .pruning import QUARTERS, step_of
from .sampling import draw
from .study import StudyConfig
from .trial_record import TrialResult

_FAILURES = 5
"""Failed trials before a search may end for them."""


class Coordinator:
    """Runs trials of one study until it has as many finished ones as wanted.

    Args:
        study: The space and the rules.
        ledger: Its record.
        pool: The workers.
        wanted: Finished trials in all.
        on_change: Called whenever there is something new to show.
    """

    def __init__(
        self,
        study: StudyConfig,
        ledger: Ledger,
        pool: WorkerPool,
        wanted: int,
        on_change: Callable[[SearchProgress], None] = lambda progress: None,
    ) -> None:
        self._study, self._ledger, self._pool = study, ledger, pool
        self._on_change = on_change
        self._nothing_until = 0.0
        self._ahead: TrainingRequest | None = None
        self._finished_here = 0
        self._deaths: Counter[str] = Counter()
        self._queued = study.queued()
        self._units = range(study.protocol.folds * study.protocol.seeds)
        self.progress = SearchProgress(
            wanted, len(self._units), baselines=list(ledger.record().baselines)
        )
        self._waiting = self._baselines()
        if pool.stacked:
            pool.add_beside(min(len(self._waiting), usable_cores()))
        self._look()
        self.progress.finished_before = self.progress.finished

    def run(self) -> SearchProgress:
        """Runs trials until the study has as many as wanted.

        Raises:
            DeviceError: Nearly all trials fail.
            SettingsError: Nearly all fail for what the study says.
        """
        for task, said in dispatch(
            self._pool,
            self._claim,
            at_hand=self._at_hand,
            is_done=self._is_done,
            count_death=self._count_death,
            on_look=self._look_ahead,
        ):
            if task.baseline:
                self._finish_baseline(task, said)
                continue
            if isinstance(said, EpochReport):
                self._pool.answer(task, self._goes_on(self.progress.running[task.number], said))
                continue
            running = self.progress.running.pop(task.number)
            if isinstance(said, TrainingReply):
                self._finish(running, said)
            else:
                self._fail(running.number, said)
            self._nothing_until = 0.0
            self._look()
        self._ledger.requeue_orphans()
        self._on_change(self.progress)
        return self.progress

    def _baselines(self) -> list[TrainingRequest]:
        """Those that the study does not have yet; each is fitted once on every fold."""
        known = {baseline.name for baseline in self.progress.baselines}
        folds = tuple(self._units[: self._study.protocol.folds])
        rows = sum(len(of) for of in self._pool.validation[: len(folds)])
        large = [name for name, most in MOST_ROWS.items() if rows > most and name not in known]
        self.progress.notes += [
            f"no {TITLES[name]} beside the choice: there are more than {MOST_ROWS[name]} rows"
            for name in large
        ]
        return [
            TrainingRequest(-1, self._study.vectors(), (folds,), baseline=name)
            for name in TITLES
            if name not in known and name not in large
        ]

    def _finish_baseline(
        self, task: TrainingRequest, said: EpochReport | TrainingReply | Failure
    ) -> None:
        if isinstance(said, TrainingReply) and said.baseline is not None:
            self.progress.baselines.append(said.baseline)
            self.progress.baselines.sort(key=lambda of: [*TITLES].index(of.name))
            self.progress.busy += 0 if self._pool.stacked else said.seconds  # else one beside's
            self._ledger.store(baselines=self.progress.baselines)
        elif isinstance(said, Failure):
            title = TITLES[task.baseline]
            self.progress.notes.append(f"no {title} beside the choice: {said.reason}")

    def _claim(self, beside: bool) -> TrainingRequest | None:
        if self._waiting and beside == self._pool.stacked:
            return self._waiting.pop(0)
        if beside:
            return None
        return self._at_hand(beside) or self._running(self._begin())

    def _at_hand(self, beside: bool) -> TrainingRequest | None:
        """The trial that was begun ahead, for a worker on a GPU."""
        if beside:
            return None
        task, self._ahead = self._ahead, None
        return self._running(task)

    def _look_ahead(self) -> None:
        """Shows the search; begins a trial ahead where a worker would wait for it as long as it
        trains."""
        self._on_change(self.progress)
        if self._pool.stacked and self._ahead is None:
            self._ahead = self._begin()

    def _running(self, task: TrainingRequest | None) -> TrainingRequest | None:
        if task is not None:
            together = len(task.groups[0])
            self.progress.running[task.number] = RunningTrial(
                task.number, task.setting, [], together
            )
        return task

    def _begin(self) -> TrainingRequest | None:
        if time.monotonic() < self._nothing_until:
            return None
        claim = self._ledger.claim(self.progress.wanted, lambda trials: draw(self._study, trials))
        if claim is None:
            self._nothing_until = time.monotonic() + RETRY_SECONDS
            return None
        number, setting = claim
        return TrainingRequest(number, setting, self._groups(setting))

    def _groups(self, setting: Setting) -> tuple[tuple[int, ...], ...]:
        """The trainings of a trial: one after another on the CPU; on a GPU side by side, but those
        apart after which it may be pruned."""
        units = len(self._units)
        if not self._pool.stacked:
            return tuple((unit,) for unit in self._units)
        cuts = [] if setting in self._queued else self._study.pruner.cuts(units)
        return tuple(tuple(self._units[a:b]) for a, b in pairwise([0, *cuts, units]))

    def _is_done(self) -> bool:
        """Other coordinators' trials may still run when this one has none."""
        self._look()
        return self.progress.finished >= self.progress.wanted and not self._waiting

    def _count_death(self, task: TrainingRequest) -> int:
        if task.baseline:
            self._deaths[task.baseline] += 1
            return self._deaths[task.baseline]
        self._running(task)
        return self._ledger.count_death(task.number)

    def _goes_on(self, running: RunningTrial, report: EpochReport) -> bool:
        """Records values; whether the trial continues.

        A worker on a GPU trains on meanwhile: what it reports after that is not looked at.
        """
        if running.pruned:
            return False
        position, together = report.position, len(report.values)
        done = sum(running.units) + sum(report.values)
        if report.epoch is None:
            running.units += report.values
            step: int | None = QUARTERS * (position + together)
        else:
            running.epoch, running.together = report.epoch, together
            step = step_of(position, report.epoch, running.setting.epochs, together)
        if step is None:
            return True
        running.steps[step] = done / (position + together)
        if running.setting in self._queued:
            return True
        finished = [trial.result.steps for trial in self.progress.trials if trial.is_finished]
        value = running.steps[step]
        running.pruned = self._study.pruner.prunes(step, value, finished, position, together)
        return not running.pruned

    def _finish(self, running: RunningTrial, result: TrainingReply) -> None:
        if not result.pruned:
            running.steps[QUARTERS * len(self._units)] = float(np.mean(result.units))
        self._ledger.finish(
            running.number,
            TrialResult(
                units=result.units,
                parameters=result.parameters,
                seconds=result.seconds,
                steps=running.steps,
            ),
            running.steps[max(running.steps)],
            None if result.pruned else HeldOut.of_units(self._pool.validation, result.held_out),
        )
        self.progress.busy += result.seconds
        self._finished_here += 1

    def _fail(self, number: int, failure: Failure) -> None:
        self._ledger.fail(number, failure.reason)
        self.progress.failures.append((number, failure.reason))
        failed = len(self.progress.failures)
        if failed >= _FAILURES and failed >= 4 * self._finished_here:
            error: type[MmsaError] = SettingsError if failure.by_setting else DeviceError
            raise error(
                f"{failed} of {failed + self._finished_here} trials failed, so the search ends.",
                "Correct the cause; the same command continues the search.",
                [f"trial {n}: {why}" for n, why in self.progress.failures[-_FAILURES:]],
            )

    def _look(self) -> None:
        self.progress.trials = self._ledger.trials()

    def judge(self, setting: Setting) -> list[FoldPredictions]:
        """Trains a setting on every unit once more and predicts its held-out and the outer rows.

        Raises:
            DeviceError: A training fails.
        """
        waiting = [
            TrainingRequest(number, setting, (part,), judge=True)
            for number, part in enumerate(self._pool.parts(self._units))
        ]
        judgements: dict[int, FoldPredictions] = {}

        def take(beside: bool) -> TrainingRequest | None:
            return waiting.pop(0) if waiting and not beside else None

        for task, said in dispatch(self._pool, take, is_done=lambda: not waiting):
            if isinstance(said, Failure):
                raise DeviceError(f"The choice could not be trained again: {said.reason}")
            if isinstance(said, TrainingReply):
                judgements |= zip(task.units, said.judgements, strict=True)
                self.progress.busy += said.seconds
        return [judgements[unit] for unit in self._units]
