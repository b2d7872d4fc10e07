"""The search: scores trials on inner folds, chooses one, judges it on the outer rows."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState
from pydantic import Field

from fuse.figures.record import Count, Number
from fuse.figures.records import Metric, absent_notes
from fuse.figures.study import BaselineScores, FailedTrial, Gap, Look, Value
from fuse.training.plan import plan_parts

from .address import Address
from .baselines import beside
from .coordinator import Coordinator
from .database import DATABASE
from .importance import alpha_beta, by_value, importances
from .ledger import Ledger
from .messages import FoldSplit
from .pool import TrainingData, WorkerOptions
from .progress import SearchProgress
from .selection import ScoredTrial, optimism, scored, select, ties
from .study import StudyConfig
from .study_record import Insight, Selection, StudyIdentity, StudyRecord
from .trial_record import Trial


class SearchResult(Gap, Insight):
    """A study with as many finished trials as wanted, its choice judged."""

    study: str
    trial: Count
    """The choice."""
    select: str
    """Its rule."""
    metric: Metric
    inner_units: list[Number]
    """Its scores on the units."""
    baselines: list[BaselineScores]
    """Classical models on the same rows."""
    outer_rows: Count
    looks_at_outer_rows: Count
    """Choices that the outer rows have judged."""
    trials: dict[str, Count]
    """Trials by how they ended: complete, pruned, fail."""
    failed: list[FailedTrial]
    storage: str
    workers: Count
    seconds: Number
    overhead_share: Number
    """Share of the workers' time that was spent outside training."""
    setting: dict[str, Value]
    notes: list[str] = Field(default_factory=list)
    """What readers of the figures must know."""


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
    """Runs trials until the study has ``trials`` finished ones, and judges the choice outside.

    A study that is there already is continued. Any number of processes may do this for one study
    at a time.

    Args:
        study: The space and the protocol.
        data: What the trials train on; a study is never continued on other data.
        trials: Finished (complete or pruned) trials wanted in all.
        storage: SQLite file, or the address of a database.
        how: Rule of the choice, see `fuse.search.selection.select`.
        workers: The worker processes.
        on_change: Told where the search is.
        queued: Trials of another study to run first, where this one has none.

    Raises:
        SettingsError: The study exists for other features or another space.
        DeviceError: Nearly all trials fail.
    """
    started = time.monotonic()
    outer, units = _units(study, data)
    with closing(Ledger(storage, study.name)) as ledger:
        _identify(ledger, StudyIdentity(study=study, origin=data.origin))
        known = ledger.trials()
        for trial in queued if not known else ():
            ledger.enqueue(trial)
        most = max(trials - sum(trial.is_finished for trial in known), len(units))
        devices = workers.devices[:most]
        pool = workers.pool(data, units, study.metric, most)
        with closing(pool):
            coordinator = Coordinator(study, ledger, pool, trials, on_change)
            progress = coordinator.run()
            choice = select(scored(progress.trials), how)
            setting = next(t for t in progress.trials if t.number == choice.number).setting()
            ledger.store(selection=Selection(how=how, trial=choice.number))

            @functools.cache  # once, also if the database goes away meanwhile
            def judge() -> Look:
                judgements = coordinator.judge(setting)
                gap = optimism(
                    judgements,
                    [unit.validation for unit in units],
                    outer,
                    data.labels,
                    data.groups,
                    metric=study.metric,
                    seed=study.protocol.seed,
                )
                return Look(
                    trial=choice.number,
                    finished=progress.finished,
                    baselines=beside(
                        progress.baselines, judgements, units, data.labels, data.groups
                    ),
                    **dict(gap),
                )

            looks = _looks(ledger, choice.number, judge)
        insight = _insight(progress.trials, study, choice)
        ledger.store(insight=insight)
        place = ledger.place
    elapsed = time.monotonic() - started
    states = [trial.frozen.state for trial in progress.trials]
    look = next(look for look in looks if look.trial == choice.number)
    return SearchResult(
        **look.model_dump(exclude={"finished"}),
        **dict(insight),
        study=study.name,
        select=how,
        metric=study.metric,
        inner_units=list(choice.units),
        outer_rows=len(outer),
        looks_at_outer_rows=len(looks),
        trials={
            state.name.lower(): states.count(state)
            for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        },
        failed=[
            FailedTrial(trial=trial.number, reason=trial.record.failure)
            for trial in progress.trials
            if trial.frozen.state is TrialState.FAIL
        ],
        storage=place,
        workers=len(devices),
        seconds=round(elapsed, 1),
        notes=progress.notes + _absent(data, outer),
        overhead_share=max(0.0, 1 - progress.busy / (len(devices) * elapsed)),
        setting=asdict(setting),
    )


def _units(study: StudyConfig, data: TrainingData) -> tuple[NDArray[np.int64], list[FoldSplit]]:
    """The outer rows, and the trainings that score a trial: those of the run that it becomes."""
    (part,) = plan_parts(data.labels, data.groups, study.protocol)
    units = [FoldSplit(task.train, task.validation, part.judged, task.seed) for task in part.tasks]
    return part.judged, units


def _absent(data: TrainingData, outer: NDArray[np.int64]) -> list[str]:
    judged = set(data.labels[outer].tolist())
    return absent_notes([n for code, n in enumerate(data.origin.classes) if code not in judged])


def _identify(ledger: Ledger, identity: StudyIdentity) -> None:
    """Refuses to continue a study that was begun as another one."""

    def work(record: StudyRecord) -> dict[str, StudyIdentity]:
        if record.identity is None:
            return {"identity": identity}
        identity.check(record.identity)
        return {}

    ledger.change("identity", work)  # of two that begin it at once, one is refused


def _looks(ledger: Ledger, trial: int, judge: Callable[[], Look]) -> list[Look]:
    """Every look at the outer rows, that at this trial among them; each trial is judged once.

    One that has not been compared with the baselines, by an earlier version, is repeated.
    """

    def work(record: StudyRecord) -> dict[str, list[Look]]:
        for look in record.looks:
            if look.trial == trial and (look.baselines or not record.baselines):
                return {}
        return {"looks": [*(look for look in record.looks if look.trial != trial), judge()]}

    return ledger.change("judge", work).looks


def _insight(trials: Sequence[Trial], study: StudyConfig, choice: ScoredTrial) -> Insight:
    complete = scored(trials)
    return Insight(
        cannot_be_told_apart=ties(complete, study.protocol.folds),
        complete_trials=len(complete),
        parameters=choice.parameters,
        importance=importances(trials, study.protocol.seed),
        by_fusion=by_value(trials, "fusion"),
        alpha_beta=alpha_beta(trials),
    )
