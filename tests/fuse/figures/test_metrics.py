"""The figures of a classifier against scikit-learn's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from fuse.figures.confusion import confusion_scores, macro_f1
from fuse.figures.metrics import log_likelihoods, probability_score, score, selection_score
from fuse.figures.records import METRICS

NAMES = ("positive", "neutral", "negative")


def outcome(rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Labels, the second class rare, and probabilities that know something of them."""
    rng = np.random.default_rng(8)
    labels = rng.choice(3, rows, p=[0.6, 0.1, 0.3])
    logits = rng.normal(size=(rows, 3)) + np.eye(3)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_figures_of_probabilities() -> None:
    labels, probabilities = outcome()
    predicted = probabilities.argmax(1)
    found = probability_score(labels, probabilities, NAMES)
    assert found.weighted_f1 == pytest.approx(f1_score(labels, predicted, average="weighted"))
    assert found.weighted_f1 == score(labels, predicted, NAMES).weighted_f1
    assert found.roc_auc == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    expected = average_precision_score(np.eye(3)[labels], probabilities, average=None)
    assert [found.per_class[n].average_precision for n in NAMES] == pytest.approx(expected)


def test_figures_of_classes_are_those_of_scikit_learn() -> None:
    labels, probabilities = outcome()
    predicted = probabilities.argmax(1)
    found = score(labels, predicted, NAMES)
    per_class = precision_recall_fscore_support(labels, predicted)
    for key, values in zip(("precision", "recall", "f1", "support"), per_class, strict=True):
        assert [getattr(found.per_class[n], key) for n in NAMES] == pytest.approx(values), key
    assert found.confusion == confusion_matrix(labels, predicted).tolist()
    macro = precision_recall_fscore_support(labels, predicted, average="macro")[:3]
    assert (found.macro_precision, found.macro_recall, found.macro_f1) == pytest.approx(macro)
    assert macro_f1(labels, predicted, 3) == found.macro_f1
    assert (found.rows, found.accuracy) == (200, pytest.approx((labels == predicted).mean()))


def test_figures_of_many_confusions_are_those_of_each() -> None:
    many = np.random.default_rng(4).integers(0, 5, (2, 3, 3, 3))
    many[0, 0, 1] = 0  # a class without rows
    many[1, 2, 1] = [0, 1, 0]  # and one with one
    for name, values in confusion_scores(many).items():
        each = [[confusion_scores(one)[name] for one in row] for row in many]
        np.testing.assert_allclose(values, each, err_msg=name)


def test_a_class_with_a_single_row_counts_as_much_as_another() -> None:
    found = score(np.array([0, 0, 1]), np.array([0, 0, 0]), NAMES)
    assert found.macro_recall == 1 / 2
    assert found.macro_f1 == pytest.approx(0.8 / 2)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.85, 0.15], [0.85, 0.15], [0.35, 0.65], [0.35, 0.65]])
    found = probability_score(np.array([0, 1, 1, 1]), probabilities, ("yes", "no"))
    # half of the rows at 0.85, of which 1/2 are right; half at 0.65, all right
    assert found.calibration_error == pytest.approx((0.35 + 0.35) / 2)
    squares = [0.15**2, 0.85**2, 0.35**2, 0.35**2]
    assert found.brier == pytest.approx(2 * np.mean(squares)), "of both classes"


def test_a_class_held_impossible_costs_as_much_as_scikit_learn_says() -> None:
    labels = np.array([0, 1])
    for kind in (np.float64, np.float32):
        probabilities = np.array([[0, 1], [0, 1]], kind)
        found = log_likelihoods(labels, probabilities)
        np.testing.assert_allclose(found, [np.log(np.finfo(kind).eps), 0])
        assert -found.mean() == pytest.approx(log_loss(labels, probabilities))


def test_perfect_and_reversed_ranking() -> None:
    labels, right = np.array([0, 1, 2, 2]), np.eye(3)[[0, 1, 2, 2]]
    assert probability_score(labels, right, NAMES).roc_auc == 1
    assert probability_score(labels, (1 - right) / 2, NAMES).roc_auc == 0


def test_what_a_class_without_rows_has_no_value_for_is_none() -> None:
    labels = np.array([0, 0, 2])
    probabilities = np.array([[0.7, 0.1, 0.2], [0.5, 0.2, 0.3], [0.4, 0.1, 0.5]])
    found = probability_score(labels, probabilities, NAMES)
    assert found.per_class["neutral"].average_precision is None
    assert found.roc_auc == 1, "mean over the two classes with rows"
    alone = probability_score(labels[:2], probabilities[:2], NAMES)
    assert alone.roc_auc is None
    json.dumps(alone.as_json(), allow_nan=False)


def test_other_decisions_change_what_is_counted_and_not_how_good_probabilities_are() -> None:
    labels, probabilities = outcome()
    decided = (probabilities * [1, 3, 1]).argmax(1)
    plain, chosen = (selection_score(labels, probabilities, predicted=p) for p in (None, decided))
    found = probability_score(labels, probabilities, NAMES, predicted=decided)
    assert found.accuracy == chosen.accuracy == (decided == labels).mean() != plain.accuracy
    assert found.neg_log_loss == chosen.neg_log_loss == plain.neg_log_loss


def test_what_chooses_a_model_is_what_is_reported() -> None:
    labels, probabilities = outcome()
    found = probability_score(labels, probabilities, NAMES)
    chosen = selection_score(labels, probabilities)
    assert chosen.as_json() == {metric: found.as_json()[metric] for metric in METRICS}
