"""A study in its database, shared safely by any number of coordinators.

A process may die at any moment: a trial is written in one transaction when it begins (parameters,
setting, owner), its state is set last when it ends, and a trial of a dead owner is requeued as it
was drawn. One process at a time begins or ends trials, so that totals are exact.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

from fuse.figures.study import Look, Value
from fuse.setting import Setting

from .address import Address, parse_address
from .baseline_record import Baseline
from .database import Database, reject_foreign_content
from .held_out import HeldOut
from .locks import retry_until_available
from .sampling import DrawnSetting
from .study_record import Insight, Selection, StudyIdentity, StudyRecord
from .trial_record import FINISHED, Trial, TrialCache, TrialRecord, TrialResult

T = TypeVar("T")
StudyPart = StudyIdentity | Selection | Insight | list[Look] | list[Baseline]
"""A part of a study's record."""


class Ledger:
    """One study in its database.

    Args:
        storage: Path of a SQLite file, or an address.
        name: The study's name.
    """

    def __init__(self, storage: str | Path | Address, name: str) -> None:
        address = parse_address(storage)
        self.address = str(address)
        """The address, without a password."""
        self._database = Database(address)
        self._storage, self._locks = self._database.storage, self._database.locks
        self._name = name
        self._owner = uuid.uuid4().hex
        self._running: set[int] = set()
        self._cache = TrialCache()
        with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
            self._retry(lambda: self._storage.create_new_study([StudyDirection.MAXIMIZE], name))
        self._id = self._retry(lambda: self._storage.get_study_id_from_name(name))
        self._retry(lambda: self._locks.mark_alive(self._owner))

    def close(self) -> None:
        """Requeues this process's trials and releases its lock."""
        try:
            for number in sorted(self._running):
                self._set_state(number, TrialState.WAITING)
        finally:
            self._database.close()

    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return self._retry(self._all)

    def _all(self) -> list[Trial]:
        with reject_foreign_content(self.address):
            return [*map(self._cache.get, self._storage.get_all_trials(self._id, deepcopy=False))]

    def record(self) -> StudyRecord:
        """What is stored with the study."""
        return self._retry(self._record)

    def _record(self) -> StudyRecord:
        with reject_foreign_content(self.address):
            attributes = self._storage.get_study_user_attrs(self._id)
        return StudyRecord.of(self._name, attributes)

    def store(self, **parts: StudyPart) -> None:
        """Stores parts of the study's record."""
        self._retry(lambda: self._store(parts))

    def _store(self, parts: Mapping[str, StudyPart]) -> None:
        for key, part in parts.items():
            value = TypeAdapter(type(part)).dump_python(part, mode="json")
            self._storage.set_study_user_attr(self._id, key, value)

    def change(
        self, purpose: str, work: Callable[[StudyRecord], Mapping[str, StudyPart]]
    ) -> StudyRecord:
        """Changes the study's record, one coordinator at a time.

        Args:
            purpose: Only changes with the same purpose wait for each other.
            work: Takes the record, returns the parts to store. It is called again if the database
                becomes unreachable: another coordinator may have changed the record since.

        Returns:
            The changed record.
        """

        def once() -> StudyRecord:
            with self._locks.exclusive(f"{self._name}:{purpose}") as check:
                parts = work(self._record())
                check()
                self._store(parts)
                return self._record()

        return self._retry(once)

    def claim(
        self, limit: int, draw: Callable[[list[FrozenTrial]], DrawnSetting]
    ) -> tuple[int, Setting] | None:
        """Begins a trial: an interrupted one if there is one, else a new one.

        Args:
            limit: Finished and running trials of the study at most.
            draw: Draws a new trial, given all earlier ones.

        Returns:
            Number and setting of the trial; None if the limit is reached.
        """

        def work() -> tuple[int, Setting] | None:
            self._locks.renew()
            with self._locks.exclusive(self._name) as check:
                trials = self._all()
                if self._requeue_orphans(trials):
                    trials = self._all()
                states = [trial.frozen.state for trial in trials]
                if sum(s in (*FINISHED, TrialState.RUNNING) for s in states) >= limit:
                    return None
                if TrialState.WAITING in states:
                    return self._resume(trials[states.index(TrialState.WAITING)])
                drawn = draw([trial.frozen for trial in trials])  # may take a while
                check()
                return self._begin(drawn)

        claim = self._retry(work)
        if claim is not None:
            self._running.add(claim[0])
        return claim

    def requeue_orphans(self) -> None:
        """Requeues trials of dead processes."""

        def work() -> None:
            with self._locks.exclusive(self._name):
                self._requeue_orphans(self._all())

        self._retry(work)

    def _requeue_orphans(self, trials: list[Trial]) -> bool:
        """Requeues trials of dead processes, and own ones whose beginning was not confirmed."""
        alive = {self._owner: True}
        requeued = False
        for trial in trials:
            if trial.frozen.state is not TrialState.RUNNING:
                continue
            owner = trial.record.owner
            if owner not in alive:
                alive[owner] = self._locks.is_alive(owner)
            unconfirmed = owner == self._owner and trial.number not in self._running
            if unconfirmed or not alive[owner]:
                trial_id = self._trial_id(trial.number)
                self._storage.set_trial_state_values(trial_id, TrialState.WAITING)
                requeued = True
        return requeued

    def _resume(self, trial: Trial) -> tuple[int, Setting]:
        setting = trial.setting()
        trial_id = self._trial_id(trial.number)
        self._update(trial_id, owner=self._owner)
        self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        return trial.number, setting

    def _begin(self, drawn: DrawnSetting) -> tuple[int, Setting]:
        record = TrialRecord(owner=self._owner, setting=asdict(drawn.setting))
        trial_id = self._create(TrialState.RUNNING, drawn.params, drawn.distributions, record)
        return self._storage.get_trial_number_from_id(trial_id), drawn.setting

    def enqueue(self, trial: Trial) -> None:
        """Queues a trial of another study. It runs before any trial is drawn."""
        params, distributions = trial.frozen.params, trial.frozen.distributions
        record = TrialRecord(setting=trial.record.setting)
        self._retry(lambda: self._create(TrialState.WAITING, params, distributions, record))

    def _create(
        self,
        state: TrialState,
        params: dict[str, Value],
        distributions: dict[str, BaseDistribution],
        record: TrialRecord,
    ) -> int:
        """Writes a trial in one transaction; returns its identifier in the database."""
        template = optuna.trial.create_trial(
            state=state,
            params=params,
            distributions=distributions,
            user_attrs=record.model_dump(mode="json", exclude_defaults=True) | {"version": 1},
        )
        return self._storage.create_new_trial(self._id, template)

    def finish(self, number: int, result: TrialResult, held_out: HeldOut | None) -> None:
        """Ends a trial with the value at its last step, unless another process took it over.

        Args:
            number: The trial.
            result: Of its trainings.
            held_out: Its held-out probabilities; None: it was pruned.
        """
        last = max(result.steps)
        step = last, result.steps[last]
        if held_out is None:
            self._set_state(number, TrialState.PRUNED, step, result=result)
        else:
            self._set_state(
                number, TrialState.COMPLETE, step, result=result, held_out=held_out.encode()
            )

    def fail(self, number: int, reason: str) -> None:
        """Ends a trial without a score."""
        self._set_state(number, TrialState.FAIL, failure=reason)

    def count_death(self, number: int) -> int:
        """Counts the death of a trial's worker; returns how many have died over the trial."""
        trial_id = self._trial_id(number)

        def work() -> int:
            deaths = self._read(trial_id).record.deaths + 1
            self._update(trial_id, deaths=deaths)
            return deaths

        return self._retry(work)

    def _set_state(
        self,
        number: int,
        state: TrialState,
        step: tuple[int, float] | None = None,
        **changes: Any,
    ) -> None:
        """Ends or requeues a trial that this process runs.

        Args:
            number: The trial.
            state: Its new state.
            step: Its last step, and the value there.
            changes: Of its record.
        """
        trial_id = self._trial_id(number)

        def work() -> None:
            self._locks.renew()
            with self._locks.exclusive(self._name):
                trial = self._read(trial_id)
                is_own = trial.record.owner == self._owner
                if trial.frozen.state is not TrialState.RUNNING or not is_own:
                    return
                self._update(trial_id, **changes)
                if step is not None:
                    self._storage.set_trial_intermediate_value(trial_id, *step)
                self._storage.set_trial_state_values(trial_id, state, step and [step[1]])

        self._retry(work)
        self._running.discard(number)

    def _read(self, trial_id: int) -> Trial:
        with reject_foreign_content(self.address):
            return Trial.of(self._storage.get_trial(trial_id))

    def _update(self, trial_id: int, **changes: Any) -> None:
        """Stores changes of a trial's record."""
        record = TrialRecord.model_validate({**dict(self._read(trial_id).record), **changes})
        for key, value in record.model_dump(mode="json", include=set(changes)).items():
            self._storage.set_trial_user_attr(trial_id, key, value)

    def _trial_id(self, number: int) -> int:
        return self._retry(
            lambda: self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        )

    def _retry(self, call: Callable[[], T]) -> T:
        return retry_until_available(call, self.address)
