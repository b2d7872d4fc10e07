"""Bootstrap intervals, computed again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fuse.figures.confusion import confusion_scores, macro_f1
from fuse.figures.intervals import score_intervals
from fuse.figures.metrics import score
from fuse.figures.resampling import bootstrap, mask_absent_classes, resampled_confusions
from tests.support.made_up_run import CLASSES, ROWS, outcome


def test_bootstrap_equals_an_independent_computation() -> None:
    labels, predicted, _ = outcome()
    names = {"accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"}
    generator = np.random.default_rng(11)
    drawn: dict[str, list[float]] = {name: [] for name in names}
    neutral = []
    for _ in range(150):
        rows = generator.integers(0, ROWS, ROWS)
        figures = score(labels[rows], predicted[rows], CLASSES)
        for name in names:
            drawn[name].append(getattr(figures, name))
        neutral.append(figures.per_class["neutral"].f1)
    intervals, per_class = bootstrap(labels, predicted, 3, resamples=150, seed=11)
    assert set(intervals) == names
    for name in names:
        expected = np.percentile(drawn[name], [2.5, 97.5])
        assert [intervals[name].low, intervals[name].high] == pytest.approx(expected)
    assert [per_class[1].low, per_class[1].high] == pytest.approx(
        np.percentile(neutral, [2.5, 97.5])
    )


def test_intervals_of_a_report_are_of_a_thousand_resamples_that_never_change() -> None:
    labels, predicted, probabilities = outcome()
    found = bootstrap(labels, predicted, 3)
    assert found == bootstrap(labels, predicted, 3, resamples=1000, seed=0)
    assert found != bootstrap(labels, predicted, 3, resamples=1000, seed=1)
    assert found != bootstrap(labels, predicted, 3, resamples=999, seed=0)
    every = score_intervals(labels, probabilities, CLASSES)
    assert every == score_intervals(labels, probabilities, CLASSES, resamples=1000, seed=0)


def test_intervals_contain_the_point_estimates() -> None:
    labels, predicted, _ = outcome()
    figures = score(labels, predicted, CLASSES)
    intervals, per_class = bootstrap(labels, predicted, 3)
    for name, interval in intervals.items():
        assert interval.low < getattr(figures, name) < interval.high
    for name, interval in zip(CLASSES, per_class, strict=True):
        assert interval.low < figures.per_class[name].f1 < interval.high


def test_an_absent_class_has_no_part_in_macro_figures_of_resamples_like_the_score() -> None:
    labels, predicted = np.array([0, 0, 0, 0]), np.array([0, 0, 0, 0])
    intervals, per_class = bootstrap(labels, predicted, 3)
    assert intervals["macro_f1"].low == intervals["macro_f1"].high == 1
    assert score(labels, predicted, CLASSES).macro_f1 == macro_f1(labels, predicted, 3) == 1
    assert per_class[2].high == 0
    # One row of the third class: the resamples without it are not worse for that.
    labels, predicted = np.array([0] * 5 + [1] * 5 + [2]), np.array([0] * 5 + [1] * 5 + [2])
    intervals, per_class = bootstrap(labels, predicted, 3)
    assert intervals["macro_f1"].low == intervals["macro_recall"].low == per_class[2].low == 1
    # Scikit-learn, told the classes that were drawn.
    generator = np.random.default_rng(3)
    labels, predicted = generator.integers(0, 3, 9), generator.integers(0, 3, 9)
    labels[labels == 2] = np.where(np.arange((labels == 2).sum()) == 0, 2, 0)
    draws, expected = np.random.default_rng(0), []
    for _ in range(60):
        rows = draws.integers(0, 9, 9)
        expected.append(
            f1_score(
                labels[rows],
                predicted[rows],
                labels=np.unique(labels[rows]),
                average="macro",
                zero_division=0,
            )
        )
    found = bootstrap(labels, predicted, 3, resamples=60, seed=0)[0]["macro_f1"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))


def test_a_class_that_was_not_drawn_has_no_figure_there() -> None:
    both, first = [[2, 1], [0, 1]], [[2, 1], [0, 0]]  # the second class with one row, with none
    confusions = np.array([[both, first, both], [first, first, first]], float)
    values = np.arange(12.0).reshape(2, 3, 2)
    expected = values.copy()
    expected[0, 1, 1] = np.nan  # predicted there, but not drawn
    found = mask_absent_classes(values, confusions)
    np.testing.assert_array_equal(found, expected, "a class that no resample has keeps its values")


def test_runs_are_resampled_together() -> None:
    labels, predicted, _ = outcome()
    other = np.roll(predicted, 1)
    both = resampled_confusions(labels, np.stack([predicted, other]), 3, resamples=20, seed=4)
    for run, one in enumerate((predicted, other)):
        alone = resampled_confusions(labels, one[None], 3, resamples=20, seed=4)[0]
        np.testing.assert_array_equal(both[run], alone)
    assert (both.sum(axis=(-2, -1)) == ROWS).all()
    np.testing.assert_array_equal(both[0].sum(axis=-1), both[1].sum(axis=-1))


def test_rows_of_a_group_are_drawn_together() -> None:
    labels, predicted, _ = outcome()
    once = resampled_confusions(labels, predicted[None], 3, resamples=50, seed=2)
    copies = resampled_confusions(
        np.repeat(labels, 4),
        np.repeat(predicted, 4)[None],
        3,
        groups=np.repeat(np.arange(ROWS), 4),
        resamples=50,
        seed=2,
    )
    np.testing.assert_array_equal(copies, 4 * once)
    alone, _ = bootstrap(labels, predicted, 3, resamples=50)
    of_copies, _ = bootstrap(
        *(np.repeat(codes, 4) for codes in (labels, predicted)),
        3,
        groups=np.repeat(np.arange(ROWS), 4),
        resamples=50,
    )
    for name, interval in alone.items():
        found = of_copies[name]
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high)), name
    np.testing.assert_allclose(
        confusion_scores(copies)["macro_f1"], confusion_scores(once)["macro_f1"]
    )
