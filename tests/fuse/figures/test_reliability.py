"""Reliability bins and the expected calibration error."""

from __future__ import annotations

import numpy as np
import pytest

from fuse.figures.reliability import Bin, null_errors, reliability_bins


def test_calibration_by_hand() -> None:
    confidence = np.array([0.95, 0.91, 0.62, 0.68, 0.66, 0.35])
    correct = np.array([True, False, True, True, False, False])
    bins, error = reliability_bins(confidence, correct)
    # (0.9, 1]: 2 rows, |1/2 − 0.93|; (0.6, 0.7]: 3 rows, |2/3 − 1.96/3|; (0.3, 0.4]: |0 − 0.35|
    by_hand = (2 * 0.43 + 3 * abs(2 / 3 - 1.96 / 3) + 1 * 0.35) / 6
    assert error == pytest.approx(by_hand)
    assert [b.rows for b in bins] == [0, 0, 0, 1, 0, 0, 3, 0, 0, 2]
    assert bins[9].accuracy == 0.5
    assert bins[9].confidence == pytest.approx(0.93)
    assert [(b.low, b.high) for b in bins] == [(n / 10, (n + 1) / 10) for n in range(10)]
    assert bins[0] == Bin(0, 0.1, 0, 0, 0), "a bin without rows"


def test_a_confidence_on_an_edge_counts_in_the_bin_below() -> None:
    edges = np.array([0.0, 0.1, 0.3, 0.6, 0.7, 1.0])
    bins, _ = reliability_bins(edges, np.ones(6, bool))
    assert [b.rows for b in bins] == [2, 0, 1, 0, 0, 1, 1, 0, 0, 1]


def test_a_calibrated_model_has_no_error() -> None:
    _, error = reliability_bins(np.full(4, 0.75), np.array([True, True, True, False]))
    assert error == pytest.approx(0)


def test_a_calibrated_model_shows_an_error_within_the_null_band() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1, 300)
    null = null_errors(confidence, np.arange(300), resamples=400, seed=1)
    low, high = np.quantile(null, [0.025, 0.975])
    assert 0 < low < high < 0.15
    inside = 0
    for _ in range(200):
        _, error = reliability_bins(confidence, rng.random(300) < confidence)
        inside += low <= error <= high
    assert 175 < inside < 200
    _, sure = reliability_bins(confidence, rng.random(300) < confidence - 0.15)
    assert sure > high
    # Draw by draw, as `reliability_bins` computes it.
    generator = np.random.default_rng(1)
    again = [reliability_bins(confidence, generator.random(300) < confidence)[1] for _ in range(5)]
    np.testing.assert_allclose(null[:5], again)


def test_rows_of_a_group_share_their_draw() -> None:
    confidence = np.full(40, 0.7)
    alone = null_errors(confidence, np.arange(40), resamples=200, seed=0)
    together = null_errors(confidence, np.zeros(40, np.int64), resamples=200, seed=0)
    np.testing.assert_allclose(np.unique(together.round(9)), [0.3, 0.7])  # all right or all wrong
    assert alone.max() < 0.3
