"""The record of a study in its database, shared safely by any number of coordinators.

A trial is written whole when it is begun (parameters, setting, owner, in one transaction) and its
state is set last when it ends, so that a process may die at any moment: a trial whose owner is gone
waits to be run again as it was drawn. Beginning and ending trials happens one process at a time,
which makes totals exact.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fuse.setting import Setting
from mmsa_cache.errors import MmsaError

from .database import FINISHED, Database, address_of, check_trials, made_by_mmsa
from .locks import patiently
from .sampling import Draw
from .space import restored

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial that this process has begun."""

    number: int
    setting: Setting


class Ledger:
    """One study's record.

    Args:
        storage: Path of a SQLite file, or an address.
        name: The study's name.
    """

    def __init__(self, storage: str | Path, name: str) -> None:
        url = address_of(storage)
        self.place = url.render_as_string()
        """The address, without a password."""
        self._database = Database(url)
        self._storage, self._locks = self._database.storage, self._database.locks
        self._name = name
        self._owner = uuid.uuid4().hex
        self._held: set[int] = set()
        with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
            self._try(lambda: self._storage.create_new_study([StudyDirection.MAXIMIZE], name))
        self._id = self._try(lambda: self._storage.get_study_id_from_name(name))
        self._try(lambda: self._locks.hold(self._owner))

    def close(self) -> None:
        """Puts this process's trials back and lets go of the lock."""
        try:
            for number in sorted(self._held):
                self._put_back(number)
        finally:
            self._database.close()

    @contextlib.contextmanager
    def exclusive(self, purpose: str) -> Iterator[None]:
        """One coordinator of this study at a time does something that takes long.

        Raises:
            MmsaError: The database went away meanwhile.
        """
        try:
            with self._locks.exclusive(f"{self._name}:{purpose}"):
                yield
        except sqlalchemy.exc.DBAPIError as error:
            raise MmsaError(
                f"The database {self.place} went away.", "The same command goes on when it is back."
            ) from error

    def trials(self) -> list[FrozenTrial]:
        """Every trial, by number; not to be changed."""
        return self._try(self._all)

    def _all(self) -> list[FrozenTrial]:
        with made_by_mmsa(self.place):
            trials = self._storage.get_all_trials(self._id, deepcopy=False)
            check_trials(trials)
        return trials

    def attributes(self) -> dict[str, Any]:
        """What is stored about the study."""

        def work() -> dict[str, Any]:
            with made_by_mmsa(self.place):
                return self._storage.get_study_user_attrs(self._id)

        return self._try(work)

    def note(self, key: str, value: Any) -> None:
        """Stores something about the study."""
        self._try(lambda: self._storage.set_study_user_attr(self._id, key, value))

    def claim(self, limit: int, draw: Callable[[list[FrozenTrial]], Draw]) -> Claim | None:
        """Begins a trial: one that was interrupted, else a new one.

        Args:
            limit: Finished and running trials wanted in all.
            draw: Makes a new one from the record.

        Returns:
            The trial, or None where the limit is reached.
        """

        def work() -> Claim | None:
            self._locks.keep()
            with self._locks.exclusive(self._name):
                trials = self._all()
                if self._free_orphans(trials):
                    trials = self._all()
                states = [trial.state for trial in trials]
                begun = sum(s in (*FINISHED, TrialState.RUNNING) for s in states)
                if begun >= limit:
                    return None
                if TrialState.WAITING in states:
                    return self._resume(trials[states.index(TrialState.WAITING)])
                return self._begin(draw(trials))

        claimed = self._try(work)
        if claimed is not None:
            self._held.add(claimed.number)
        return claimed

    def tidy(self) -> None:
        """Lets trials wait whose process is gone."""

        def work() -> None:
            with self._locks.exclusive(self._name):
                self._free_orphans(self._all())

        self._try(work)

    def _free_orphans(self, trials: list[FrozenTrial]) -> bool:
        """Lets trials wait whose process is gone, or whose beginning was never heard of."""
        alive = {self._owner: True}
        freed = False
        for trial in trials:
            if trial.state is not TrialState.RUNNING:
                continue
            owner = str(trial.user_attrs.get("owner"))
            if owner not in alive:
                alive[owner] = self._locks.is_held(owner)
            lost = owner == self._owner and trial.number not in self._held
            if lost or not alive[owner]:
                self._storage.set_trial_state_values(
                    self._trial_id(trial.number), TrialState.WAITING
                )
                freed = True
        return freed

    def _resume(self, trial: FrozenTrial) -> Claim:
        trial_id = self._trial_id(trial.number)
        with made_by_mmsa(self.place):
            setting = restored(trial.user_attrs["setting"])
        self._storage.set_trial_user_attr(trial_id, "owner", self._owner)
        self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        return Claim(trial.number, setting)

    def _begin(self, drawn: Draw) -> Claim:
        attributes = {"owner": self._owner, "setting": asdict(drawn.setting)}
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs=attributes,
        )
        trial_id = self._storage.create_new_trial(self._id, template)
        return Claim(self._storage.get_trial_number_from_id(trial_id), drawn.setting)

    def enqueue(self, trial: FrozenTrial) -> None:
        """Lets a trial of another record wait here, to be run before any is drawn."""
        template = optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"setting": trial.user_attrs["setting"]},
        )
        self._try(lambda: self._storage.create_new_trial(self._id, template))

    def finish(self, number: int, result: dict[str, Any], value: float, *, pruned: bool) -> bool:
        """Ends a trial with its score.

        Args:
            number: The trial.
            result: What is kept of it beside: ``units``, ``steps``, ``seconds``, ``parameters``.
            value: Score, or of a pruned trial the value at its last step.
            pruned: Whether it was given up.

        Returns:
            False where the trial is no longer this process's, and the score was dropped.
        """

        def write(trial_id: int) -> None:
            self._storage.set_trial_user_attr(trial_id, "result", result)
            last = max((int(step) for step in result["steps"]), default=0)
            self._storage.set_trial_intermediate_value(trial_id, last, value)
            state = TrialState.PRUNED if pruned else TrialState.COMPLETE
            self._storage.set_trial_state_values(trial_id, state, [value])

        return self._end(number, write)

    def fail(self, number: int, reason: str) -> bool:
        """Ends a trial without a score, with the reason."""

        def write(trial_id: int) -> None:
            self._storage.set_trial_user_attr(trial_id, "failure", reason)
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)

        return self._end(number, write)

    def note_death(self, number: int) -> int:
        """Counts that a worker died over a trial; returns how often that happened."""
        trial_id = self._trial_id(number)

        def work() -> int:
            deaths = self._storage.get_trial(trial_id).user_attrs.get("deaths", 0) + 1
            self._storage.set_trial_user_attr(trial_id, "deaths", deaths)
            return int(deaths)

        return self._try(work)

    def _put_back(self, number: int) -> None:
        """Lets one of this process's trials wait."""

        def write(trial_id: int) -> None:
            self._storage.set_trial_state_values(trial_id, TrialState.WAITING)

        self._end(number, write)

    def _end(self, number: int, write: Callable[[int], None]) -> bool:
        trial_id = self._trial_id(number)

        def work() -> bool:
            self._locks.keep()
            with self._locks.exclusive(self._name):
                trial = self._storage.get_trial(trial_id)
                mine = trial.user_attrs.get("owner") == self._owner
                if trial.state is not TrialState.RUNNING or not mine:
                    return False
                write(trial_id)
                return True

        ended = self._try(work)
        self._held.discard(number)
        return ended

    def _trial_id(self, number: int) -> int:
        return self._try(
            lambda: self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        )

    def _try(self, call: Callable[[], T]) -> T:
        return patiently(call, self.place)
