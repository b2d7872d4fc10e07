"""Figures of a trained model as records: what a run's ``metrics.json`` and ``metrics.jsonl`` hold.

A record of an older version may lack optional fields and have others, which are left out.
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
    """Figures of one class (0–1)."""

    precision: Number
    recall: Number
    f1: Number
    support: Count
    """Rows of the class."""
    average_precision: Number | None = None
    """None where all rows or none are of the class."""


class Scores(Record):
    """Figures of predictions (0–1 unless noted). See `metrics.score`."""

    rows: Count
    accuracy: Number
    macro_precision: Number
    macro_recall: Number
    macro_f1: Number
    weighted_f1: Number
    """Weighted by the rows of each class; the macro figures count classes alike."""
    per_class: dict[str, ClassScores]
    """By class name, in the order of the codes."""
    confusion: list[list[Count]]
    """Rows by true and predicted class."""
    neg_log_loss: Number | None = None
    """Mean log-probability of the true class, at most 0."""
    brier: Number | None = None
    """Mean squared distance of the probabilities to the one-hot truth, 0–2."""
    calibration_error: Number | None = None
    """See `reliability.reliability_bins`."""
    roc_auc: Number | None = None
    """Each class against the rest, mean over classes; None where no class has rows and others."""

    @property
    def absent(self) -> list[str]:
        """Classes without a row, which have no part in macro figures."""
        return [name for name, of in self.per_class.items() if not of.support]

    @model_validator(mode="after")
    def _square(self) -> Self:
        count = len(self.per_class)
        if len(self.confusion) != count or any(len(row) != count for row in self.confusion):
            raise ValueError(f"expected {count} rows of {count} cells in 'confusion'")
        return self


def absent_notes(names: Sequence[str], rows: str = "judged") -> list[str]:
    """What a reader of figures must know of classes without a row.

    Args:
        names: The classes.
        rows: Of which rows.
    """
    if not names:
        return []
    said = "no figure of its own and no part in macro figures"
    if rows != "judged":
        said = "nothing was learned of it"
    return [f"no {rows} row is of the class {', '.join(map(repr, names))}: {said}"]


class MetricScores(Record):
    """A value for each of `METRICS`."""

    macro_f1: Number
    accuracy: Number
    neg_log_loss: Number

    def value(self, metric: Metric) -> float:
        """The value of one metric."""
        value: float = getattr(self, metric)
        return value


class Decision(Record):
    """What the decisions of one rule are worth on the outer rows."""

    accuracy: Number
    macro_f1: Number
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """Of both."""


class PartScores(MetricScores):
    """Calibrated scores of one outer part."""

    rows: Count


class EpochRecord(Record):
    """One epoch of one member: a line of ``metrics.jsonl``."""

    member: Ordinal = 1
    epoch: Ordinal
    loss: Number
    """Mean training loss."""
    learning_rate: Number
    """At the end of the epoch."""
    macro_f1: Number | None = None
    """Of the validation rows, as the next two; None without such rows."""
    accuracy: Number | None = None
    neg_log_loss: Number | None = None

    def value(self, metric: Metric) -> float:
        """The value of one metric; ValueError without validation rows."""
        value: float | None = getattr(self, metric)
        if value is None:
            raise ValueError(f"epoch {self.epoch} was not scored")
        return value

    def as_json(self) -> JsonObject:
        """Plain values; without validation rows there are no metrics."""
        return self.model_dump(mode="json", exclude_none=True)


class MemberRecord(Record):
    """A member of the folds: where it stopped, its metrics on its validation rows, and alone."""

    member: Integer
    """From 1, as `setting` and `part`."""
    setting: Integer = 1
    part: Integer = 1
    seed: Integer | None = None
    best_epoch: Integer
    training_rows: Count
    stopping_rows: Count
    """Validation rows."""
    macro_f1: Number
    accuracy: Number
    neg_log_loss: Number | None = None
    outer: MetricScores | None = None
    """Of this member alone, uncalibrated, on the outer rows of its part."""


class Spread(Record):
    """Mean and sample deviation of several values; a single value has deviation 0."""

    mean: Number
    deviation: Number


class ClassIntervals(Record):
    """Intervals of a class; None where no resample has the figure."""

    f1: Interval
    average_precision: Interval | None


class ScoreIntervals(Record):
    """Intervals of `Scores`; None where no resample has the figure."""

    accuracy: Interval
    macro_f1: Interval
    weighted_f1: Interval
    macro_precision: Interval
    macro_recall: Interval
    roc_auc: Interval | None = None
    neg_log_loss: Interval | None = None
    brier: Interval | None = None
    calibration_error: Interval | None = None
    """Higher than the figure by its nature: fewer different rows fill the same bins."""
    calibration_error_null: Interval | None = None
    """Of a calibrated model, see `reliability.null_errors`; None in older runs."""
    per_class: dict[str, ClassIntervals]
    """By class name, in the order of the codes."""


class Duplicates(Record):
    """Outer rows that show a post which was learned from."""

    rows: Count
    guids: list[str]


class RunFigures(Record):
    """Figures of a final model on rows that took part in no choice: ``metrics.json``."""

    outer: Scores
    outer_uncalibrated: Scores | None = None
    inner: Scores | None = None
    """Of held-out development rows, each calibrated on the other folds."""
    inner_uncalibrated: Scores | None = None
    decisions: dict[Decide, Decision] = Field(default_factory=dict)
    """Of `outer` by each decision rule; empty in older runs."""
    calibration: Calibration | None = None
    parts: list[PartScores] = Field(default_factory=list)
    spread_parts: dict[Metric, Spread] = Field(default_factory=dict)
    """Over the outer parts."""
    duplicates: Duplicates | None = None
    outer_without_duplicates: Scores | None = None
    """None where there are no other rows."""
    halves: dict[Presence, Scores] = Field(default_factory=dict)
    """Of `outer`, apart by what the rows have; none where all are whole posts."""
    members: list[MemberRecord] = Field(default_factory=list)
    spread: dict[Metric, Spread] = Field(default_factory=dict)
    """Of single members over the outer rows."""
    intervals: ScoreIntervals | None = None
    """Of `outer`."""
    training_rows: Count | None = None
    """Development rows of the first part."""
    ensembles: list[PickedEnsemble] = Field(default_factory=list)
    """How the settings of the model were picked, of all outer parts or of each; none where it is of
    one setting a study."""
    baselines: dict[str, dict[str, BaselineComparison]] = Field(default_factory=dict)
    """Of a nested choice: the searches' baselines on the outer rows, by name and metric, beside the
    model's decisions by the rule of that metric."""

    @model_validator(mode="after")
    def _of_the_same_classes(self) -> Self:
        count = len(self.outer.per_class)
        if self.calibration is not None and len(self.calibration.biases) != count:
            raise ValueError(f"expected {count} entries in 'biases' of the calibration")
        return self

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Header and rows of the outer figures with their intervals, under the fields' names."""
        found = self.intervals
        rows: list[list[object]] = [
            [name, value, getattr(found, name, None)]
            for name, value in self.outer
            if isinstance(value, float)
        ]
        rows += [
            [f"f1 of {name}", of.f1, found and found.per_class[name].f1]
            for name, of in self.outer.per_class.items()
            if of.support
        ]
        return ["outer", f"{self.outer.rows} rows", f"{LEVEL:.0%} interval"], rows

    def _repr_html_(self) -> str:
        return as_html("RunFigures", {}, *self.table())
