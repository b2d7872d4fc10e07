"""Temperature, biases and offsets: closed forms, other minimisers, and what must not happen."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.metrics import f1_score, log_loss

from fuse.figures.calibration import Calibration, shift, temper
from fuse.figures.confusion import macro_f1
from fuse.training.calibration import (
    calibrate,
    cross_fitted,
    fit_likelihood,
    fit_offsets,
    honest_likelihood,
    honest_offsets,
    mean_calibration,
)


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
    loud = temper(honest, 1 / 3)
    temperature = fit_likelihood(loud, labels).temperature
    assert temperature == pytest.approx(3, rel=0.08)
    assert log_loss(labels, temper(loud, temperature)) < log_loss(labels, loud)
    assert (temper(loud, temperature).argmax(1) == loud.argmax(1)).all()


def test_a_temperature_stays_between_a_twentieth_and_twenty() -> None:
    timid = np.array([[0.51, 0.49], [0.49, 0.51]])
    assert fit_likelihood(timid, np.array([0, 1])).temperature == pytest.approx(0.05)
    assert fit_likelihood(timid, np.array([1, 0])).temperature == pytest.approx(20)


def test_extreme_probabilities_stay_finite() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    for labels in ([0, 1], [1, 0]):
        found = calibrate([sure], [np.array(labels)], offsets="fitted")
        assert np.isfinite(found(sure)).all()
        np.testing.assert_allclose(found(sure).sum(1), 1)


def test_nothing_to_calibrate_changes_nothing() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    np.testing.assert_allclose(Calibration.none(4)(p), p)
    assert Calibration.none(2) == Calibration(1.0, (0.0, 0.0), (0.0, 0.0))


def test_a_temperature_near_0_keeps_every_row_finite() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.2, 0.4, 0.4]])
    expected = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5]]
    np.testing.assert_allclose(temper(rows, 1e-3), expected, atol=1e-12)


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
    assert (shift(probabilities, offsets).argmax(1) == labels).all()
    assert (fit_offsets(np.eye(2)[labels] * 0.8 + 0.1, np.eye(2)[labels]) == 0).all()
    np.testing.assert_allclose(shift(probabilities, offsets).sum(1), 1)


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


def test_offsets_that_gain_nothing_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets that change no decision give the same macro-F1 as none."""
    idle = np.array([0.0, 1e-3])
    monkeypatch.setattr("fuse.training.calibration.fit_offsets", lambda p, truth: idle)
    labels = [np.array([0, 1])] * 2
    assert not honest_offsets([np.array([[0.9, 0.1], [0.2, 0.8]])] * 2, labels).any()


def test_offsets_are_fitted_to_calibrated_probabilities() -> None:
    folds = [balanced(300, seed) for seed in range(4)]
    labels, probabilities = [y for y, _ in folds], [p for _, p in folds]
    found = calibrate(probabilities, labels, offsets="fitted")
    calibrated = [found(p) for p in probabilities]
    assert found.temperature > 1.5
    assert found.offsets == tuple(honest_offsets(calibrated, labels))
    assert found.offsets != tuple(honest_offsets(probabilities, labels))
    assert any(found.offsets)
    with pytest.raises(ValueError, match="unknown offsets 'fited' \\(near: fitted\\)"):
        calibrate(probabilities, labels, offsets="fited")


def test_offsets_of_the_prior_are_those_of_logit_adjustment() -> None:
    rng = np.random.default_rng(0)
    labels = [np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1])]
    folds = [rng.dirichlet(np.ones(3), 4) for _ in labels]
    found = calibrate(folds, labels, offsets="prior", prior=0.5)
    # Shares 6/8, 2/8 and none, which counts as one row.
    assert found.offsets == pytest.approx(-0.5 * np.log([3 / 4, 1 / 4, 1 / 8]))
    plain = calibrate(folds, labels, offsets="none", prior=0.5)
    assert plain.offsets == calibrate(folds, labels, offsets="prior").offsets == (0, 0, 0)
    assert (plain.temperature, plain.biases) == (found.temperature, found.biases)


def test_the_calibration_of_all_parts_is_a_mean() -> None:
    parts = [
        Calibration(2.0, (0.2, -0.2), (0.0, 1.0)),
        Calibration(8.0, (0.6, -0.6), (0.0, 0.5)),
    ]
    found = mean_calibration(parts)
    assert found.temperature == pytest.approx(4)
    assert found.biases == pytest.approx((0.4, -0.4))
    assert found.offsets == pytest.approx((0, 0.75))
    assert mean_calibration(parts[:1]) == parts[0]


# --- temperature and biases -----------------------------------------------------------------------


def balanced(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal shares, and probabilities of a model that learned equal ones."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, rows, p=[0.65, 0.27, 0.08])
    features = rng.normal(size=(rows, 3)) + 1.2 * np.eye(3)[labels]
    return labels, softmax(2 * features, axis=1)  # Bayes' rule with equal shares, too sure


def test_temperature_and_biases_are_those_of_another_minimiser() -> None:
    labels, probabilities = balanced(300, 1)

    def loss(values: np.ndarray) -> float:
        scaled = softmax(np.log(probabilities) / np.exp(values[0]) + values[1:], axis=1)
        return log_loss(labels, scaled) + values[1:] @ values[1:] / 2 / 300

    best = minimize(loss, np.zeros(4), method="BFGS")  # with numerical slopes
    found = fit_likelihood(probabilities, labels)
    assert found.temperature == pytest.approx(np.exp(best.x[0]), rel=1e-3)
    np.testing.assert_allclose(found.biases, best.x[1:] - best.x[1:].mean(), atol=1e-3)
    assert sum(found.biases) == pytest.approx(0)
    assert found.offsets == (0, 0, 0)


def test_biases_bring_the_classes_shares_back() -> None:
    labels, probabilities = balanced(4000, 2)
    found = fit_likelihood(probabilities[:2000], labels[:2000])
    share = np.bincount(labels) / len(labels)
    assert np.abs(probabilities.mean(0) - share).max() > 0.1
    np.testing.assert_allclose(found(probabilities).mean(0), share, atol=0.015)
    log_shares = np.log(share)
    np.testing.assert_allclose(found.biases, log_shares - log_shares.mean(), atol=0.2)
    assert log_loss(labels[2000:], found(probabilities[2000:])) < 0.9 * log_loss(
        labels[2000:], probabilities[2000:]
    )


def test_a_class_without_rows_has_a_finite_bias() -> None:
    labels, probabilities = balanced(200, 3)
    kept = labels != 2
    found = fit_likelihood(probabilities[kept], labels[kept])
    assert -10 < found.biases[2] < -1
    assert np.isfinite(found(probabilities)).all()


def test_what_does_not_carry_over_from_fold_to_fold_is_left_out() -> None:
    rng = np.random.default_rng(0)
    # The second fold is as much too timid as the first one is too sure.
    true = rng.dirichlet(np.ones(2), 400)
    labels = (rng.random(400) < true[:, 1]).astype(int)
    odds = [temper(true[:200], 0.4), temper(true[200:], 2.5)]
    assert honest_likelihood(odds, [labels[:200], labels[200:]]) == Calibration.none(2)
    assert fit_likelihood(np.concatenate(odds), labels) != Calibration.none(2)
    loud = [temper(true[:200], 0.4), temper(true[200:], 0.4)]
    assert honest_likelihood(loud, [labels[:200], labels[200:]]).temperature > 1.5


def test_a_gain_within_chance_is_left_out() -> None:
    """Of probabilities that are right, and of such that are too sure."""
    kept = {1.0: 0, 0.5: 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        true = rng.dirichlet(np.ones(3), 400)
        labels = np.split((rng.random((400, 1)) > true.cumsum(1)).sum(1), 4)
        for power in kept:
            found = honest_likelihood(np.split(temper(true, power), 4), labels)
            kept[power] += found != Calibration.none(3)
    assert kept[1.0] <= 1  # 4 with a gain of any size
    assert kept[0.5] == 20


def test_cross_fitting_uses_the_other_folds_alone() -> None:
    labels, probabilities = balanced(120, 4)
    folds = [slice(0, 40), slice(40, 80), slice(80, 120)]
    found = cross_fitted(
        [probabilities[f] for f in folds],
        [labels[f] for f in folds],
        lambda p, y: fit_likelihood(np.concatenate(p), np.concatenate(y)),
    )
    for number, fold in enumerate(folds):
        others = np.setdiff1d(np.arange(120), np.arange(120)[fold])
        assert found[number] == fit_likelihood(probabilities[others], labels[others])


# --- decisions ------------------------------------------------------------------------------------


def test_a_rule_decides_by_hand() -> None:
    p = np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]])
    calibration = Calibration(1.0, (0.0, 0.0, 0.0), (0.0, np.log(2.5), 0.0))
    np.testing.assert_allclose(calibration(p), p)  # offsets are of decisions alone
    assert calibration.decide(p, "accuracy").tolist() == [0, 0]
    assert calibration.decide(p, "accuracy").dtype == np.int64
    assert calibration.decide(p, "macro_f1").tolist() == [1, 0]
    assert Calibration.none(3).decide(p, "macro_f1").tolist() == [0, 0]


def test_offsets_raise_the_expected_macro_f1() -> None:
    labels, probabilities = balanced(400, 5)
    p = fit_likelihood(probabilities, labels)(probabilities)

    def expected(offsets: np.ndarray) -> float:
        decided = (p * np.exp(offsets)).argmax(1)
        f1 = []
        for code in range(3):
            hits = p[decided == code, code].sum()
            f1.append(2 * hits / ((decided == code).sum() + p[:, code].sum()))
        return float(np.mean(f1))

    found = fit_offsets(p, p)
    steps = np.linspace(-2, 2, 21)
    best = max(expected(np.array([0, a, b])) for a in steps for b in steps)
    assert expected(found) > best - 1e-3 > expected(np.zeros(3))
    decided = Calibration(1.0, (0.0,) * 3, tuple(found)).decide(p, "macro_f1")
    assert f1_score(labels, decided, average="macro") > f1_score(
        labels, p.argmax(1), average="macro"
    )


def test_a_calibration_of_an_older_run_is_of_biases() -> None:
    kept = TypeAdapter(Calibration)
    older = kept.validate_python({"temperature": 1.5, "offsets": [0.0, 0.4, -0.1]})
    assert older == Calibration(1.5, (0.0, 0.4, -0.1), (0.0, 0.0, 0.0))
    p = np.random.default_rng(0).dirichlet(np.ones(3), 9)
    raised = temper(p, 1.5) * np.exp([0.0, 0.4, -0.1])
    np.testing.assert_allclose(older(p), raised / raised.sum(1, keepdims=True))
    assert kept.validate_json(kept.dump_json(older)) == older
    for wrong in ({"temperature": 1.0}, {"temperature": 1.0, "biases": [0.0], "offsets": []}):
        with pytest.raises(ValidationError):
            kept.validate_python(wrong)
