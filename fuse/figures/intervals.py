"""Percentile intervals of all scores of `metrics.probability_score`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .calibration import DECIDE, Decide
from .confusion import Codes, Floats, class_f1, confusion, confusion_scores
from .metrics import log_likelihoods
from .record import Interval
from .records import ClassIntervals, Decision, ScoreIntervals
from .reliability import BINS, bin_indices, null_errors
from .resampling import RESAMPLES, SEED, bootstrap, confusion_cells, mask_absent_classes, resample


def score_intervals(
    labels: Codes,
    probabilities: Floats,
    names: Sequence[str],
    *,
    predicted: Codes | None = None,
    groups: Codes | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> ScoreIntervals:
    """Intervals by resampling rows, or groups of them; see `resampling.resample`.

    Resamples without rows of a class, or with no others, are ignored where the score is undefined.

    Args:
        labels: True class codes, (rows,).
        probabilities: Class probabilities, (rows, classes).
        names: Class names by code.
        predicted: Predicted class codes, (rows,); default: the most probable.
        groups: Group numbers, (rows,), of rows that are drawn together; default: each alone.
        resamples: Number of resamples.
        seed: Seed of the generator.
    """
    rows, classes = probabilities.shape
    curves = [_Curve.of(labels == code, probabilities[:, code]) for code in range(classes)]
    likeliest = probabilities.argmax(1) if predicted is None else predicted
    cells = confusion_cells(labels, likeliest, classes)
    terms = _row_terms(labels, probabilities)
    units = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]

    def statistic(unit_counts: Floats) -> dict[str, Floats]:
        counts = unit_counts[:, units]
        confusions = (counts @ cells).reshape(-1, classes, classes)
        return {
            **confusion_scores(confusions),
            "confusions": confusions,
            **_ranking_scores(counts, curves),
            **{key: ((counts @ values).T / counts.sum(1)).T for key, values in terms.items()},
        }

    scores = resample(statistic, int(units.max()) + 1, resamples=resamples, seed=seed)
    scores["calibration_error"] = np.abs(scores["calibration_error"]).sum(1)
    confusions, precision = scores.pop("confusions"), scores.pop("average_precision")
    f1 = mask_absent_classes(class_f1(confusions), confusions)
    per_class = {
        name: ClassIntervals(
            f1=Interval.of(f1[:, code]), average_precision=_interval(precision[:, code])
        )
        for code, name in enumerate(names)
    }
    null = null_errors(probabilities.max(1), units, resamples=resamples, seed=seed)
    return ScoreIntervals.model_validate(
        {
            **{name: _interval(values) for name, values in scores.items()},
            "calibration_error_null": Interval.of(null),
            "per_class": per_class,
        }
    )


def score_decisions(
    labels: Codes,
    decided: Mapping[Decide, Codes],
    classes: int,
    *,
    groups: Codes | None = None,
) -> dict[Decide, Decision]:
    """Scores of the decisions of each rule.

    Args:
        labels: True class codes, (rows,).
        decided: Class codes by each rule, (rows,).
        classes: Number of classes.
        groups: See `score_intervals`.
    """
    decisions = {}
    for rule, codes in decided.items():
        scores = confusion_scores(confusion(labels, codes, classes))
        intervals, _ = bootstrap(labels, codes, classes, groups=groups)
        decisions[rule] = Decision(
            accuracy=float(scores["accuracy"]),
            macro_f1=float(scores["macro_f1"]),
            intervals={key: intervals[key] for key in DECIDE},
        )
    return decisions


class _Curve:
    """A class against the rest: rows by falling probability, grouped by equal ones."""

    def __init__(self, order: NDArray[np.int64], starts: NDArray[np.int64], positive: Floats):
        self._order, self._starts, self._positive = order, starts, positive

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: Floats) -> _Curve:
        order = np.argsort(-scores)
        ordered = scores[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        return cls(order, starts, positive[order].astype(float))

    def areas(self, counts: Floats) -> tuple[Floats, Floats]:
        """ROC-AUC and average precision of each resample; NaN if all or no rows are of the class.

        Args:
            counts: How often each row is drawn, (resamples, rows).
        """
        counts = counts[:, self._order]
        positive = np.add.reduceat(counts * self._positive, self._starts, axis=1)
        both = np.add.reduceat(counts, self._starts, axis=1)
        negative = both - positive
        true_positives, selected = positive.cumsum(1), both.cumsum(1)
        false_positives = negative.cumsum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # A pair of a positive and a negative row counts 1 if the positive one is more probable,
            # 1/2 if both are equally probable (Mann and Whitney 1947).
            lost = (positive * (false_positives - negative / 2)).sum(1)
            area = 1 - lost / (true_positives[:, -1] * false_positives[:, -1])
            average = (positive * true_positives / np.maximum(selected, 1)).sum(1)
            average = average / true_positives[:, -1]
        return area, np.where(false_positives[:, -1] > 0, average, np.nan)


def _ranking_scores(counts: Floats, curves: Sequence[_Curve]) -> dict[str, Floats]:
    """Mean ROC-AUC of the classes, (resamples,), and the average precision of each class."""
    areas, precisions = zip(*[curve.areas(counts) for curve in curves], strict=True)
    roc = np.stack(areas, 1)
    defined = ~np.isnan(roc)
    total = np.where(defined, roc, 0.0).sum(1)
    return {
        "roc_auc": np.divide(
            total, defined.sum(1), out=np.full(len(counts), np.nan), where=defined.any(1)
        ),
        "average_precision": np.stack(precisions, 1),
    }


def _row_terms(labels: Codes, probabilities: Floats) -> dict[str, Floats]:
    """The terms of each row in the scores that are means over rows."""
    rows, classes = probabilities.shape
    confidence = probabilities.max(1)
    bins = np.zeros((rows, BINS))
    bins[np.arange(rows), bin_indices(confidence)] = (
        probabilities.argmax(1) == labels
    ) - confidence
    return {
        "neg_log_loss": log_likelihoods(labels, probabilities),
        "brier": np.square(probabilities - np.eye(classes)[labels]).sum(1),
        "calibration_error": bins,
    }


def _interval(values: Floats) -> Interval | None:
    defined = values[~np.isnan(values)]
    return Interval.of(defined) if len(defined) else None
