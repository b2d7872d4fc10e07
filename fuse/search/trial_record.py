"""What mmsa stores with a trial in addition to Optuna. Only this module reads and writes it."""

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
    """Results of a finished trial."""

    units: list[Number]
    """Score of each training, in the same order for every trial."""
    parameters: Count
    """Trained parameters of the model."""
    seconds: Number
    """Training time."""
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
    """Of a complete trial; earlier versions did not store it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as stored in the database."""

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
        # SQLite columns can hold values of any type.
        if type(frozen.number) is not int or frozen.number < 0:
            raise ValueError(f"a trial has the number {frozen.number!r}")
        is_finished = frozen.state in FINISHED
        if is_finished and (record.result is None or frozen.value is None):
            raise ValueError(f"trial {frozen.number} has no result")
        if is_finished and not math.isfinite(frozen.values[0]):
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
        """Whether it was trained on every split."""
        return self.frozen.state is TrialState.COMPLETE

    @property
    def score(self) -> float:
        """Score of a finished trial; of a pruned one the value at which it was pruned."""
        return float(self.frozen.values[0])

    @property
    def result(self) -> TrialResult:
        """Result of a finished trial."""
        assert self.record.result is not None
        return self.record.result

    @property
    def held_out(self) -> HeldOut | None:
        """Decodes its held-out probabilities; None if none are stored.

        Raises:
            ModelError: They are damaged.
        """
        record = self.record.held_out
        return None if record is None else HeldOut.decode(record, f"trial {self.number}")

    def setting(self) -> Setting:
        """Restores its setting.

        Raises:
            SettingsError: This version has no such setting.
        """
        try:
            return restore(self.record.setting)
        except SettingsError as error:
            raise SettingsError(
                f"Trial {self.number} is not of this version.", "Search again.", error.problems
            ) from error


class TrialCache:
    """Checks each finished trial once, since Optuna too reads it from the database once."""

    def __init__(self) -> None:
        self._finished: dict[int, Trial] = {}

    def get(self, frozen: FrozenTrial) -> Trial:
        """See `Trial.of`."""
        cached = self._finished.get(frozen.number)
        if cached is not None and cached.frozen is frozen:
            return cached
        trial = Trial.of(frozen)
        if trial.is_finished:
            self._finished[trial.number] = trial
        return trial
