"""Intervals of ROC-AUC, average precision, log-loss, Brier score and calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fuse.figures.intervals import score_decisions, score_intervals
from fuse.figures.metrics import probability_score
from fuse.figures.record import Interval
from fuse.figures.reliability import null_errors
from fuse.figures.resampling import bootstrap

NAMES = ["a", "b", "c"]
RANKED = ("roc_auc", "neg_log_loss", "brier", "calibration_error")


def invented(rows: int = 70) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities, many of them equal, one class rare."""
    rng = np.random.default_rng(1)
    labels = rng.choice(3, rows, p=[0.6, 0.3, 0.1])
    raw = (rng.random((rows, 3)) + 0.7 * np.eye(3)[labels]).round(1) + 0.05
    return labels, raw / raw.sum(1, keepdims=True)


def test_intervals_are_those_of_scikit_learns_figures_on_the_same_draws() -> None:
    labels, probabilities = invented()
    generator = np.random.default_rng(9)
    every: list[dict[str, float]] = []
    precision: list[list[float]] = []
    for _ in range(120):  # more than are worked on together
        drawn = generator.integers(0, 70, 70)
        found = probability_score(labels[drawn], probabilities[drawn], NAMES)
        every.append({key: getattr(found, key) for key in RANKED})
        per_class = [found.per_class[name].average_precision for name in NAMES]
        precision.append([np.nan if value is None else value for value in per_class])
    figures = score_intervals(labels, probabilities, NAMES, resamples=120, seed=9)
    for key in RANKED:
        interval = getattr(figures, key)
        low, high = np.quantile([found[key] for found in every], [0.025, 0.975])
        assert (interval.low, interval.high) == pytest.approx((low, high)), key
    for code, name in enumerate(NAMES):
        interval = figures.per_class[name].average_precision
        low, high = np.nanquantile([row[code] for row in precision], [0.025, 0.975])
        assert (interval.low, interval.high) == pytest.approx((low, high)), code


def test_a_class_without_rows_has_no_interval() -> None:
    labels, probabilities = invented()
    kept = labels != 2
    figures = score_intervals(labels[kept], probabilities[kept], NAMES, resamples=20)
    assert figures.per_class["c"].average_precision is None
    assert figures.per_class["a"].average_precision is not None
    assert figures.roc_auc is not None
    only = score_intervals(np.zeros(5, np.int64), probabilities[:5], NAMES, resamples=20)
    assert only.roc_auc is None
    assert [of.average_precision for of in only.per_class.values()] == [None, None, None]
    assert only.brier is not None


def test_every_figure_of_a_score_has_an_interval_around_it() -> None:
    labels, probabilities = invented()
    score, found = (
        probability_score(labels, probabilities, NAMES).as_json(),
        score_intervals(labels, probabilities, NAMES).as_json(),
    )
    assert set(score) - set(found) == {"rows", "confusion"}
    others = {"per_class", "calibration_error", "calibration_error_null"}  # not around the figure
    for key in set(found) - others:
        assert found[key]["low"] <= score[key] <= found[key]["high"], key
    for name in NAMES:
        assert found["per_class"][name].keys() == {"f1", "average_precision"}


def test_a_ranking_that_is_always_wrong() -> None:
    labels = np.repeat([0, 1], 6)
    likely = np.where(labels == 0, 0.2, 0.8)
    found = score_intervals(labels, np.stack([likely, 1 - likely], 1), NAMES[:2], resamples=40)
    assert found.roc_auc.low == found.roc_auc.high == 0
    assert found.per_class["b"].average_precision.high < 1


def test_decisions_that_are_given_change_what_is_counted_alone() -> None:
    labels, probabilities = invented()
    decided = (probabilities * [1, 2, 4]).argmax(1)
    plain = score_intervals(labels, probabilities, NAMES, resamples=60, seed=5)
    found = score_intervals(labels, probabilities, NAMES, predicted=decided, resamples=60, seed=5)
    counted, per_class = bootstrap(labels, decided, 3, resamples=60, seed=5)
    for name, interval in counted.items():
        assert getattr(found, name) == interval != getattr(plain, name)
    assert [found.per_class[name].f1 for name in NAMES] == per_class
    for name in RANKED:
        assert getattr(found, name) == getattr(plain, name)
    null = null_errors(probabilities.max(1), np.arange(70), resamples=60, seed=5)
    assert found.calibration_error_null == Interval.of(null)


def test_rows_of_a_group_are_drawn_together() -> None:
    labels, probabilities = invented()
    once = score_intervals(labels, probabilities, NAMES, resamples=60).as_json()
    copies = score_intervals(
        np.repeat(labels, 3),
        np.repeat(probabilities, 3, axis=0),
        NAMES,
        groups=np.repeat(np.arange(70), 3) + 5,
        resamples=60,
    ).as_json()
    assert copies.pop("per_class")["a"]["f1"] == pytest.approx(once.pop("per_class")["a"]["f1"])
    for key, interval in copies.items():
        assert interval == pytest.approx(once[key]), key


def test_decisions_have_intervals_of_both_figures() -> None:
    labels, probabilities = invented()
    decided = {
        "accuracy": probabilities.argmax(1),
        "macro_f1": (probabilities * [1, 2, 4]).argmax(1),
    }
    found = score_decisions(labels, decided, 3, groups=np.arange(70) // 2)
    for rule, codes in decided.items():
        assert found[rule].accuracy == pytest.approx((codes == labels).mean())
        assert found[rule].macro_f1 == pytest.approx(f1_score(labels, codes, average="macro"))
        again, _ = bootstrap(labels, codes, 3, groups=np.arange(70) // 2)
        assert found[rule].intervals == {key: again[key] for key in ("accuracy", "macro_f1")}
