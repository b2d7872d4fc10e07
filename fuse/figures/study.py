"""Records of a study's results: parts of a search's result and of ``studies.json`` of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .record import Count, Integer, Interval, Number, Record

Value = bool | int | float | str | None
"""A value of a setting's field."""


class EndedTrial(Record):
    """A trial that has ended."""

    number: Count
    state: Literal["complete", "pruned", "fail"]
    score: Number | None
    """The last value of a pruned trial; None for a failed one."""


class FailedTrial(Record):
    """A trial that could not be trained, and why."""

    trial: Count
    reason: str


class ParameterImportance(Record):
    """Importance of a parameter; shares of all sum to 1. See `fuse.search.importance`."""

    parameter: str
    median: Number
    low: Number
    """The 5 % quantile over resampled trials; `high` is the 95 % quantile."""
    high: Number
    trials: Count
    """Complete trials that have the parameter."""
    pruned: Count = 0
    """Pruned trials with the parameter, which are left out."""


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
    """Scores of the complete trials with one pair of weights of the adaptive loss."""

    alpha: Number
    beta: Number
    trials: Annotated[Count, Field(ge=1)]
    mean: Number
    """Of trials that were not pruned; biased upwards where others were."""
    best: Number
    pruned: Count = 0
    """Pruned trials with these weights, which are left out."""


class OptimismGap(Record):
    """The score of a choice on held-out rows and on outer rows."""

    inner_score: Number
    """Mean score of the models on the rows that each did not see."""
    outer_score: Number
    """Mean score of the same models on the outer rows."""
    outer_score_together: Number
    """Score of the models' average probabilities on the outer rows."""
    optimism_gap: Number
    """Inner minus outer score."""
    optimism_interval: tuple[Number, Number]
    """95 % interval of the gap, from resampled posts."""


class BaselineComparison(Record):
    """A metric of a baseline and of a study's choice, on the same rows."""

    baseline: Number
    choice: Number
    interval: Interval
    """Of choice minus baseline, paired; duplicate groups are resampled together."""


class BaselineScores(Record):
    """A classical model compared with a study's choice, see `fuse.search.baselines`."""

    name: str
    held_out: dict[str, BaselineComparison]
    """On held-out development rows. The choice was made there, which favours it."""
    outer: dict[str, BaselineComparison]
    """On the outer rows, with the averages of the folds' models."""


class Look(OptimismGap):
    """One evaluation of a choice on the outer rows."""

    trial: Count
    finished: Count = 0
    """Finished trials of the study at that time."""
    baselines: list[BaselineScores] = Field(default_factory=list)


class StudySnapshot(Record):
    """A study when one of its trials was trained as a run: an entry of ``studies.json``."""

    name: str
    metric: str
    trial: Integer
    """The trial that was trained."""
    trials: list[EndedTrial]
    importance: list[ParameterImportance]
    by_fusion: list[BestOfValue]
    alpha_beta: list[LossWeights]
    judged: Look | None = None
    """Evaluation of this trial; None if no search chose it."""


ENSEMBLE = "ensemble"
"""Rule by which the trials of an ensemble are chosen."""


class StudySource(Record):
    """The study that a trained setting comes from."""

    name: str
    """The study."""
    trial: Count | None
    """None if the study is one setting; in an ensemble the trial with the largest weight."""
    score: Number | None
    units: list[Number] = Field(default_factory=list)
    """Scores of the trainings whose mean is `score`."""
    how: str = ""
    """Rule of the choice: ``best``, ``one-se``, `ENSEMBLE`, or ``named`` by the user."""
    finished: Count = 0
    """Finished trials of the study at that time."""
    storage: str = ""
    """Address of its database, without a password."""


class NestedGain(Record):
    """A metric of an ensemble and of the best single trial, on rows that neither was chosen on."""

    single: Number
    ensemble: Number
    interval: Interval
    """Of the difference, paired; duplicate groups are resampled together."""

    @property
    def gain(self) -> float:
        """Ensemble minus single trial."""
        return self.ensemble - self.single


class PickedTrial(Record):
    """A member of an ensemble."""

    study: str
    trial: Count
    score: Number
    weight: Number
    """Weights of all members sum to 1."""


class PickedEnsemble(Record):
    """The ensemble that was chosen on the held-out predictions of studies."""

    members: list[PickedTrial]
    """By falling weight."""
    trials: Count
    """Complete trials that it was chosen from."""
    rows: Count
    """Number of held-out rows."""
    gain: dict[str, NestedGain]
    """By metric, see `fuse.figures.records.METRICS` and `fuse.search.greedy.nested_gain`."""
    part: Count | None = None
    """Its outer part, from 1; None: all parts."""
