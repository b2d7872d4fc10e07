"""What a comparison of runs found, as records."""

from __future__ import annotations

from pydantic import Field

from fuse.figures.calibration import Decide
from fuse.figures.record import Count, Interval, Number, Record
from fuse.figures.records import Decision, Scores
from mmsa_cache.json_value import JsonObject


class Difference(Record):
    """A figure of two runs."""

    first: Number
    second: Number
    difference: Number
    """Second − first."""


class IntervalDifference(Difference):
    """With the interval of the difference over resamples of the rows that both judged."""

    low: Number
    high: Number

    @property
    def interval(self) -> Interval:
        """That of the difference."""
        return Interval(self.low, self.high)


class RecallDifference(Difference):
    """Recall of a class; its intervals are only drawn."""

    rows: Count
    intervals: tuple[Interval, Interval] = Field(exclude=True)
    difference_interval: Interval = Field(exclude=True)


class McNemar(Record):
    """See `compare.mcnemar`."""

    only_first_right: Count
    only_second_right: Count
    p_value: Number
    p_holm: Number | None = None
    """Corrected for the number of pairs of runs, see `compare.holm`."""


class DifferingRow(Record):
    """A row on which two runs differ, by class names."""

    guid: str
    tag: str
    first: str
    second: str


class DifferingRows(Record):
    """The rows on which two runs differ, by who is right."""

    only_first_right: list[DifferingRow]
    only_second_right: list[DifferingRow]
    both_wrong: list[DifferingRow]


class PairComparison(Record):
    """Two runs."""

    first: str
    second: str
    accuracy: IntervalDifference
    macro_f1: IntervalDifference
    decisions: dict[Decide, dict[str, IntervalDifference]] = Field(default_factory=dict)
    """Accuracy and macro-F1 by each decision rule; the others are by the runs' own rules."""
    recall: dict[str, RecallDifference]
    """By class."""
    mcnemar: McNemar
    differing: DifferingRows


class ComparedRun(Record):
    """One run."""

    run: str
    rows_left_out: Count
    """Rows that another run did not judge."""
    scores: Scores
    intervals: dict[str, Interval]
    """Of accuracy and macro-F1."""
    decisions: dict[Decide, Decision] = Field(default_factory=dict)
    """By each decision rule."""

    def as_json(self) -> JsonObject:
        """The scores beside the other values."""
        values = super().as_json()
        del values["scores"]
        return values | self.scores.as_json()


class Comparison(Record):
    """Figures of every run, and of every pair of runs whether and where they differ."""

    rows: Count
    classes: list[str]
    resamples: Count
    level: Number
    """Share of the resamples that an interval spans."""
    drawn: str
    """What was resampled: ``rows`` or ``duplicate groups``."""
    runs: list[ComparedRun]
    pairs: list[PairComparison]

    def as_json(self) -> JsonObject:
        """Plain values."""
        return {**super().as_json(), "runs": [run.as_json() for run in self.runs]}
