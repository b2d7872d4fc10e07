"""The coordinator: assigns trials, prunes weak ones, records how each ended."""

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
from .messages import (
    EpochReport,
    Failure,
    FoldPredictions,
    Message,
    TrainingReply,
    TrainingRequest,
)
from .pool import WorkerPool
from .progress import RunningTrial, SearchProgress
from .pruning import QUARTERS, step_of
from .sampling import draw
from .study import StudyConfig
from .trial_record import TrialResult

_FAILURES = 5
"""Failed trials before a search may end for them."""


class Coordinator:
    """Runs trials of one study until it has enough finished ones.

    Args:
        study: The space and the rules.
        ledger: Its record.
        pool: The workers.
        target: Finished trials to reach.
        on_change: Called whenever there is something new to show.
    """

    def __init__(
        self,
        study: StudyConfig,
        ledger: Ledger,
        pool: WorkerPool,
        target: int,
        on_change: Callable[[SearchProgress], None] = lambda progress: None,
    ) -> None:
        self._study, self._ledger, self._pool = study, ledger, pool
        self._on_change = on_change
        self._next_claim = 0.0
        self._prepared: TrainingRequest | None = None
        self._finished_here = 0
        self._deaths: Counter[str] = Counter()
        self._queued = study.queued_settings()
        self._splits = range(study.protocol.folds * study.protocol.seeds)
        self.progress = SearchProgress(
            target, len(self._splits), baselines=list(ledger.record().baselines)
        )
        self._baselines = self._missing_baselines()
        if pool.stacked:
            pool.add_baseline_workers(min(len(self._baselines), usable_cores()))
        self._update_trials()
        self.progress.finished_before = self.progress.finished

    def run(self) -> SearchProgress:
        """Runs trials until the study has enough.

        Raises:
            DeviceError: Nearly all trials fail.
            SettingsError: Nearly all fail because of the study's values.
        """
        for request, message in dispatch(
            self._pool,
            self._next_request,
            prepared=self._take_prepared,
            is_done=self._is_done,
            count_death=self._count_death,
            on_poll=self._on_poll,
        ):
            if request.baseline:
                self._finish_baseline(request, message)
            elif isinstance(message, EpochReport):
                proceed = self._continues(self.progress.running[request.number], message)
                self._pool.answer(request, proceed)
            else:
                trial = self.progress.running.pop(request.number)
                if isinstance(message, TrainingReply):
                    self._finish(trial, message)
                else:
                    self._fail(trial.number, message)
                self._next_claim = 0.0
                self._update_trials()
        self._ledger.requeue_orphans()
        self._on_change(self.progress)
        return self.progress

    def _missing_baselines(self) -> list[TrainingRequest]:
        """Baselines that the study does not have yet. Each is fitted once on every fold."""
        missing = TITLES.keys() - {baseline.name for baseline in self.progress.baselines}
        folds = tuple(self._splits[: self._study.protocol.folds])
        rows = sum(len(held_out) for held_out in self._pool.validation[: len(folds)])
        requests = []
        for name, title in TITLES.items():
            if name in missing and rows > MOST_ROWS[name]:
                self.progress.notes.append(
                    f"the baseline {title} is missing: there are more than {MOST_ROWS[name]} rows"
                )
            elif name in missing:
                setting = self._study.baseline_setting()
                requests.append(TrainingRequest(-1, setting, (folds,), baseline=name))
        return requests

    def _finish_baseline(self, request: TrainingRequest, message: Message) -> None:
        if isinstance(message, TrainingReply) and message.baseline is not None:
            self.progress.baselines.append(message.baseline)
            self.progress.baselines.sort(key=lambda baseline: [*TITLES].index(baseline.name))
            if not self._pool.stacked:  # otherwise a worker for baselines fitted it
                self.progress.training_seconds += message.seconds
            self._ledger.store(baselines=self.progress.baselines)
        elif isinstance(message, Failure):
            title = TITLES[request.baseline]
            self.progress.notes.append(f"the baseline {title} is missing: {message.reason}")

    def _next_request(self, for_baselines: bool) -> TrainingRequest | None:
        if self._baselines and for_baselines == self._pool.stacked:
            return self._baselines.pop(0)
        if for_baselines:
            return None
        return self._take_prepared(for_baselines) or self._show_running(self._claim())

    def _take_prepared(self, for_baselines: bool) -> TrainingRequest | None:
        """The trial that was begun ahead, for a worker on a GPU."""
        if for_baselines:
            return None
        request, self._prepared = self._prepared, None
        return self._show_running(request)

    def _on_poll(self) -> None:
        """Shows the search. On GPUs it begins a trial ahead: drawing one can take as long as
        training one."""
        self._on_change(self.progress)
        if self._pool.stacked and self._prepared is None:
            self._prepared = self._claim()

    def _show_running(self, request: TrainingRequest | None) -> TrainingRequest | None:
        if request is not None:
            self.progress.running[request.number] = RunningTrial(
                request.number, request.setting, parallel=len(request.groups[0])
            )
        return request

    def _claim(self) -> TrainingRequest | None:
        """Begins a trial in the study's record."""
        if time.monotonic() < self._next_claim:
            return None
        claim = self._ledger.claim(self.progress.target, lambda trials: draw(self._study, trials))
        if claim is None:
            self._next_claim = time.monotonic() + RETRY_SECONDS
            return None
        number, setting = claim
        return TrainingRequest(number, setting, self._groups(setting))

    def _groups(self, setting: Setting) -> tuple[tuple[int, ...], ...]:
        """Groups of a trial's splits: single ones on the CPU; on a GPU the splits side by side, cut
        where the trial may be pruned."""
        count = len(self._splits)
        if not self._pool.stacked:
            return tuple((split,) for split in self._splits)
        cuts = [] if setting in self._queued else self._study.pruner.cuts(count)
        return tuple(tuple(self._splits[a:b]) for a, b in pairwise([0, *cuts, count]))

    def _is_done(self) -> bool:
        """Other coordinators' trials may still run when this one has none."""
        self._update_trials()
        return self.progress.finished >= self.progress.target and not self._baselines

    def _count_death(self, request: TrainingRequest) -> int:
        if request.baseline:
            self._deaths[request.baseline] += 1
            return self._deaths[request.baseline]
        self._show_running(request)
        return self._ledger.count_death(request.number)

    def _continues(self, trial: RunningTrial, report: EpochReport) -> bool:
        """Records the reported values; returns whether the trial continues.

        A worker on a GPU trains on until it is answered: reports of a pruned trial are ignored.
        """
        if trial.pruned:
            return False
        finished, parallel = report.finished, len(report.values)
        total = sum(trial.scores) + sum(report.values)
        if report.epoch is None:
            trial.scores += report.values
            step: int | None = QUARTERS * (finished + parallel)
        else:
            trial.epoch, trial.parallel = report.epoch, parallel
            step = step_of(finished, report.epoch, trial.setting.epochs, parallel)
        if step is None:
            return True
        value = trial.steps[step] = total / (finished + parallel)
        if trial.setting in self._queued:
            return True
        others = [other.result.steps for other in self.progress.trials if other.is_finished]
        trial.pruned = self._study.pruner.prunes(step, value, others, finished, parallel)
        return not trial.pruned

    def _finish(self, trial: RunningTrial, reply: TrainingReply) -> None:
        if not reply.pruned:
            trial.steps[QUARTERS * len(self._splits)] = float(np.mean(reply.scores))
        self._ledger.finish(
            trial.number,
            TrialResult(
                units=reply.scores,
                parameters=reply.parameters,
                seconds=reply.seconds,
                steps=trial.steps,
            ),
            None if reply.pruned else HeldOut.average(self._pool.validation, reply.held_out),
        )
        self.progress.training_seconds += reply.seconds
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

    def _update_trials(self) -> None:
        self.progress.trials = self._ledger.trials()

    def judge(self, setting: Setting) -> list[FoldPredictions]:
        """Trains a setting on every split once more and predicts its held-out and the outer rows.

        Raises:
            DeviceError: A training fails.
        """
        requests = [
            TrainingRequest(number, setting, (group,), judge=True)
            for number, group in enumerate(self._pool.divide(self._splits))
        ]
        predictions: dict[int, FoldPredictions] = {}

        def next_request(for_baselines: bool) -> TrainingRequest | None:
            return requests.pop(0) if requests and not for_baselines else None

        for request, message in dispatch(self._pool, next_request, is_done=lambda: not requests):
            if isinstance(message, Failure):
                raise DeviceError(f"The choice could not be trained again: {message.reason}")
            if isinstance(message, TrainingReply):
                predictions |= zip(request.splits, message.predictions, strict=True)
                self.progress.training_seconds += message.seconds
        return [predictions[split] for split in self._splits]
