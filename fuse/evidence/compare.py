"""Whether runs differ on the rows that all of them judged, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from fuse.figures.confusion import class_recall, figures
from fuse.figures.metrics import score
from fuse.figures.predictions import Predictions
from fuse.figures.record import LEVEL, Interval
from fuse.figures.records import Scores
from fuse.figures.resampling import SEED, resampled_confusions
from mmsa_cache.errors import ModelError

from .comparison import (
    ComparedRun,
    Comparison,
    DifferingRow,
    DifferingRows,
    IntervalDifference,
    McNemar,
    PairComparison,
    RecallDifference,
)

RESAMPLES = 2000
"""Bootstrap resamples behind every interval of a comparison."""
COMPARED = ("accuracy", "macro_f1")
"""The figures whose differences are tested for chance."""
_NAMED = 10
"""Guids that an error names."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The predictions of one run."""

    name: str
    classes: list[str]
    """Names by the codes of the predictions."""
    predictions: Predictions


@dataclass(frozen=True, slots=True)
class Shared:
    """Rows that all runs judged, by guid: the order of the files does not count."""

    runs: list[str]
    classes: list[str]
    """Names by code, in the order of the first run."""
    guids: list[str]
    labels: NDArray[np.int64]
    """True class codes, (rows,)"""
    predicted: NDArray[np.int64]
    """Class codes, (runs, rows)"""
    left_out: list[int]
    """Rows of each run that another one did not judge."""


def share(runs: Sequence[Judged]) -> Shared:
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
    labels, predicted = [], []
    for run in runs:
        place = {guid: row for row, guid in enumerate(run.predictions.guids)}
        rows = [place[guid] for guid in guids]
        code = np.array([classes.index(name) for name in run.classes], np.int64)
        labels.append(code[run.predictions.labels[rows]])
        predicted.append(code[run.predictions.predicted[rows]])
    truth = np.stack(labels)
    contradicting = np.flatnonzero((truth != truth[0]).any(axis=0)).tolist()
    if contradicting:
        raise ModelError(
            f"The runs do not agree on the tags of {len(contradicting)} row(s).",
            "Compare runs of the same data.",
            [
                f"{guids[row]}: "
                + ", ".join(
                    f"{classes[code]} in {run.name}"
                    for run, code in zip(runs, truth[:, row].tolist(), strict=True)
                )
                for row in contradicting[:_NAMED]
            ],
        )
    return Shared(
        [run.name for run in runs],
        classes,
        guids,
        truth[0],
        np.stack(predicted),
        [len(run.predictions.guids) - len(guids) for run in runs],
    )


def compare(
    shared: Shared,
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
        groups: See `resampled_confusions`. `mcnemar` takes rows as independent all the same.
        resamples: Number of resamples.
        seed: Seed of the bootstrap.
    """
    confusions = resampled_confusions(
        shared.labels,
        shared.predicted,
        len(shared.classes),
        groups=groups,
        resamples=resamples,
        seed=seed,
    )
    samples = figures(confusions) | {"recall": class_recall(confusions)}
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
                intervals={key: Interval.of(samples[key][run]) for key in COMPARED},
            )
            for run, name in enumerate(shared.runs)
        ],
        pairs=[
            _pair(shared, scores, samples, first, second, test.model_copy(update={"p_holm": p}))
            for (first, second), test, p in zip(places, tests, corrected, strict=True)
        ],
    )


def _pair(
    shared: Shared,
    scores: Sequence[Scores],
    samples: dict[str, NDArray[np.float64]],
    first: int,
    second: int,
    test: McNemar,
) -> PairComparison:
    one, two, recall = scores[first], scores[second], samples["recall"]
    differences = {
        key: IntervalDifference(
            **_change(getattr(one, key), getattr(two, key)),
            **asdict(Interval.of(samples[key][second] - samples[key][first])),
        )
        for key in COMPARED
    }
    return PairComparison(
        first=shared.runs[first],
        second=shared.runs[second],
        accuracy=differences["accuracy"],
        macro_f1=differences["macro_f1"],
        recall={
            name: RecallDifference(
                rows=of.support,
                **_change(of.recall, two.per_class[name].recall),
                intervals=(
                    Interval.of(recall[first, :, code]),
                    Interval.of(recall[second, :, code]),
                ),
                difference_interval=Interval.of(recall[second, :, code] - recall[first, :, code]),
            )
            for code, (name, of) in enumerate(one.per_class.items())
        },
        mcnemar=test,
        differing=_differing(shared, first, second),
    )


def _change(first: float, second: float) -> dict[str, float]:
    return {"first": first, "second": second, "difference": second - first}


def _differing(shared: Shared, first: int, second: int) -> DifferingRows:
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


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """Exact test of whether two runs are right equally often (McNemar 1947).

    If they are, each of the rows that only one of them gets right falls to either with
    probability ½: a two-sided binomial test.

    Args:
        first_right: Whether the first run is right, (rows,).
        second_right: The same of the second run.

    Returns:
        The p-value is 1 without such rows.
    """
    first = int((first_right & ~second_right).sum())
    second = int((second_right & ~first_right).sum())
    p_value = float(binomtest(first, first + second).pvalue) if first + second else 1.0
    return McNemar(only_first_right=first, only_second_right=second, p_value=p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the given order (Holm 1979, "A Simple Sequentially
    Rejective Multiple Test Procedure").

    The k-th smallest of m is multiplied by m − k + 1; none is below a smaller one's or above 1.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    raised = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return corrected.tolist()
