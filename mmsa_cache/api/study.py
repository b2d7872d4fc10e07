"""A study, as Python users read it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fuse.figures.records import Metric
from fuse.figures.study import Look, ParameterImportance, StudySnapshot, Value
from fuse.search.choice import selected_trial
from fuse.search.database import StoredStudy, read_studies
from fuse.search.snapshot import snapshot_of
from fuse.search.study import StudyConfig
from fuse.search.trial_record import Trial
from mmsa_cache.compose.search.studies import studies_database
from mmsa_cache.compose.session.session import Session
from mmsa_cache.config.loading import load_settings
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import unknown_name
from mmsa_cache.notebook import as_html

from . import plots
from .calls import check_texts, work_in_project
from .opening import session_or_default

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class StudyTrial:
    """A trial of a study."""

    number: int
    """From 0."""
    state: str
    """``complete``, ``pruned``, ``fail``, ``running`` or ``waiting``."""
    score: float | None
    """On held-out rows, by the study's metric; of a pruned trial its value when it was pruned."""
    values: dict[str, Value]
    """What the study varies."""
    setting: dict[str, Value]
    """All fields of its `fuse.Setting`."""
    seconds: float | None
    """Of its trainings."""
    parameters: int | None
    """Trained numbers of its model."""
    failure: str
    """Why it failed."""

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """A trial of the database."""
        result = trial.record.result
        return cls(
            number=trial.number,
            state=trial.frozen.state.name.lower(),
            score=trial.score if trial.is_finished else None,
            values=dict(trial.frozen.params),
            setting=dict(trial.record.setting),
            seconds=result.seconds if result else None,
            parameters=result.parameters if result else None,
            failure=trial.record.failure,
        )


class Study:
    """A study of the database, as it is when it is opened: ``Study("default").best``.

    Args:
        name: Of the study.
        session: Of `open`, where its settings name another database; default: this project's.
        notes: What readers of its figures must know.

    Raises:
        SettingsError: There is none of that name.
    """

    def __init__(
        self, name: str, session: Session | None = None, *, notes: Sequence[str] = ()
    ) -> None:
        check_texts(name=name)
        known = _studies(session)
        if name not in known:
            raise unknown_name("There is no study", name, known, "Search one: mmsa.search().")
        self._stored, self._study = known[name]
        self.notes = list(notes)
        """What readers of its figures must know, where it was searched just now."""

    @classmethod
    def all(cls, session: Session | None = None) -> list[Study]:
        """The studies of the database."""
        return [cls(name, session) for name in _studies(session)]

    @property
    def name(self) -> str:
        """Its name."""
        return self._stored.name

    @property
    def metric(self) -> Metric:
        """What its trials are scored by; higher is better."""
        return self._study.metric

    @property
    def protocol(self) -> Protocol:
        """Which rows its trials learn from and which judge."""
        return self._study.protocol

    @functools.cached_property
    def trials(self) -> list[StudyTrial]:
        """All trials, in the order of their numbers."""
        return [StudyTrial.of(trial) for trial in self._stored.trials]

    @property
    def best(self) -> StudyTrial:
        """The trial that the study's rule chooses.

        Raises:
            SettingsError: None is complete.
        """
        found = selected_trial(self._stored)
        if found is None:
            raise SettingsError(
                f"No trial of the study {self.name!r} is complete.", "Search on: mmsa.search()."
            )
        return StudyTrial.of(found)

    @functools.cached_property
    def snapshot(self) -> StudySnapshot:
        """What a report shows of it: trials, importance, the best of each fusion, α and β.

        Raises:
            SettingsError: See `best`.
        """
        return snapshot_of(self._stored, self._study, self.best.number)

    @property
    def importance(self) -> list[ParameterImportance]:
        """How much each parameter sets good trials apart, the first most; none of few trials."""
        return self.snapshot.importance

    @property
    def judged(self) -> Look | None:
        """What the choice is worth on the rows that judge; None where they did not yet."""
        return self.snapshot.judged

    def frame(self) -> Any:
        """The trials as a pandas DataFrame: a row a trial, a column a parameter.

        Raises:
            SettingsError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError:
            raise SettingsError("pandas is not installed.", "pip install pandas") from None
        columns = ("number", "state", "score", "seconds", "parameters")
        rows = [{key: getattr(of, key) for key in columns} | of.values for of in self.trials]
        return DataFrame(rows).set_index("number")

    def plot_history(self, ax: Axes | None = None) -> Axes:
        """Its trials and the best score so far, see `plots.plot_history`."""
        return plots.plot_history(self.snapshot, ax)

    def plot_importance(self, ax: Axes | None = None) -> Axes:
        """What matters, of ten complete trials or more, see `plots.plot_importance`."""
        return plots.plot_importance(self.importance, ax)

    def plot_alpha_beta(self, ax: Axes | None = None) -> Axes:
        """Scores over the weights of the adaptive loss, see `plots.plot_alpha_beta`."""
        return plots.plot_alpha_beta(self.snapshot.alpha_beta, ax)

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {len(self.trials)} trials)"

    def _repr_html_(self) -> str:
        states = Counter(trial.state for trial in self.trials)
        facts: dict[str, object] = {
            "trials": ", ".join(f"{count} {state}" for state, count in states.items()),
        }
        values: list[list[object]] = []
        if states["complete"]:
            best, judged = self.best, self.judged
            facts[f"trial {best.number}"] = f"{self.metric} {best.score:.3f}"
            if judged:
                facts["outer rows"] = f"{self.metric} {judged.outer_score:.3f}"
            values = [[name, value] for name, value in best.values.items()]
        header = ["parameter", "of the best trial"]
        return as_html(f"Study {self.name}", facts, header, values, self.notes)


def _studies(session: Session | None) -> dict[str, tuple[StoredStudy, StudyConfig]]:
    """The studies of the database by name, and what they search."""
    with work_in_project():
        settings = load_settings() if session is None else session_or_default(session).settings
        stored = read_studies(studies_database(settings))
    return {of.name: (of, of.record.identity.study) for of in stored if of.record.identity}
