"""Percentile intervals of the figures that probabilities are judged by.

The resamples are those of `resampling`: the same rows and seed draw the same rows there and here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .record import Interval
from .reliability import BINS, place
from .resampling import RESAMPLES, SEED, bootstrap

_AT_ONCE = 100
"""Resamples worked on together; bounds the memory."""
_SMALLEST = np.finfo(np.float64).eps
"""Probabilities are clipped to it before the logarithm, as scikit-learn does."""

Floats = NDArray[np.float64]


def intervals(
    labels: NDArray[np.int64],
    probabilities: Floats,
    names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """The interval of every figure of `metrics.probability_score`, plain values.

    Args:
        labels: True class codes, (rows,).
        probabilities: Of each class, (rows, classes), rows summing to 1.
        names: Class names by code.
        resamples: Number of resamples.
        seed: Seed of the generator.

    Returns:
        ``low`` and ``high`` by figure; ``per_class``: those of F1 and average precision by name.
        None where no resample has the figure.
    """
    drawn: dict[str, Any] = {"resamples": resamples, "seed": seed}
    found, f1 = bootstrap(labels, probabilities.argmax(1), len(names), **drawn)
    ranked, precision = probability_bootstrap(labels, probabilities, **drawn)
    return {
        **{name: _plain(interval) for name, interval in (found | ranked).items()},
        "per_class": {
            name: {"f1": _plain(f1[code]), "average_precision": _plain(precision[code])}
            for code, name in enumerate(names)
        },
    }


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else asdict(interval)


def probability_bootstrap(
    labels: NDArray[np.int64],
    probabilities: Floats,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[dict[str, Interval | None], list[Interval | None]]:
    """Intervals by resampling rows with replacement; see `resampling.bootstrap`.

    Args:
        labels: True class codes, (rows,).
        probabilities: Of each class, (rows, classes).
        resamples: Number of resamples.
        seed: Seed of the generator.

    Returns:
        Those of ``roc_auc``, ``neg_log_loss``, ``brier`` and ``calibration_error``, and that of
        every class's average precision, by class code. A resample without rows of a class, or
        with no others, does not count for what it cannot say; where none counts, None.
    """
    generator = np.random.default_rng(seed)
    rows, classes = probabilities.shape
    curves = [_Curve.of(labels == code, probabilities[:, code]) for code in range(classes)]
    sums = _summed(labels, probabilities)
    parts: list[dict[str, Floats]] = []
    for first in range(0, resamples, _AT_ONCE):
        draws = [generator.integers(0, rows, rows) for _ in range(min(_AT_ONCE, resamples - first))]
        times = np.stack([np.bincount(draw, minlength=rows) for draw in draws])
        parts.append(_figures(times, curves, sums))
    samples = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    precision = samples.pop("average_precision")
    return (
        {name: _interval(values) for name, values in samples.items()},
        [_interval(precision[:, code]) for code in range(classes)],
    )


class _Curve:
    """A class against the rest, its rows ordered by falling probability, equal ones together."""

    def __init__(self, order: NDArray[np.int64], starts: NDArray[np.int64], positive: Floats):
        self._order, self._starts, self._positive = order, starts, positive

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: Floats) -> _Curve:
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        return cls(order, starts, positive[order].astype(np.float64))

    def areas(self, times: NDArray[np.int64]) -> tuple[Floats, Floats]:
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
            precision = np.where(reached > 0, hits / np.maximum(reached, 1), 0.0)
            average = (inside * precision).sum(1) / hits[:, -1]
        mixed = (hits[:, -1] > 0) & (misses[:, -1] > 0)
        return np.where(mixed, area, np.nan), np.where(mixed, average, np.nan)


def _summed(labels: NDArray[np.int64], probabilities: Floats) -> dict[str, Floats]:
    """What each row adds to the figures that are sums over rows."""
    rows, classes = probabilities.shape
    truth = np.eye(classes)[labels]
    confidence = probabilities.max(1)
    gap = (probabilities.argmax(1) == labels) - confidence
    bins = np.zeros((rows, BINS))
    bins[np.arange(rows), place(confidence, BINS)] = gap
    likely = probabilities[np.arange(rows), labels].clip(_SMALLEST)
    return {
        "neg_log_loss": np.log(likely),
        "brier": np.square(probabilities - truth).sum(1),
        "calibration_error": bins,
    }


def _figures(
    times: NDArray[np.int64], curves: Sequence[_Curve], sums: dict[str, Floats]
) -> dict[str, Floats]:
    """Every figure of some resamples, (resamples,) or (resamples, classes)."""
    rows = times.shape[1]
    areas = [curve.areas(times) for curve in curves]
    roc = np.stack([area for area, _ in areas], 1)
    known = ~np.isnan(roc)
    total = np.where(known, roc, 0.0).sum(1)
    return {
        "roc_auc": np.divide(
            total, known.sum(1), out=np.full(len(times), np.nan), where=known.any(1)
        ),
        "average_precision": np.stack([average for _, average in areas], 1),
        "neg_log_loss": times @ sums["neg_log_loss"] / rows,
        "brier": times @ sums["brier"] / rows,
        "calibration_error": np.abs(times @ sums["calibration_error"]).sum(1) / rows,
    }


def _interval(values: Floats) -> Interval | None:
    known = values[~np.isnan(values)]
    return Interval.of(known) if len(known) else None
