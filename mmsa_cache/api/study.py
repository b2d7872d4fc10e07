"""``mmsa.Study``: the results of a search."""

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
from fuse.search.snapshot import make_snapshot
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
    """On held-out rows, by the study's metric; of a pruned trial the score at that time."""
    values: dict[str, Value]
    """Parameters that the study varies."""
    setting: dict[str, Value]
    """All fields of its `fuse.Setting`."""
    seconds: float | None
    """Duration of its trainings."""
    parameters: int | None
    """Trainable parameters of its model."""
    failure: str
    """Reason for a failure, else empty."""

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
    """A snapshot of a study in the database: ``Study("default").best``.

    Args:
        name: Of the study.
        session: Of `open`, where its settings name another database; default: this project's.
        notes: Caveats of its scores.

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
        """Caveats of its scores; empty unless `search` returned it."""

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
        """Metric of the trials' scores; higher is better."""
        return self._study.metric

    @property
    def protocol(self) -> Protocol:
        """Splits, folds and seeds of its trials."""
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
        trial = selected_trial(self._stored)
        if trial is None:
            raise SettingsError(
                f"No trial of the study {self.name!r} is complete.", "Search on: mmsa.search()."
            )
        return StudyTrial.of(trial)

    @functools.cached_property
    def snapshot(self) -> StudySnapshot:
        """Trials, parameter importance, best score by fusion, and scores by α and β.

        Raises:
            SettingsError: See `best`.
        """
        return make_snapshot(self._stored, self._study, self.best.number)

    @property
    def importance(self) -> list[ParameterImportance]:
        """Importance of each parameter, highest first; empty with few trials."""
        return self.snapshot.importance

    @property
    def judged(self) -> Look | None:
        """The chosen trial's score on the outer rows; None before they were used."""
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
        rows = [{key: getattr(t, key) for key in columns} | t.values for t in self.trials]
        return DataFrame(rows).set_index("number")

    def plot_history(self, ax: Axes | None = None) -> Axes:
        """Scores of the trials and the best so far, see `plots.plot_history`."""
        return plots.plot_history(self.snapshot, ax)

    def plot_importance(self, ax: Axes | None = None) -> Axes:
        """Parameter importance, from ten complete trials on, see `plots.plot_importance`."""
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
    """The studies of the database with their definitions, by name."""
    with work_in_project():
        settings = load_settings() if session is None else session_or_default(session).settings
        stored = read_studies(studies_database(settings))
    return {of.name: (of, of.record.identity.study) for of in stored if of.record.identity}
