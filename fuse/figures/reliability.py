"""Reliability: the confidence of a classifier against the share of right predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Equal-width confidence bins of the reliability diagram."""


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of the reliability diagram: confidences in (low, high]; the first includes 0."""

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
        confidence: Probability of the predicted class, 0–1, (rows,).
        correct: Whether the prediction is right, (rows,).

    Returns:
        The bins from low to high, and the error (0–1).
    """
    indices = bin_indices(confidence)
    bins, error = [], 0.0
    for index in range(BINS):
        mask = indices == index
        rows = int(mask.sum())
        mean = float(confidence[mask].mean()) if rows else 0.0
        accuracy = float(correct[mask].mean()) if rows else 0.0
        bins.append(Bin(index / BINS, (index + 1) / BINS, rows, mean, accuracy))
        error += rows / len(confidence) * abs(accuracy - mean)
    return bins, error


def null_errors(
    confidence: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Calibration errors of a perfectly calibrated model with these confidences.

    The error of finitely many rows is never 0. Each prediction is drawn to be right with its
    confidence as the probability (parametric bootstrap: Bröcker and Smith 2007, "Increasing the
    Reliability of Reliability Diagrams").

    Args:
        confidence: Probability of the predicted class, 0–1, (rows,).
        groups: Group numbers from 0, (rows,), of rows that share their draw.
        resamples: Number of draws.
        seed: Seed of the generator.

    Returns:
        (resamples,), 0–1.
    """
    generator = np.random.default_rng(seed)
    in_bin = np.eye(BINS)[bin_indices(confidence)]
    errors = np.empty(resamples)
    for index in range(resamples):
        correct = generator.random(int(groups.max()) + 1)[groups] < confidence
        errors[index] = np.abs((correct - confidence) @ in_bin).sum() / len(confidence)
    return errors


def bin_indices(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the bin of each confidence, (rows,)."""
    return np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left").astype(np.int64)
