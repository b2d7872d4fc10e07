"""Records of a trained model's figures, as in ``metrics.json`` and ``metrics.jsonl`` of a run.

Records of older versions may lack optional fields; fields that are gone are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from mmsa_cache.json_value import JsonObject
from mmsa_cache.notebook import as_html

from .calibration import Calibration, Decide
from .halves import Presence
from .record import LEVEL, Count, Integer, Interval, Number, Ordinal, Record
from .record import METRICS as METRICS  # where others find them
from .record import Metric as Metric
from .study import BaselineComparison, PickedEnsemble


class ClassScores(Record):
    """Scores of one class (0–1)."""

    precision: Number
    recall: Number
    f1: Number
    support: Count
    """Rows of the class."""
    average_precision: Number | None = None
    """None if all rows or none are of the class."""


class Scores(Record):
    """Scores of predictions (0–1 unless noted), see `metrics.score`."""

    rows: Count
    accuracy: Number
    macro_precision: Number
    macro_recall: Number
    macro_f1: Number
    weighted_f1: Number
    """Weighted by the rows of each class; macro scores weight classes equally."""
    per_class: dict[str, ClassScores]
    """By class name, in the order of the codes."""
    confusion: list[list[Count]]
    """Rows by true and predicted class."""
    neg_log_loss: Number | None = None
    """Mean log-probability of the true class, at most 0."""
    brier: Number | None = None
    """Mean squared distance of the probabilities to the one-hot labels, 0–2."""
    calibration_error: Number | None = None
    """See `reliability.reliability_bins`."""
    roc_auc: Number | None = None
    """Each class against the rest, mean over classes; None if all rows are of one class."""

    @property
    def absent(self) -> list[str]:
        """Classes without rows, which are left out of macro scores."""
        return [name for name, scores in self.per_class.items() if not scores.support]

    @model_validator(mode="after")
    def _square(self) -> Self:
        count = len(self.per_class)
        if len(self.confusion) != count or any(len(row) != count for row in self.confusion):
            raise ValueError(f"expected {count} rows of {count} cells in 'confusion'")
        return self


def absent_notes(names: Sequence[str], rows: str = "judged") -> list[str]:
    """Notes on classes without rows.

    Args:
        names: The classes.
        rows: The kind of rows.
    """
    if not names:
        return []
    effect = "no figure of its own and no part in macro figures"
    if rows != "judged":
        effect = "nothing was learned of it"
    return [f"no {rows} row is of the class {', '.join(map(repr, names))}: {effect}"]


class MetricScores(Record):
    """A value of each of `METRICS`."""

    macro_f1: Number
    accuracy: Number
    neg_log_loss: Number

    def value(self, metric: Metric) -> float:
        """The value of one metric."""
        value: float = getattr(self, metric)
        return value


class Decision(Record):
    """Scores of the decisions of one rule on the outer rows."""

    accuracy: Number
    macro_f1: Number
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """Intervals of both."""


class CalibrationFigures(Record):
    """How well probabilities fit some rows."""

    neg_log_loss: Number
    calibration_error: Number


class PartScores(MetricScores):
    """Scores of one outer part, calibrated."""

    rows: Count
    calibration_error: Number | None = None
    """None in older runs."""
    uncalibrated: CalibrationFigures | None = None
    """The same without calibration; None in older runs."""


class EpochRecord(Record):
    """One epoch of one member: a line of ``metrics.jsonl``."""

    member: Ordinal = 1
    epoch: Ordinal
    loss: Number
    """Mean training loss."""
    learning_rate: Number
    """At the end of the epoch."""
    macro_f1: Number | None = None
    """On the validation rows, like the next two; None without such rows."""
    accuracy: Number | None = None
    neg_log_loss: Number | None = None

    def value(self, metric: Metric) -> float:
        """The value of one metric; ValueError without validation rows."""
        value: float | None = getattr(self, metric)
        if value is None:
            raise ValueError(f"epoch {self.epoch} was not scored")
        return value

    def as_json(self) -> JsonObject:
        """JSON values; without metrics if there are no validation rows."""
        return self.model_dump(mode="json", exclude_none=True)


class MemberRecord(Record):
    """A member that was trained without a fold, and its metrics on its validation rows."""

    member: Integer
    """Number from 1, like `setting` and `part`."""
    setting: Integer = 1
    part: Integer = 1
    seed: Integer | None = None
    best_epoch: Integer
    training_rows: Count
    stopping_rows: Count
    """Number of validation rows."""
    macro_f1: Number
    accuracy: Number
    neg_log_loss: Number | None = None
    outer: MetricScores | None = None
    """Of this member, uncalibrated, on the outer rows of its part."""


class Spread(Record):
    """Mean and sample deviation of several values; a single value has deviation 0."""

    mean: Number
    deviation: Number


class ClassIntervals(Record):
    """Intervals of the scores of a class; None if undefined in all resamples."""

    f1: Interval
    average_precision: Interval | None


class ScoreIntervals(Record):
    """Intervals of `Scores`; None if undefined in all resamples."""

    accuracy: Interval
    macro_f1: Interval
    weighted_f1: Interval
    macro_precision: Interval
    macro_recall: Interval
    roc_auc: Interval | None = None
    neg_log_loss: Interval | None = None
    brier: Interval | None = None
    calibration_error: Interval | None = None
    """Usually above the error itself, as fewer distinct rows fill the same bins."""
    calibration_error_null: Interval | None = None
    """Of a perfectly calibrated model, see `reliability.null_errors`; None in older runs."""
    per_class: dict[str, ClassIntervals]
    """By class name, in the order of the codes."""


class Duplicates(Record):
    """Outer rows of posts that have a duplicate among the development rows."""

    rows: Count
    guids: list[str]


class RunFigures(Record):
    """Figures of a final model on rows that took part in no choice: ``metrics.json``."""

    outer: Scores
    outer_uncalibrated: Scores | None = None
    inner: Scores | None = None
    """On held-out development rows, each calibrated on the other folds."""
    inner_uncalibrated: Scores | None = None
    decisions: dict[Decide, Decision] = Field(default_factory=dict)
    """Of `outer` by each decision rule; empty in older runs."""
    calibration: Calibration | None = None
    parts: list[PartScores] = Field(default_factory=list)
    spread_parts: dict[Metric, Spread] = Field(default_factory=dict)
    """Over the outer parts."""
    duplicates: Duplicates | None = None
    outer_without_duplicates: Scores | None = None
    """None if all outer rows are duplicates."""
    halves: dict[Presence, Scores] = Field(default_factory=dict)
    """Scores of the outer rows by what their posts have; empty if all are whole."""
    members: list[MemberRecord] = Field(default_factory=list)
    spread: dict[Metric, Spread] = Field(default_factory=dict)
    """Over single members, on the outer rows."""
    intervals: ScoreIntervals | None = None
    """Of `outer`."""
    training_rows: Count | None = None
    """Development rows of the first part."""
    ensembles: list[PickedEnsemble] = Field(default_factory=list)
    """How the settings of the model were chosen, for all outer parts or for each; empty if it has
    one setting a study."""
    baselines: dict[str, dict[str, BaselineComparison]] = Field(default_factory=dict)
    """In a nested choice: the searches' baselines on the outer rows, by name and metric, compared
    with the model's decisions by the rule of that metric."""

    @model_validator(mode="after")
    def _of_the_same_classes(self) -> Self:
        count = len(self.outer.per_class)
        if self.calibration is not None and len(self.calibration.biases) != count:
            raise ValueError(f"expected {count} entries in 'biases' of the calibration")
        return self

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Header and rows of the outer scores with their intervals, by the names of the fields."""
        intervals = self.intervals
        rows: list[list[object]] = [
            [name, value, getattr(intervals, name, None)]
            for name, value in self.outer
            if isinstance(value, float)
        ]
        rows += [
            [f"f1 of {name}", scores.f1, intervals and intervals.per_class[name].f1]
            for name, scores in self.outer.per_class.items()
            if scores.support
        ]
        return ["outer", f"{self.outer.rows} rows", f"{LEVEL:.0%} interval"], rows

    def _repr_html_(self) -> str:
        return as_html("RunFigures", {}, *self.table())
