"""A study, as Python users read it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fuse.figures.study import Look, ParameterImportance, StudySnapshot, Value
from mmsa_cache.compose.session import Session
from mmsa_cache.data.protocol import Protocol

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class StudyTrial:
    """A trial of a study."""

    number: int
    """From 0."""
    state: str
    """``complete``, ``pruned``, ``fail``, ``running`` or ``waiting``."""
    score: float | None
    """On held-out rows, by the study's metric; of a pruned trial its value when it was pruned."""
    values: dict[str, Any]
    """What the study varies."""
    setting: dict[str, Value]
    """All fields of its `fuse.Setting`."""
    seconds: float | None
    """Of its trainings."""
    parameters: int | None
    """Trained numbers of its model."""
    failure: str
    """Why it failed."""


class Study:
    """A study of the database, as it is now: ``Study("default").best``.

    Args:
        name: Of the study.
        session: Of `open`; default: that of this folder.
        notes: What readers of its figures must know.

    Raises:
        SettingsError: There is none of that name.
    """

    def __init__(
        self, name: str, session: Session | None = None, *, notes: Sequence[str] = ()
    ) -> None:
        raise NotImplementedError

    @classmethod
    def all(cls, session: Session | None = None) -> list[Study]:
        """The studies of the database."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Its name."""
        raise NotImplementedError

    @property
    def metric(self) -> str:
        """What its trials are scored by."""
        raise NotImplementedError

    @property
    def protocol(self) -> Protocol:
        """Which rows its trials learn from and which judge."""
        raise NotImplementedError

    @functools.cached_property
    def trials(self) -> list[StudyTrial]:
        """Every trial."""
        raise NotImplementedError

    @property
    def best(self) -> StudyTrial:
        """The trial that the study's rule chooses.

        Raises:
            SettingsError: None is complete.
        """
        raise NotImplementedError

    @functools.cached_property
    def snapshot(self) -> StudySnapshot:
        """What a report shows of it: trials, importance, the best of each fusion, α and β."""
        raise NotImplementedError

    @property
    def importance(self) -> list[ParameterImportance]:
        """Share of each parameter in the variance of the scores, the largest first."""
        return self.snapshot.importance

    @property
    def judged(self) -> Look | None:
        """What the choice is worth on the outer rows; None where they were not looked at."""
        return self.snapshot.judged

    @property
    def notes(self) -> list[str]:
        """What readers of its figures must know."""
        raise NotImplementedError

    def frame(self) -> pandas.DataFrame:
        """The trials as a pandas DataFrame, a column a parameter.

        Raises:
            SettingsError: pandas is not installed.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {len(self.trials)} trials)"
