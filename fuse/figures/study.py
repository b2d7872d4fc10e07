"""What a study found, as records: parts of a search's result and of a run's ``studies.json``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .record import Count, Integer, Interval, Number, Record

Value = bool | int | float | str | None
"""Of a setting's field."""


class EndedTrial(Record):
    """A trial that has ended."""

    number: Count
    state: Literal["complete", "pruned", "fail"]
    score: Number | None
    """Of a pruned trial its value when it was pruned; None of a failed one."""


class FailedTrial(Record):
    """A trial that could not be trained, and why."""

    trial: Count
    reason: str


class ParameterImportance(Record):
    """See `fuse.search.importance.importances`: shares of all parameters sum to 1."""

    parameter: str
    median: Number
    low: Number
    """5 % over resampled trials, `high` 95 %."""
    high: Number
    trials: Count
    """Complete trials that have the parameter."""
    pruned: Count = 0
    """Trials with it that were given up and have no part, which makes the others survivors."""


class BestOfValue(Record):
    """The best complete trial among those with one value of a field."""

    value: Value
    trials: Count
    """Complete and pruned trials with this value."""
    complete: Count
    trial: Count
    score: Number
    setting: dict[str, Value] | None = None


class LossWeights(Record):
    """Scores of the complete trials at one point of the adaptive loss's weights."""

    alpha: Number
    beta: Number
    trials: Annotated[Count, Field(ge=1)]
    mean: Number
    """Of survivors, where trials were given up: too good, and not equally so at every point."""
    best: Number
    pruned: Count = 0
    """Trials at this point that were given up and have no part."""


class OptimismGap(Record):
    """How much better a choice looked inside than it is outside."""

    inner_score: Number
    """Mean over units of the score on the rows that a model did not see."""
    outer_score: Number
    """Mean over the same models of the score on the outer rows."""
    outer_score_together: Number
    """Score on the outer rows of these models' averaged probabilities."""
    optimism_gap: Number
    """Inner less outer score."""
    optimism_interval: tuple[Number, Number]
    """95 % of the gap, from resampled posts."""


class BaselineComparison(Record):
    """A metric of a baseline and of a study's choice on the same rows."""

    baseline: Number
    choice: Number
    interval: Interval
    """Of the choice less the baseline, paired; duplicate groups are resampled together."""


class BaselineScores(Record):
    """A classical model beside a study's choice, see `fuse.search.baselines`."""

    name: str
    held_out: dict[str, BaselineComparison]
    """On the development rows, by models that did not learn from them. The choice was chosen there:
    of many trials the best looks better than it is."""
    outer: dict[str, BaselineComparison]
    """On the outer rows, by the averages of the folds' models."""


class Look(OptimismGap):
    """One judgement of a choice on the outer rows."""

    trial: Count
    finished: Count = 0
    """Finished trials of the study at that time."""
    baselines: list[BaselineScores] = Field(default_factory=list)


class StudySnapshot(Record):
    """A study at the time when its trial was trained as a run: an entry of ``studies.json``."""

    name: str
    metric: str
    trial: Integer
    """The one that was trained."""
    trials: list[EndedTrial]
    importance: list[ParameterImportance]
    by_fusion: list[BestOfValue]
    alpha_beta: list[LossWeights]
    judged: Look | None = None
    """Of this trial; None where no search chose it."""


ENSEMBLE = "ensemble"
"""How trials are chosen that an ensemble is of."""


class StudySource(Record):
    """Where a trained setting comes from."""

    name: str
    """The study."""
    trial: Count | None
    """None where the study is one setting that needs no search; of an ensemble the heaviest one."""
    score: Number | None
    units: list[Number] = Field(default_factory=list)
    """Scores of the trainings that make `score`."""
    how: str = ""
    """Rule of the choice: ``best``, ``one-se``, `ENSEMBLE`, or ``named`` by the user."""
    finished: Count = 0
    """Finished trials of the study at that time."""
    storage: str = ""
    """Address of its database, without a password."""


class NestedGain(Record):
    """A metric of an ensemble and of the best single trial, on rows that chose neither."""

    single: Number
    ensemble: Number
    interval: Interval
    """Of the difference, paired; duplicate groups are resampled together."""

    @property
    def gain(self) -> float:
        """Ensemble less single trial."""
        return self.ensemble - self.single


class PickedTrial(Record):
    """A member of an ensemble."""

    study: str
    trial: Count
    score: Number
    weight: Number
    """Weights of all members sum to 1."""


class PickedEnsemble(Record):
    """The ensemble that was picked on the held-out predictions of studies."""

    members: list[PickedTrial]
    """The heaviest first."""
    trials: Count
    """Complete trials it was picked from."""
    rows: Count
    """Held-out rows."""
    gain: dict[str, NestedGain]
    """By metric, see `fuse.figures.records.METRICS` and `fuse.search.greedy.nested_gain`."""
    part: Count | None = None
    """Outer part that it is of, from 1; None: of all."""
