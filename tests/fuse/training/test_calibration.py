"""Temperature and offsets: closed forms, scikit-learn, and what must not happen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from fuse.figures.calibration import Calibration, shifted, tempered
from fuse.figures.confusion import macro_f1
from fuse.training.calibration import calibrate, fit_likelihood, fit_offsets, honest_offsets


def test_temperature_of_a_closed_form() -> None:
    """Log-odds of ±2, right in 3 of 4: the best ones are ± log 3, at temperature 2 / log 3."""
    p = 1 / (1 + np.exp(-2.0))
    probabilities = np.array([[p, 1 - p]] * 4 + [[1 - p, p]] * 4)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    found = fit_likelihood(probabilities, labels)
    assert found.temperature == pytest.approx(2 / np.log(3), rel=1e-4)
    np.testing.assert_allclose(found.biases, 0, atol=1e-6)
    np.testing.assert_allclose(found(probabilities)[:4], [[0.75, 0.25]] * 4, rtol=1e-4)


def test_temperature_undoes_overconfidence_and_keeps_the_order() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(3), 4000)
    labels = np.array([rng.choice(3, p=row) for row in honest])
    loud = tempered(honest, 1 / 3)
    temperature = fit_likelihood(loud, labels).temperature
    assert temperature == pytest.approx(3, rel=0.08)
    assert log_loss(labels, tempered(loud, temperature)) < log_loss(labels, loud)
    assert (tempered(loud, temperature).argmax(1) == loud.argmax(1)).all()


def test_extreme_probabilities_stay_finite() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    for labels in ([0, 1], [1, 0]):
        found = calibrate([sure], [np.array(labels)], offsets="fitted")
        assert np.isfinite(found(sure)).all()
        np.testing.assert_allclose(found(sure).sum(1), 1)


def test_nothing_to_calibrate_changes_nothing() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    np.testing.assert_allclose(Calibration.none(4)(p), p)


def test_macro_f1_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 3, 5):
        labels, predicted = rng.integers(0, classes, 40), rng.integers(0, classes - 1, 40)
        expected = f1_score(
            labels, predicted, average="macro", labels=range(classes), zero_division=0
        )
        assert macro_f1(labels, predicted, classes) == pytest.approx(expected)


def test_offsets_of_a_closed_form() -> None:
    """Every row of class 1 gets 0.4 against 0.6: an offset over log 1.5 mends them all."""
    labels = np.array([0] * 20 + [1] * 10)
    probabilities = np.array([[0.9, 0.1]] * 20 + [[0.6, 0.4]] * 10)
    offsets = fit_offsets(probabilities, np.eye(2)[labels])
    assert offsets[0] == 0
    assert np.log(1.5) < offsets[1] < np.log(9)
    assert (shifted(probabilities, offsets).argmax(1) == labels).all()
    assert (fit_offsets(np.eye(2)[labels] * 0.8 + 0.1, np.eye(2)[labels]) == 0).all()
    np.testing.assert_allclose(shifted(probabilities, offsets).sum(1), 1)


def test_offsets_that_do_not_carry_over_are_left_out() -> None:
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, 30) for _ in range(3)]
    noise = [rng.dirichlet(np.ones(3), 30) for _ in range(3)]
    assert fit_offsets(np.concatenate(noise), np.eye(3)[np.concatenate(labels)]).any()
    kept = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = [rng.integers(0, 3, 30) for _ in range(3)]
        kept += honest_offsets([rng.dirichlet(np.ones(3), 30) for _ in range(3)], labels).any()
    assert kept < 20, "offsets fitted to noise were always taken"
    skewed = [np.where(np.arange(30) < 20, 0, 1) for _ in range(3)]
    timid = [np.array([[0.9, 0.1]] * 20 + [[0.6, 0.4]] * 10)] * 3
    assert honest_offsets(timid, skewed)[1] > np.log(1.5)
