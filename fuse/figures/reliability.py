"""How far the confidence of a classifier is from the share of its predictions that are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Equal-width confidence bins of the reliability diagram."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of the reliability diagram: confidences in (low, high]; the first holds 0 too."""

    low: float
    high: float
    rows: int
    confidence: float
    """Mean confidence of the rows, 0 without rows."""
    accuracy: float
    """Share of the rows that are right, 0 without rows."""


def reliability_bins(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_]
) -> tuple[list[Bin], float]:
    """Bins of the reliability diagram and the expected calibration error.

    ECE = Σ_b (n_b / n) · |accuracy_b − confidence_b| over equal-width bins (Guo et al. 2017, "On
    Calibration of Modern Neural Networks", eq. 3).

    Args:
        confidence: Probability given to the predicted class, 0–1, (rows,).
        correct: Whether the prediction is right, (rows,).

    Returns:
        The bins from low to high, and the error (0–1).
    """
    of = bin_indices(confidence)
    found, error = [], 0.0
    for number in range(BINS):
        inside = of == number
        rows = int(inside.sum())
        mean = float(confidence[inside].mean()) if rows else 0.0
        right = float(correct[inside].mean()) if rows else 0.0
        found.append(Bin(number / BINS, (number + 1) / BINS, rows, mean, right))
        error += rows / len(confidence) * abs(right - mean)
    return found, error


def null_errors(
    confidence: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Calibration errors that a perfectly calibrated model of these confidences would show.

    The error of finitely many rows is never 0. Whether each prediction is right is drawn with its
    confidence as the probability, the confidences stay (parametric bootstrap: Bröcker and Smith
    2007, "Increasing the Reliability of Reliability Diagrams").

    Args:
        confidence: Probability given to the predicted class, 0–1, (rows,).
        groups: Numbers of the groups from 0, (rows,), whose rows share their draw.
        resamples: Number of draws.
        seed: Seed of the generator.

    Returns:
        (resamples,), 0–1.
    """
    generator = np.random.default_rng(seed)
    inside = np.eye(BINS)[bin_indices(confidence)]
    errors = np.empty(resamples)
    for number in range(resamples):
        right = generator.random(int(groups.max()) + 1)[groups] < confidence
        errors[number] = np.abs((right - confidence) @ inside).sum() / len(confidence)
    return errors


def bin_indices(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the bin that each confidence falls into, (rows,)."""
    return np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left").astype(np.int64)
