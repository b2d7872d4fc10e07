"""Greedy ensemble selection against plain loops, and the honesty of its gain."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss

from fuse.search.greedy import EnsembleBudget, nested_gain, pick_weights
from fuse.training.calibration import fit_likelihood
from mmsa_cache.errors import SettingsError


def made_up(trials: int, rows: int, seed: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (trials, rows, 3) that know something of the labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    logits = generator.normal(size=(trials, rows, 3)) + skill * np.eye(3)[labels]
    raised = np.exp(logits)
    return calibrated(raised / raised.sum(2, keepdims=True), labels), labels


def calibrated(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """As trials are compared."""
    return np.stack([fit_likelihood(of, labels)(of) for of in probabilities])


def loss(picks: list[int], probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(log_loss(labels, probabilities[picks].mean(0), labels=[0, 1, 2]))


def by_hand(probabilities: np.ndarray, labels: np.ndarray, members: int) -> list[int]:
    """The same as the paper has it, with scikit-learn's log-loss."""
    order = sorted(range(len(probabilities)), key=lambda t: loss([t], probabilities, labels))
    starts = [order[:size] for size in range(1, min(members, len(order)) + 1)]
    picks = min(starts, key=lambda start: loss(start, probabilities, labels))
    while len(picks) < 50:
        tries = [
            [*picks, t]
            for t in range(len(probabilities))
            if t in picks or len(set(picks)) < members
        ]
        best = min(tries, key=lambda found: loss(found, probabilities, labels))
        if loss(best, probabilities, labels) >= loss(picks, probabilities, labels) - 1e-6:
            break
        picks = best
    return picks


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_picks_are_those_of_plain_loops(trials: int, members: int, seed: int) -> None:
    probabilities, labels = made_up(trials, 40, seed)
    probabilities[0] = probabilities[0] ** 2 * [1, 3, 1]  # its priors are shifted
    probabilities[0] /= probabilities[0].sum(1, keepdims=True)
    weights = pick_weights(
        probabilities, labels, EnsembleBudget(members), np.ones(trials, np.int64)
    )
    picks = by_hand(calibrated(probabilities, labels), labels, members)
    assert weights == pytest.approx(np.bincount(picks, minlength=trials) / len(picks))
    assert np.count_nonzero(weights) <= members


def test_the_mixture_of_two_is_near_the_best_of_all_mixtures() -> None:
    probabilities, labels = made_up(2, 60, 3)
    weights = pick_weights(probabilities, labels, EnsembleBudget(), np.ones(2, np.int64))
    every = [loss([0] * a + [1] * (20 - a), probabilities, labels) for a in range(21)]
    found = log_loss(labels, np.tensordot(weights, probabilities, 1))
    assert min(every) - 1e-3 < found < min(every) + 1e-3 < min(every[0], every[-1])


def test_the_best_set_of_equal_weights_is_no_better_than_what_is_picked() -> None:
    probabilities, labels = made_up(5, 50, 8)
    weights = pick_weights(probabilities, labels, EnsembleBudget(), np.ones(5, np.int64))
    sets = [list(c) for size in range(1, 6) for c in itertools.combinations(range(5), size)]
    best = min(loss(chosen, probabilities, labels) for chosen in sets)
    assert log_loss(labels, np.tensordot(weights, probabilities, 1)) <= best + 1e-6


def test_bytes_bound_the_members() -> None:
    probabilities, labels = made_up(4, 60, 1)
    sizes = np.array([60, 50, 40, 30])
    weights = pick_weights(probabilities, labels, EnsembleBudget(8, 100), sizes)
    assert 0 < sizes[weights > 0].sum() <= 100
    for limit in (35, 30):
        only = pick_weights(probabilities, labels, EnsembleBudget(8, limit), sizes)
        assert only.tolist() == [0, 0, 0, 1], "what the budget is just enough for fits"
    with pytest.raises(SettingsError, match="--max-mb"):
        pick_weights(probabilities, labels, EnsembleBudget(8, 5), sizes)


def test_the_gain_is_that_of_weights_picked_on_other_rows() -> None:
    probabilities, labels = made_up(6, 300, 5, skill=0.8)
    groups, sizes = np.arange(300) // 2, np.ones(6, np.int64)
    found = nested_gain(probabilities, labels, groups, EnsembleBudget(4), sizes)
    fold = np.random.default_rng(0).permutation(150)[groups] % 5
    mixed: dict[int, np.ndarray] = {members: np.empty((300, 3)) for members in (1, 4)}
    for members, number in itertools.product(mixed, range(5)):
        inside = fold != number
        weights = pick_weights(
            probabilities[:, inside], labels[inside], EnsembleBudget(members), sizes
        )
        every = np.tensordot(weights, probabilities, 1)
        mixed[members][~inside] = fit_likelihood(every[inside], labels[inside])(every[~inside])
    for name, members in (("single", 1), ("ensemble", 4)):
        likeliest = mixed[members].argmax(1)
        assert getattr(found["accuracy"], name) == pytest.approx(accuracy_score(labels, likeliest))
        assert getattr(found["macro_f1"], name) == pytest.approx(
            f1_score(labels, likeliest, average="macro")
        )
        assert -getattr(found["neg_log_loss"], name) == pytest.approx(
            log_loss(labels, mixed[members])
        )
    gain = found["neg_log_loss"]
    assert gain.interval.low < gain.gain < gain.interval.high
    # The intervals, again: a thousand draws of the groups, of the same rows for both.
    draws, every = np.random.default_rng(0), np.arange(300)
    saved = {
        "accuracy": mixed[4].argmax(1) == labels,
        "neg_log_loss": np.log(mixed[4][every, labels] / mixed[1][every, labels]),
    }
    saved["accuracy"] = saved["accuracy"] - 1.0 * (mixed[1].argmax(1) == labels)
    twins = draws.integers(0, 150, (1000, 150))
    for metric, of in saved.items():
        drawn = of.reshape(150, 2).sum(1)[twins].sum(1) / 300
        interval = found[metric].interval
        wanted = pytest.approx(np.quantile(drawn, [0.025, 0.975]))
        assert [interval.low, interval.high] == wanted


def test_trials_that_differ_by_noise_alone_show_no_gain() -> None:
    """Weights picked and judged on the same rows seem to gain: that is the noise of the choice."""
    generator = np.random.default_rng(2)
    base, labels = made_up(1, 400, 2)
    honest, seeming = [], []
    for _ in range(4):
        noise = generator.normal(scale=0.05, size=(20, 400, 3))
        raised = base * np.exp(noise)
        probabilities = raised / raised.sum(2, keepdims=True)
        sizes = np.ones(20, np.int64)
        gain = nested_gain(probabilities, labels, np.arange(400), EnsembleBudget(), sizes)[
            "accuracy"
        ]
        honest.append(gain.gain)
        assert gain.interval.low <= 0 <= gain.interval.high
        weights = pick_weights(probabilities, labels, EnsembleBudget(), sizes)
        mixed = log_loss(labels, np.tensordot(weights, probabilities, 1))
        seeming.append(log_loss(labels, base[0]) - mixed)
    assert min(seeming) > 0
    assert abs(np.mean(honest)) < 0.003
