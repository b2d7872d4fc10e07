"""Whether runs differ on the rows that all of them judged, and where."""

from __future__ import annotations

from collections.abc import Sequence
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
"""The figures whose differences are tested for chance."""
_NAMED = 10
"""Guids that an error names."""


@dataclass(frozen=True, slots=True)
class RunPredictions:
    """The predictions of one run."""

    name: str
    classes: list[str]
    """Names by the codes of the predictions."""
    predictions: Predictions


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Rows that all runs judged, by guid: the order of the files does not count."""

    runs: list[str]
    classes: list[str]
    """Names by code, in the order of the first run."""
    guids: list[str]
    labels: NDArray[np.int64]
    """True class codes, (rows,)"""
    predicted: NDArray[np.int64]
    """Class codes by the runs' own decision rules, (runs, rows)"""
    decided: dict[Decide, NDArray[np.int64]]
    """Class codes by each decision rule, (runs, rows); empty where all runs are older ones, which
    have one"""
    groups: NDArray[np.int64] | None
    """Numbers of the duplicate groups, (rows,); None where no run tells them"""
    left_out: list[int]
    """Rows of each run that another one did not judge."""


def share(runs: Sequence[RunPredictions]) -> SharedRows:
    """Pairs the rows of runs.

    Args:
        runs: Two or more.

    Raises:
        ModelError: Their classes are not the same, they have no row in common, or a row has one
            tag here and another one there.
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
        place = {guid: row for row, guid in enumerate(run.predictions.guids)}
        rows = [place[guid] for guid in guids]
        code = np.array([classes.index(name) for name in run.classes], np.int64)
        labels.append(code[run.predictions.labels[rows]])
        own = run.predictions.predicted
        predicted.append(code[own[rows]])
        for rule, found in decided.items():
            found.append(code[run.predictions.decided.get(rule, own)[rows]])
        if groups is None and run.predictions.groups is not None:
            groups = run.predictions.groups[rows]
    truth = np.stack(labels)
    _check_tags(runs, guids, truth)
    return SharedRows(
        [run.name for run in runs],
        classes,
        guids,
        truth[0],
        np.stack(predicted),
        {rule: np.stack(found) for rule, found in decided.items()},
        groups,
        [len(run.predictions.guids) - len(guids) for run in runs],
    )


def _check_tags(runs: Sequence[RunPredictions], guids: Sequence[str], truth: Codes) -> None:
    contradicting = np.flatnonzero((truth != truth[0]).any(axis=0)).tolist()
    if contradicting:
        classes = runs[0].classes
        tags = (
            [f"{classes[code]} in {run.name}" for run, code in zip(runs, codes, strict=True)]
            for codes in truth.T[contradicting[:_NAMED]].tolist()
        )
        raise ModelError(
            f"The runs do not agree on the tags of {len(contradicting)} row(s).",
            "Compare runs of the same data.",
            [
                f"{guids[row]}: {', '.join(of)}"
                for row, of in zip(contradicting, tags, strict=False)
            ],
        )


def compare(
    shared: SharedRows,
    *,
    groups: NDArray[np.int64] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Figures of every run, and of every pair of runs whether and where they differ.

    All runs are resampled together, so an interval of a difference leaves out what both runs have
    in common: how hard the drawn rows are. Intervals and tests hold the chance of which rows were
    judged, not that of training again with another seed.

    Args:
        shared: The rows.
        groups: See `resampled_confusions`; default: those that a run tells. `mcnemar` takes rows as
            independent all the same.
        resamples: Number of resamples.
        seed: Seed of the bootstrap.
    """
    groups = shared.groups if groups is None else groups

    def resampled(predicted: Codes) -> _Figures:
        labels, classes = shared.labels, len(shared.classes)
        drawn = resampled_confusions(
            labels, predicted, classes, groups=groups, resamples=resamples, seed=seed
        )
        whole = np.stack([confusion(labels, row, classes) for row in predicted])
        recall = mask_absent_classes(class_recall(drawn), drawn)
        return _Figures(confusion_scores(whole), confusion_scores(drawn), recall)

    own = resampled(shared.predicted)
    rules = {rule: resampled(predicted) for rule, predicted in shared.decided.items()}
    scores = [score(shared.labels, row, shared.classes) for row in shared.predicted]
    places = list(combinations(range(len(shared.runs)), 2))
    right = shared.predicted == shared.labels
    tests = [mcnemar(right[first], right[second]) for first, second in places]
    corrected = holm([test.p_value for test in tests])
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
                decisions={rule: of.decision(run) for rule, of in rules.items()},
            )
            for run, name in enumerate(shared.runs)
        ],
        pairs=[
            PairComparison(
                first=shared.runs[first],
                second=shared.runs[second],
                **own.differences(first, second),
                decisions={rule: of.differences(first, second) for rule, of in rules.items()},
                recall=_recalls(scores, own.recall, first, second),
                mcnemar=test.model_copy(update={"p_holm": p}),
                differing=_differing(shared, first, second),
            )
            for (first, second), test, p in zip(places, tests, corrected, strict=True)
        ],
    )


@dataclass(frozen=True, slots=True)
class _Figures:
    """Figures of all runs by some decisions."""

    values: dict[str, Floats]
    """(runs,)"""
    samples: dict[str, Floats]
    """(runs, resamples)"""
    recall: Floats
    """(runs, resamples, classes), NaN where a class was not drawn"""

    def decision(self, run: int) -> Decision:
        values = {key: float(self.values[key][run]) for key in COMPARED}
        intervals = {key: Interval.of(self.samples[key][run]) for key in COMPARED}
        return Decision.model_validate({**values, "intervals": intervals})

    def differences(self, first: int, second: int) -> dict[str, IntervalDifference]:
        return {
            key: IntervalDifference(
                **_change(float(self.values[key][first]), float(self.values[key][second])),
                **asdict(Interval.of(self.samples[key][second] - self.samples[key][first])),
            )
            for key in COMPARED
        }


def _recalls(
    scores: Sequence[Scores], recall: Floats, first: int, second: int
) -> dict[str, RecallDifference]:
    one, two = scores[first], scores[second]
    return {
        name: RecallDifference(
            rows=of.support,
            **_change(of.recall, two.per_class[name].recall),
            intervals=(Interval.of(recall[first, :, code]), Interval.of(recall[second, :, code])),
            difference_interval=Interval.of(recall[second, :, code] - recall[first, :, code]),
        )
        for code, (name, of) in enumerate(one.per_class.items())
    }


def _change(first: float, second: float) -> dict[str, float]:
    return {"first": first, "second": second, "difference": second - first}


def _differing(shared: SharedRows, first: int, second: int) -> DifferingRows:
    one, two = shared.predicted[first], shared.predicted[second]

    def rows(chosen: NDArray[np.bool_]) -> list[DifferingRow]:
        return [
            DifferingRow(
                guid=shared.guids[row],
                tag=shared.classes[shared.labels[row]],
                first=shared.classes[one[row]],
                second=shared.classes[two[row]],
            )
            for row in np.flatnonzero(chosen & (one != two)).tolist()
        ]

    return DifferingRows(
        only_first_right=rows(one == shared.labels),
        only_second_right=rows(two == shared.labels),
        both_wrong=rows((one != shared.labels) & (two != shared.labels)),
    )
