"""Percentile intervals of every figure of `metrics.probability_score`."""

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

    A resample without rows of a class, or with no others, does not count for what it cannot say.

    Args:
        labels: True class codes, (rows,).
        probabilities: Of each class, (rows, classes), rows summing to 1.
        names: Class names by code.
        predicted: Predicted class codes, (rows,); default: the likeliest.
        groups: Numbers of the groups that are drawn together, (rows,); default: each row alone.
        resamples: Number of resamples.
        seed: Seed of the generator.
    """
    rows, classes = probabilities.shape
    curves = [_Curve.of(labels == code, probabilities[:, code]) for code in range(classes)]
    likeliest = probabilities.argmax(1) if predicted is None else predicted
    confused = confusion_cells(labels, likeliest, classes)
    summed = _summed(labels, probabilities)
    units = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]

    def drawn(times: Floats) -> dict[str, Floats]:
        times = times[:, units]  # of each row
        confusions = (times @ confused).reshape(-1, classes, classes)
        return {
            **confusion_scores(confusions),
            "confusions": confusions,
            **_ranked(times, curves),
            **{key: ((times @ values).T / times.sum(1)).T for key, values in summed.items()},
        }

    found = resample(drawn, int(units.max()) + 1, resamples=resamples, seed=seed)
    found["calibration_error"] = np.abs(found["calibration_error"]).sum(1)
    confusions, precision = found.pop("confusions"), found.pop("average_precision")
    f1 = mask_absent_classes(class_f1(confusions), confusions)
    per_class = {
        name: ClassIntervals(
            f1=Interval.of(f1[:, code]), average_precision=_interval(precision[:, code])
        )
        for code, name in enumerate(names)
    }
    of_figures = {name: _interval(values) for name, values in found.items()}
    confidence = probabilities.max(1)
    null = null_errors(confidence, units, resamples=resamples, seed=seed)
    return ScoreIntervals.model_validate(
        {**of_figures, "calibration_error_null": Interval.of(null), "per_class": per_class}
    )


def score_decisions(
    labels: Codes,
    decided: Mapping[Decide, Codes],
    classes: int,
    *,
    groups: Codes | None = None,
) -> dict[Decide, Decision]:
    """What the decisions of each rule are worth.

    Args:
        labels: True class codes, (rows,).
        decided: Class codes by each rule, (rows,).
        classes: Number of classes.
        groups: See `score_intervals`.
    """
    found = {}
    for rule, codes in decided.items():
        values = confusion_scores(confusion(labels, codes, classes))
        drawn, _ = bootstrap(labels, codes, classes, groups=groups)
        found[rule] = Decision(
            accuracy=float(values["accuracy"]),
            macro_f1=float(values["macro_f1"]),
            intervals={key: drawn[key] for key in DECIDE},
        )
    return found


class _Curve:
    """A class against the rest, its rows ordered by falling probability, equal ones together."""

    def __init__(self, order: NDArray[np.int64], starts: NDArray[np.int64], positive: Floats):
        self._order, self._starts, self._positive = order, starts, positive

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: Floats) -> _Curve:
        order = np.argsort(-scores)
        ordered = scores[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        return cls(order, starts, positive[order].astype(float))

    def areas(self, times: Floats) -> tuple[Floats, Floats]:
        """ROC-AUC and average precision of each resample, NaN where a side has no rows."""
        drawn = times[:, self._order]
        inside = np.add.reduceat(drawn * self._positive, self._starts, axis=1)
        every = np.add.reduceat(drawn, self._starts, axis=1)
        outside = every - inside
        hits, reached = inside.cumsum(1), every.cumsum(1)
        misses = outside.cumsum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # A pair of one row of either side counts where the class has the higher probability,
            # half where both have the same (Mann and Whitney 1947).
            lost = (inside * (misses - outside / 2)).sum(1)
            area = 1 - lost / (hits[:, -1] * misses[:, -1])
            average = (inside * hits / np.maximum(reached, 1)).sum(1) / hits[:, -1]
        return area, np.where(misses[:, -1] > 0, average, np.nan)  # 0 / 0 of a side without rows


def _ranked(times: Floats, curves: Sequence[_Curve]) -> dict[str, Floats]:
    """Mean ROC-AUC of the classes, (resamples,), and each class's average precision."""
    areas = [curve.areas(times) for curve in curves]
    roc = np.stack([area for area, _ in areas], 1)
    known = ~np.isnan(roc)
    total = np.where(known, roc, 0.0).sum(1)
    return {
        "roc_auc": np.divide(
            total, known.sum(1), out=np.full(len(times), np.nan), where=known.any(1)
        ),
        "average_precision": np.stack([average for _, average in areas], 1),
    }


def _summed(labels: Codes, probabilities: Floats) -> dict[str, Floats]:
    """What each row adds to the figures that are means over rows."""
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
    known = values[~np.isnan(values)]
    return Interval.of(known) if len(known) else None
