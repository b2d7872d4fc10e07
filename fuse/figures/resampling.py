"""Bootstrap intervals: scores on resamples of the rows that judge a classifier (Efron 1979).

The training is not repeated: the intervals reflect the choice of test rows, not the seed of the
model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .confusion import Codes, Floats, class_f1, confusion_scores
from .record import Interval

RESAMPLES = 1000
"""Number of resamples of every interval in a report."""
SEED = 0
"""Seed of the bootstrap: equal rows give equal intervals."""
_AT_ONCE = 100
"""Resamples that are evaluated together; bounds the memory."""


def resample(
    statistic: Callable[..., dict[str, Floats]], *sizes: int, resamples: int, seed: int
) -> dict[str, Floats]:
    """Evaluates a statistic on resamples that are drawn with replacement.

    Each resample draws ``generator.integers(0, size, size)`` from ``numpy.random.default_rng``.

    Args:
        statistic: Computes named values, ``(some, …)``, given how often each unit of each sample
            is drawn, ``(some, size)`` each.
        sizes: Number of units (rows, or groups of rows) of each sample; samples are drawn
            independently.
        resamples: Number of resamples.
        seed: Seed of the generator.

    Returns:
        The values of all resamples, ``(resamples, …)``.
    """
    generator = np.random.default_rng(seed)

    def draw_counts(size: int, count: int) -> Floats:
        draws = [generator.integers(0, size, size) for _ in range(count)]
        return np.stack([np.bincount(draw, minlength=size) for draw in draws]).astype(np.float64)

    parts = []
    for first in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - first)
        parts.append(statistic(*[draw_counts(size, count) for size in sizes]))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def sum_by_group(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """Sums the rows of each group, (rows, …) → (groups, …), in the order of group numbers."""
    _, index = np.unique(groups, return_inverse=True)
    sums = np.zeros((index.max() + 1, *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums


def mask_absent_classes(values: Floats, confusions: Floats) -> Floats:
    """Replaces the values of classes by NaN in resamples that lack the class.

    A class that is in no resample keeps its values.

    Args:
        values: (…, resamples, classes)
        confusions: (…, resamples, classes, classes)
    """
    present = confusions.sum(axis=-1) > 0
    return np.where(present | ~present.any(axis=-2, keepdims=True), values, np.nan)


def confusion_cells(labels: Codes, predicted: Codes, classes: int) -> Floats:
    """The confusion matrix of each row alone, (rows, classes²), 0 or 1."""
    return np.eye(classes**2)[labels * classes + predicted]


def bootstrap(
    labels: Codes,
    predicted: Codes,
    classes: int,
    *,
    groups: NDArray[np.int64] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[dict[str, Interval], list[Interval]]:
    """Percentile intervals by resampling rows, or groups of them.

    Args:
        labels: True class codes, (rows,).
        predicted: Predicted class codes, (rows,).
        classes: Number of classes.
        groups: See `resampled_confusions`.
        resamples: Number of resamples.
        seed: Seed of the generator.

    Returns:
        The interval of each score of `confusion.confusion_scores`, and of the F1 of each class, by
        code.
    """
    (confusions,) = resampled_confusions(
        labels, predicted[None], classes, groups=groups, resamples=resamples, seed=seed
    )
    f1 = mask_absent_classes(class_f1(confusions), confusions)
    return (
        {name: Interval.of(values) for name, values in confusion_scores(confusions).items()},
        [Interval.of(f1[:, code]) for code in range(classes)],
    )


def resampled_confusions(
    labels: Codes,
    predicted: Codes,
    classes: int,
    *,
    resamples: int,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> Floats:
    """Confusion matrices of several classifiers on the same resamples of their rows.

    Args:
        labels: True class codes, (rows,).
        predicted: Predicted class codes, (runs, rows).
        classes: Number of classes.
        resamples: Number of resamples.
        seed: Seed of the generator.
        groups: Group numbers, (rows,), of rows that are drawn together; default: each alone.

    Returns:
        Rows by true and predicted class, (runs, resamples, classes, classes).
    """
    runs = [confusion_cells(labels, run, classes) for run in predicted]
    if groups is not None:
        runs = [sum_by_group(run, groups) for run in runs]

    def statistic(counts: Floats) -> dict[str, Floats]:
        return {"cells": np.stack([counts @ run for run in runs], axis=1)}

    cells = resample(statistic, len(runs[0]), resamples=resamples, seed=seed)["cells"]
    return cells.swapaxes(0, 1).reshape(len(runs), resamples, classes, classes)
