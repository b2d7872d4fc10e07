"""Records of a comparison of runs."""

from __future__ import annotations

from pydantic import Field

from fuse.figures.calibration import Decide
from fuse.figures.record import Count, Interval, Number, Record
from fuse.figures.records import Decision, Scores
from mmsa_cache.json_value import JsonObject


class Difference(Record):
    """A metric of two runs."""

    first: Number
    second: Number
    difference: Number
    """Second − first."""


class IntervalDifference(Difference):
    """A difference with its interval over resamples of the rows that both runs judged."""

    low: Number
    high: Number

    @property
    def interval(self) -> Interval:
        """Interval of the difference."""
        return Interval(self.low, self.high)


class RecallDifference(Difference):
    """Recall of a class. Its intervals are drawn in charts, not written."""

    rows: Count
    intervals: tuple[Interval, Interval] = Field(exclude=True)
    difference_interval: Interval = Field(exclude=True)


class McNemar(Record):
    """See `significance.mcnemar`."""

    only_first_right: Count
    only_second_right: Count
    p_value: Number
    p_holm: Number | None = None
    """Corrected for the number of pairs of runs, see `significance.holm`."""


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
    """The comparison of two runs."""

    first: str
    second: str
    accuracy: IntervalDifference
    macro_f1: IntervalDifference
    decisions: dict[Decide, dict[str, IntervalDifference]] = Field(default_factory=dict)
    """Accuracy and macro-F1 by each decision rule; all other values are by the runs' own rules."""
    recall: dict[str, RecallDifference]
    """By class."""
    mcnemar: McNemar
    differing: DifferingRows


class ComparedRun(Record):
    """Scores of one run on the shared rows."""

    run: str
    rows_left_out: Count
    """Rows that another run did not judge."""
    scores: Scores
    intervals: dict[str, Interval]
    """Of accuracy and macro-F1."""
    decisions: dict[Decide, Decision] = Field(default_factory=dict)
    """By each decision rule."""

    def as_json(self) -> JsonObject:
        """Plain values, the scores at the top level."""
        values = super().as_json()
        del values["scores"]
        return values | self.scores.as_json()


class Comparison(Record):
    """Scores of every run, and a comparison of every pair of runs."""

    rows: Count
    classes: list[str]
    resamples: Count
    level: Number
    """Share of the resamples that an interval covers."""
    drawn: str
    """What was resampled: ``rows`` or ``duplicate groups``."""
    runs: list[ComparedRun]
    pairs: list[PairComparison]

    def as_json(self) -> JsonObject:
        """Plain values."""
        return {**super().as_json(), "runs": [run.as_json() for run in self.runs]}
