"""Percentile intervals of classifiers' figures, by resampling the rows that judged them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .record import Interval

RESAMPLES = 1000
"""Bootstrap resamples behind every interval of a report."""
SEED = 0
"""Seed of the bootstrap, so that the same rows give the same intervals."""


def bootstrap(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    classes: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[dict[str, Interval], list[Interval]]:
    """Percentile intervals by resampling rows with replacement (Efron 1979).

    The interval spans the central `record.LEVEL` of the resamples (``numpy.quantile``, linear).
    The training is not repeated: the intervals hold the chance of the test rows, not that of the
    model's seed.

    Args:
        labels: True class codes, (rows,).
        predicted: Predicted class codes, (rows,).
        classes: Number of classes.
        resamples: Number of resamples.
        seed: Seed of the generator.

    Returns:
        The interval of each of `figures`, and the interval of every class's F1, by class code.
    """
    confusion = resampled_confusions(
        labels, predicted[None], classes, resamples=resamples, seed=seed
    )[0]
    f1 = class_f1(confusion)
    return (
        {name: Interval.of(values) for name, values in figures(confusion).items()},
        [Interval.of(f1[:, code]) for code in range(classes)],
    )


def resampled_confusions(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    classes: int,
    *,
    resamples: int,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Confusion matrices of several classifiers on the same resamples of their rows.

    Each resample draws ``generator.integers(0, groups, groups)`` from ``numpy.random.default_rng``.

    Args:
        labels: True class codes, (rows,).
        predicted: Predicted class codes, (runs, rows).
        classes: Number of classes.
        resamples: Number of resamples.
        seed: Seed of the generator.
        groups: Numbers from 0, (rows,), of rows that are drawn together; default: each alone.

    Returns:
        Rows by true and predicted class, (runs, resamples, classes, classes).
    """
    generator = np.random.default_rng(seed)
    groups = np.arange(len(labels)) if groups is None else groups
    count = int(groups.max()) + 1
    cells = labels * classes + predicted
    found = np.empty((len(cells), resamples, classes**2), np.int64)
    for turn in range(resamples):
        times = np.bincount(generator.integers(0, count, count), minlength=count)[groups]
        for run, row in enumerate(cells):
            found[run, turn] = np.bincount(row, weights=times, minlength=classes**2)
    return found.reshape(*found.shape[:2], classes, classes)


def figures(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Accuracy, macro figures and weighted F1 of confusions, (…, classes, classes) → (…)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    f1, rows = class_f1(confusion), confusion.sum(axis=-1)
    return {
        "accuracy": hits.sum(axis=-1) / confusion.sum(axis=(-2, -1)),
        "macro_f1": f1.mean(axis=-1),
        "weighted_f1": (f1 * rows).sum(axis=-1) / rows.sum(axis=-1),
        "macro_precision": _ratio(hits, confusion.sum(axis=-2)).mean(axis=-1),
        "macro_recall": class_recall(confusion).mean(axis=-1),
    }


def class_recall(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall of every class, (…, classes, classes) → (…, classes)."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def class_f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of every class, (…, classes, classes) → (…, classes)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """part / whole, 0 where the whole is 0, as `metrics.score` counts an absent class."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
