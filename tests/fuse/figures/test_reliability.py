"""Reliability bins and the expected calibration error."""

from __future__ import annotations

import numpy as np
import pytest

from fuse.figures.reliability import calibration


def test_calibration_by_hand() -> None:
    confidence = np.array([0.95, 0.91, 0.62, 0.68, 0.66, 0.35])
    correct = np.array([True, False, True, True, False, False])
    bins, error = calibration(confidence, correct)
    # (0.9, 1]: 2 rows, |1/2 − 0.93|; (0.6, 0.7]: 3 rows, |2/3 − 1.96/3|; (0.3, 0.4]: |0 − 0.35|
    by_hand = (2 * 0.43 + 3 * abs(2 / 3 - 1.96 / 3) + 1 * 0.35) / 6
    assert error == pytest.approx(by_hand)
    assert [b.rows for b in bins] == [0, 0, 0, 1, 0, 0, 3, 0, 0, 2]
    assert bins[9].accuracy == 0.5
    assert bins[9].confidence == pytest.approx(0.93)


def test_a_confidence_on_an_edge_counts_in_the_bin_below() -> None:
    edges = np.array([0.0, 0.1, 0.3, 0.6, 0.7, 1.0])
    bins, _ = calibration(edges, np.ones(6, bool))
    assert [b.rows for b in bins] == [2, 0, 1, 0, 0, 1, 1, 0, 0, 1]


def test_a_calibrated_model_has_no_error() -> None:
    _, error = calibration(np.full(4, 0.75), np.array([True, True, True, False]))
    assert error == pytest.approx(0)
