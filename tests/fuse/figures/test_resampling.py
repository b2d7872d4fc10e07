"""Bootstrap intervals, computed again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fuse.figures.confusion import figures
from fuse.figures.metrics import score
from fuse.figures.resampling import bootstrap, resampled_confusions
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


def test_intervals_contain_the_point_estimates() -> None:
    labels, predicted, _ = outcome()
    figures = score(labels, predicted, CLASSES)
    intervals, per_class = bootstrap(labels, predicted, 3)
    for name, interval in intervals.items():
        assert interval.low < getattr(figures, name) < interval.high
    for name, interval in zip(CLASSES, per_class, strict=True):
        assert interval.low < figures.per_class[name].f1 < interval.high


def test_bootstrap_counts_an_absent_class_as_zero_like_the_score() -> None:
    labels, predicted = np.array([0, 0, 0, 0]), np.array([0, 0, 0, 0])
    intervals, per_class = bootstrap(labels, predicted, 3)
    expected = f1_score(labels, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    assert intervals["macro_f1"].low == intervals["macro_f1"].high == pytest.approx(expected)
    assert per_class[2].high == 0


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
    np.testing.assert_allclose(figures(copies)["macro_f1"], figures(once)["macro_f1"])
