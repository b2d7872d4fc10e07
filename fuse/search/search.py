"""The search: scores trials on inner folds, selects one, judges it on the outer rows."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState
from pydantic import Field

from fuse.figures.record import Count, Number
from fuse.figures.records import Metric, absent_notes
from fuse.figures.study import BaselineScores, FailedTrial, Look, OptimismGap, Value
from fuse.setting import Setting
from fuse.training.plan import plan_parts

from .address import Address
from .baselines import compare_baselines
from .coordinator import Coordinator
from .database import DATABASE
from .importance import best_by_value, importances, loss_weight_scores
from .ledger import Ledger
from .messages import FoldSplit
from .pool import TrainingData, WorkerOptions
from .progress import SearchProgress
from .selection import ScoredTrial, optimism, scored_trials, select, ties
from .study import StudyConfig
from .study_record import Insight, Selection, StudyIdentity, StudyRecord
from .trial_record import Trial


class SearchResult(OptimismGap, Insight):
    """A finished search: its choice, judged on the outer rows."""

    study: str
    trial: Count
    """The selected one."""
    select: str
    """The rule that selected it."""
    metric: Metric
    inner_units: list[Number]
    """Scores of its trainings."""
    baselines: list[BaselineScores]
    """Classical models on the same rows."""
    outer_rows: Count
    looks_at_outer_rows: Count
    """Trials that the outer rows have judged."""
    trials: dict[str, Count]
    """Number of trials by state: complete, pruned, fail."""
    failed: list[FailedTrial]
    storage: str
    workers: Count
    seconds: Number
    overhead_share: Number
    """Share of the workers' time outside training."""
    setting: dict[str, Value]
    notes: list[str] = Field(default_factory=list)
    """Caveats for readers of the figures."""


def search(
    study: StudyConfig,
    data: TrainingData,
    trials: int,
    *,
    storage: str | Path | Address = DATABASE,
    how: str = "best",
    workers: WorkerOptions = WorkerOptions(),  # noqa: B008  (frozen)
    on_change: Callable[[SearchProgress], None] = lambda progress: None,
    queued: Sequence[Trial] = (),
) -> SearchResult:
    """Runs trials until the study has enough finished ones, and judges the selected one.

    A study that exists already is continued. Any number of processes may do so at the same time.

    Args:
        study: The space and the protocol.
        data: What the trials train on; a study is never continued on other data.
        trials: Finished (complete or pruned) trials to reach.
        storage: SQLite file, or the address of a database.
        how: Selection rule, see `fuse.search.selection.select`.
        workers: The worker processes.
        on_change: Called with the progress.
        queued: Trials of another study to run first, if this one has no trials.

    Raises:
        SettingsError: The study exists for other features or another space.
        DeviceError: Nearly all trials fail.
    """
    started = time.monotonic()
    outer, splits = _splits(study, data)
    with closing(Ledger(storage, study.name)) as ledger:
        most = max(trials - _begin(ledger, study, data, queued), len(splits))
        with closing(workers.pool(data, splits, study.metric, most)) as pool:
            coordinator = Coordinator(study, ledger, pool, trials, on_change)
            progress = coordinator.run()
            choice, setting = _select(ledger, progress.trials, how)

            @functools.cache  # `judge` is called again if the database does not answer
            def judge() -> Look:
                return _judge(coordinator, choice.number, setting, study, data, outer, splits)

            looks = _add_look(ledger, choice.number, judge)
        insight = _insight(progress.trials, study, choice)
        ledger.store(insight=insight)
    look = next(look for look in looks if look.trial == choice.number)
    return SearchResult(
        **look.model_dump(exclude={"finished"}),
        **dict(insight),
        study=study.name,
        select=how,
        metric=study.metric,
        inner_units=list(choice.scores),
        outer_rows=len(outer),
        looks_at_outer_rows=len(looks),
        **_outcomes(progress, len(workers.devices[:most]), time.monotonic() - started),
        storage=ledger.address,
        notes=progress.notes + _absent_classes(data, outer),
        setting=asdict(setting),
    )


def _splits(study: StudyConfig, data: TrainingData) -> tuple[NDArray[np.int64], list[FoldSplit]]:
    """The outer rows, and the splits that score a trial: those of the run trained from it."""
    (part,) = plan_parts(data.labels, data.groups, study.protocol)
    splits = [FoldSplit(task.train, task.validation, part.judged, task.seed) for task in part.tasks]
    return part.judged, splits


def _absent_classes(data: TrainingData, outer: NDArray[np.int64]) -> list[str]:
    present = set(data.labels[outer].tolist())
    names = data.origin.classes
    return absent_notes([name for code, name in enumerate(names) if code not in present])


def _begin(ledger: Ledger, study: StudyConfig, data: TrainingData, queued: Sequence[Trial]) -> int:
    """Stores the identity and the queue of a new study; refuses to continue one that differs.

    Returns:
        Number of finished trials.
    """
    identity = StudyIdentity(study=study, origin=data.origin)

    def check(record: StudyRecord) -> dict[str, StudyIdentity]:
        if record.identity is None:
            return {"identity": identity}
        identity.check(record.identity)
        return {}

    ledger.change("identity", check)  # of two processes that begin it at once, one is refused
    trials = ledger.trials()
    if not trials:
        for trial in queued:
            ledger.enqueue(trial)
    return sum(trial.is_finished for trial in trials)


def _select(ledger: Ledger, trials: Sequence[Trial], how: str) -> tuple[ScoredTrial, Setting]:
    """Selects a trial and stores which."""
    choice = select(scored_trials(trials), how)
    setting = next(trial for trial in trials if trial.number == choice.number).setting()
    ledger.store(selection=Selection(how=how, trial=choice.number))
    return choice, setting


def _judge(
    coordinator: Coordinator,
    trial: int,
    setting: Setting,
    study: StudyConfig,
    data: TrainingData,
    outer: NDArray[np.int64],
    splits: Sequence[FoldSplit],
) -> Look:
    """Judges a trial's setting on the outer rows."""
    predictions = coordinator.judge(setting)
    gap = optimism(
        predictions,
        [split.validation for split in splits],
        outer,
        data.labels,
        data.groups,
        metric=study.metric,
        seed=study.protocol.seed,
    )
    progress = coordinator.progress
    return Look(
        trial=trial,
        finished=progress.finished,
        baselines=compare_baselines(
            progress.baselines, predictions, splits, data.labels, data.groups
        ),
        **dict(gap),
    )


def _add_look(ledger: Ledger, trial: int, judge: Callable[[], Look]) -> list[Look]:
    """Returns all looks at the outer rows; judges the trial if it was not judged before.

    A look without baselines, by an earlier version, is repeated if the study has some now.
    """

    def change(record: StudyRecord) -> dict[str, list[Look]]:
        for look in record.looks:
            if look.trial == trial and (look.baselines or not record.baselines):
                return {}
        return {"looks": [*(look for look in record.looks if look.trial != trial), judge()]}

    return ledger.change("judge", change).looks


def _outcomes(progress: SearchProgress, workers: int, seconds: float) -> dict[str, Any]:
    """How trials ended and the time they took, as fields of `SearchResult`."""
    states = [trial.frozen.state for trial in progress.trials]
    return {
        "workers": workers,
        "seconds": round(seconds, 1),
        "overhead_share": max(0.0, 1 - progress.training_seconds / (workers * seconds)),
        "trials": {
            state.name.lower(): states.count(state)
            for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        },
        "failed": [
            FailedTrial(trial=trial.number, reason=trial.record.failure)
            for trial in progress.trials
            if trial.frozen.state is TrialState.FAIL
        ],
    }


def _insight(trials: Sequence[Trial], study: StudyConfig, choice: ScoredTrial) -> Insight:
    complete = scored_trials(trials)
    return Insight(
        cannot_be_told_apart=ties(complete, study.protocol.folds),
        complete_trials=len(complete),
        parameters=choice.parameters,
        importance=importances(trials, study.protocol.seed),
        by_fusion=best_by_value(trials, "fusion"),
        alpha_beta=loss_weight_scores(trials),
    )
