"""The only reader and writer of what mmsa stores with a trial, in addition to Optuna."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, ValidationError

from fuse.figures.record import Count, Number, Record
from fuse.figures.study import Value
from fuse.setting import Setting, restore
from mmsa_cache.errors import SettingsError
from mmsa_cache.validation import describe_errors

from .held_out import HeldOut, HeldOutRecord

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class TrialResult(Record):
    """What the trainings of a finished trial gave."""

    units: list[Number]
    """Score of each training, in the same order for every trial."""
    parameters: Count
    """Trained numbers of the model."""
    seconds: Number
    """Time of the trainings."""
    steps: dict[int, Number] = Field(default_factory=dict)
    """Values at the comparable steps, see `fuse.search.pruning`."""


class TrialRecord(Record):
    """The user attributes of a trial."""

    version: Literal[1] = 1
    owner: str = ""
    """The process that runs it, see `fuse.search.locks`."""
    setting: dict[str, Value]
    deaths: Count = 0
    """Workers that died over it."""
    failure: str = ""
    """Why it failed."""
    result: TrialResult | None = None
    held_out: HeldOutRecord | None = None
    """Of a complete one; earlier versions did not keep it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as its database has it."""

    frozen: FrozenTrial
    """Optuna's part: number, state, value, parameters, dates."""
    record: TrialRecord

    @classmethod
    def of(cls, frozen: FrozenTrial) -> Self:
        """Checks what is stored with a trial.

        Raises:
            ValueError: Names the trial and what is wrong.
        """
        try:
            record = TrialRecord.model_validate(frozen.user_attrs)
        except ValidationError as error:
            problems = "; ".join(describe_errors(error, TrialRecord))
            raise ValueError(f"trial {frozen.number}: {problems}") from None
        # SQLite keeps a column's values of any type.
        if type(frozen.number) is not int or frozen.number < 0:
            raise ValueError(f"a trial has the number {frozen.number!r}")
        ended = frozen.state in FINISHED
        if ended and (record.result is None or frozen.value is None):
            raise ValueError(f"trial {frozen.number} has no result")
        if ended and not math.isfinite(frozen.values[0]):
            raise ValueError(f"trial {frozen.number} has the value {frozen.value}")
        return cls(frozen, record)

    @property
    def number(self) -> int:
        """Its number in the study, from 0."""
        return self.frozen.number

    @property
    def is_finished(self) -> bool:
        """Whether it is complete or pruned."""
        return self.frozen.state in FINISHED

    @property
    def is_complete(self) -> bool:
        """Whether it was trained on every unit."""
        return self.frozen.state is TrialState.COMPLETE

    @property
    def score(self) -> float:
        """Of a finished one; of a pruned one its value when it was pruned."""
        return float(self.frozen.values[0])

    @property
    def result(self) -> TrialResult:
        """Of a finished one."""
        assert self.record.result is not None
        return self.record.result

    @property
    def held_out(self) -> HeldOut | None:
        """Its held-out probabilities, decoded now; None where none were kept.

        Raises:
            ModelError: They are damaged.
        """
        found = self.record.held_out
        return None if found is None else HeldOut.decode(found, f"trial {self.number}")

    def setting(self) -> Setting:
        """Its setting.

        Raises:
            SettingsError: This version has no such setting.
        """
        try:
            return restore(self.record.setting)
        except SettingsError as error:
            raise SettingsError(
                f"Trial {self.number} is not of this version.", "Search again.", error.problems
            ) from error


class CheckedTrials:
    """Checks trials as `Trial.of` does, each finished one once: Optuna reads it once too."""

    def __init__(self) -> None:
        self._finished: dict[int, Trial] = {}

    def of(self, frozen: FrozenTrial) -> Trial:
        """See `Trial.of`."""
        known = self._finished.get(frozen.number)
        if known is not None and known.frozen is frozen:
            return known
        trial = Trial.of(frozen)
        if trial.is_finished:
            self._finished[trial.number] = trial
        return trial
