"""Compares runs on the rows that all of them judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fuse.figures.calibration import DECIDE, Decide
from fuse.figures.confusion import Codes, Floats, class_recall, confusion, confusion_scores
from fuse.figures.metrics import score
from fuse.figures.predictions import Predictions
from fuse.figures.record import LEVEL, Interval
from fuse.figures.records import Decision, Scores
from fuse.figures.resampling import SEED, mask_absent_classes, resampled_confusions
from mmsa_cache.errors import ModelError

from .comparison import (
    ComparedRun,
    Comparison,
    DifferingRow,
    DifferingRows,
    IntervalDifference,
    PairComparison,
    RecallDifference,
)
from .significance import holm, mcnemar

RESAMPLES = 2000
"""Bootstrap resamples behind every interval of a comparison."""
COMPARED = ("accuracy", "macro_f1")
"""Metrics whose differences get an interval."""
_SHOWN = 10
"""Guids that an error names at most."""


@dataclass(frozen=True, slots=True)
class RunPredictions:
    """The predictions of one run."""

    name: str
    classes: list[str]
    """Names by the codes of the predictions."""
    predictions: Predictions


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Rows that all runs judged, paired by guid."""

    runs: list[str]
    classes: list[str]
    """Names by code, in the order of the first run."""
    guids: list[str]
    labels: NDArray[np.int64]
    """True class codes, (rows,)"""
    predicted: NDArray[np.int64]
    """Class codes by the runs' own decision rules, (runs, rows)"""
    decided: dict[Decide, NDArray[np.int64]]
    """Class codes by each decision rule, (runs, rows); empty if all runs are older ones, which have
    a single rule"""
    groups: NDArray[np.int64] | None
    """Duplicate groups, (rows,); None if no run has them"""
    left_out: list[int]
    """Rows of each run that another run did not judge."""


def pair_rows(runs: Sequence[RunPredictions]) -> SharedRows:
    """Pairs the rows of runs by guid.

    Args:
        runs: Two or more.

    Raises:
        ModelError: Their classes differ, they have no row in common, or they disagree on the tag of
            a row.
    """
    classes = runs[0].classes
    if any(set(run.classes) != set(classes) for run in runs):
        raise ModelError(
            "The runs do not tell the same classes apart.",
            "Compare runs of the same data.",
            [f"{run.name}: {', '.join(run.classes)}" for run in runs],
        )
    guids = sorted(set.intersection(*(set(run.predictions.guids) for run in runs)))
    if not guids:
        raise ModelError(
            f"No row was judged by all of {', '.join(run.name for run in runs)}.",
            "Train them with the same --outer and --seed.",
        )
    labels, predicted, groups = [], [], None
    rules = DECIDE if any(run.predictions.decided for run in runs) else ()
    decided: dict[Decide, list[NDArray[np.int64]]] = {rule: [] for rule in rules}
    for run in runs:
        row_of = {guid: row for row, guid in enumerate(run.predictions.guids)}
        rows = [row_of[guid] for guid in guids]
        code = np.array([classes.index(name) for name in run.classes], np.int64)
        labels.append(code[run.predictions.labels[rows]])
        own = run.predictions.predicted
        predicted.append(code[own[rows]])
        for rule, codes in decided.items():
            codes.append(code[run.predictions.decided.get(rule, own)[rows]])
        if groups is None and run.predictions.groups is not None:
            groups = run.predictions.groups[rows]
    tags = np.stack(labels)
    _check_tags(runs, guids, tags)
    return SharedRows(
        [run.name for run in runs],
        classes,
        guids,
        tags[0],
        np.stack(predicted),
        {rule: np.stack(codes) for rule, codes in decided.items()},
        groups,
        [len(run.predictions.guids) - len(guids) for run in runs],
    )


def _check_tags(runs: Sequence[RunPredictions], guids: Sequence[str], tags: Codes) -> None:
    """Refuses rows on whose tags, (runs, rows), the runs disagree."""
    rows = np.flatnonzero((tags != tags[0]).any(axis=0)).tolist()
    if rows:
        names = runs[0].classes
        raise ModelError(
            f"The runs do not agree on the tags of {len(rows)} row(s).",
            "Compare runs of the same data.",
            [
                f"{guids[row]}: "
                + ", ".join(
                    f"{names[code]} in {run.name}"
                    for run, code in zip(runs, tags[:, row].tolist(), strict=True)
                )
                for row in rows[:_SHOWN]
            ],
        )


def compare_rows(
    shared: SharedRows,
    *,
    groups: NDArray[np.int64] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Scores every run, and compares every pair of runs.

    All runs are resampled together, so that the interval of a difference does not contain how hard
    the drawn rows are for both. Intervals and tests contain the chance of which rows were judged,
    not that of training again with another seed.

    Args:
        shared: The rows.
        groups: See `resampled_confusions`; default: those of a run. `mcnemar` treats rows as
            independent anyway.
        resamples: Number of resamples.
        seed: Seed of the bootstrap.
    """
    groups = shared.groups if groups is None else groups
    own, *others = (
        _ResampledScores.of(shared, predicted, groups, resamples, seed)
        for predicted in (shared.predicted, *shared.decided.values())
    )
    by_rule = dict(zip(shared.decided, others, strict=True))
    scores = [score(shared.labels, row, shared.classes) for row in shared.predicted]
    return Comparison(
        rows=len(shared.guids),
        classes=shared.classes,
        resamples=resamples,
        level=LEVEL,
        drawn="rows" if groups is None else "duplicate groups",
        runs=[
            ComparedRun(
                run=name,
                rows_left_out=shared.left_out[run],
                scores=scores[run],
                intervals=own.decision(run).intervals,
                decisions={rule: resampled.decision(run) for rule, resampled in by_rule.items()},
            )
            for run, name in enumerate(shared.runs)
        ],
        pairs=_compare_pairs(shared, scores, own, by_rule),
    )


@dataclass(frozen=True, slots=True)
class _ResampledScores:
    """Scores of all runs by one decision rule, on all rows and on resamples."""

    values: dict[str, Floats]
    """(runs,)"""
    samples: dict[str, Floats]
    """(runs, resamples)"""
    recall: Floats
    """(runs, resamples, classes), NaN where a class was not drawn"""

    @classmethod
    def of(
        cls, shared: SharedRows, predicted: Codes, groups: Codes | None, resamples: int, seed: int
    ) -> _ResampledScores:
        labels, classes = shared.labels, len(shared.classes)
        drawn = resampled_confusions(
            labels, predicted, classes, groups=groups, resamples=resamples, seed=seed
        )
        whole = np.stack([confusion(labels, row, classes) for row in predicted])
        recall = mask_absent_classes(class_recall(drawn), drawn)
        return cls(confusion_scores(whole), confusion_scores(drawn), recall)

    def decision(self, run: int) -> Decision:
        values = {key: float(self.values[key][run]) for key in COMPARED}
        intervals = {key: Interval.of(self.samples[key][run]) for key in COMPARED}
        return Decision.model_validate({**values, "intervals": intervals})

    def differences(self, first: int, second: int) -> dict[str, IntervalDifference]:
        return {
            key: IntervalDifference(
                **_difference(float(self.values[key][first]), float(self.values[key][second])),
                **asdict(Interval.of(self.samples[key][second] - self.samples[key][first])),
            )
            for key in COMPARED
        }


def _compare_pairs(
    shared: SharedRows,
    scores: Sequence[Scores],
    own: _ResampledScores,
    by_rule: Mapping[Decide, _ResampledScores],
) -> list[PairComparison]:
    pairs = list(combinations(range(len(shared.runs)), 2))
    right = shared.predicted == shared.labels
    tests = [mcnemar(right[first], right[second]) for first, second in pairs]
    corrected = holm([test.p_value for test in tests])
    return [
        PairComparison(
            first=shared.runs[first],
            second=shared.runs[second],
            **own.differences(first, second),
            decisions={rule: of.differences(first, second) for rule, of in by_rule.items()},
            recall=_recall_differences(scores, own.recall, first, second),
            mcnemar=test.model_copy(update={"p_holm": p_holm}),
            differing=_differing_rows(shared, first, second),
        )
        for (first, second), test, p_holm in zip(pairs, tests, corrected, strict=True)
    ]


def _recall_differences(
    scores: Sequence[Scores], recall: Floats, first: int, second: int
) -> dict[str, RecallDifference]:
    return {
        name: RecallDifference(
            rows=own.support,
            **_difference(own.recall, scores[second].per_class[name].recall),
            intervals=(Interval.of(recall[first, :, code]), Interval.of(recall[second, :, code])),
            difference_interval=Interval.of(recall[second, :, code] - recall[first, :, code]),
        )
        for code, (name, own) in enumerate(scores[first].per_class.items())
    }


def _difference(first: float, second: float) -> dict[str, float]:
    return {"first": first, "second": second, "difference": second - first}


def _differing_rows(shared: SharedRows, first: int, second: int) -> DifferingRows:
    one, two = shared.predicted[first], shared.predicted[second]

    def rows(mask: NDArray[np.bool_]) -> list[DifferingRow]:
        return [
            DifferingRow(
                guid=shared.guids[row],
                tag=shared.classes[shared.labels[row]],
                first=shared.classes[one[row]],
                second=shared.classes[two[row]],
            )
            for row in np.flatnonzero(mask & (one != two)).tolist()
        ]

    return DifferingRows(
        only_first_right=rows(one == shared.labels),
        only_second_right=rows(two == shared.labels),
        both_wrong=rows((one != shared.labels) & (two != shared.labels)),
    )
