"""Figures of a classifier, by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from .reliability import calibration


def score(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str]
) -> dict[str, Any]:
    """Accuracy, macro and per-class precision, recall and F1 (0–1), and the confusion matrix.

    Macro figures count classes alike, ``weighted_f1`` by their rows.

    Args:
        labels: True class codes, (rows,).
        predicted: Predicted class codes, (rows,).
        names: Class names by code. A class without rows or predictions counts as 0.
    """
    codes = list(range(len(names)))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=codes, zero_division=0
    )
    return {
        "rows": len(labels),
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "weighted_f1": float(np.average(f1, weights=support)),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(names)
        },
        "confusion": confusion_matrix(labels, predicted, labels=codes).tolist(),
    }


def probability_score(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], names: Sequence[str]
) -> dict[str, Any]:
    """`score` of the likeliest classes, and how good the probabilities are.

    Args:
        labels: True class codes, (rows,).
        probabilities: Of each class, (rows, classes), rows summing to 1.
        names: Class names by code.

    Returns:
        Besides those of `score`: ``neg_log_loss`` (mean log-probability of the true class, at most
        0), ``brier`` (mean squared distance to the one-hot truth, 0 … 2), ``calibration_error``
        (see `reliability.calibration`), ``roc_auc`` (each class against the rest, mean over
        classes) and, per class, ``average_precision``. The last two are None where a class has no
        rows or all of them; the mean leaves such classes out.
    """
    codes = list(range(len(names)))
    predicted = probabilities.argmax(1)
    found = score(labels, predicted, names)
    areas = []
    for code, name in enumerate(names):
        inside, scores = labels == code, probabilities[:, code]
        mixed = inside.any() and not inside.all()
        if mixed:
            areas.append(float(roc_auc_score(inside, scores)))
        found["per_class"][name]["average_precision"] = (
            float(average_precision_score(inside, scores)) if mixed else None
        )
    return {
        **found,
        "neg_log_loss": -float(log_loss(labels, probabilities, labels=codes)),
        "brier": float(brier_score_loss(labels, probabilities, labels=codes, scale_by_half=False)),
        "calibration_error": calibration(probabilities.max(1), labels == predicted)[1],
        "roc_auc": fmean(areas) if areas else None,
    }


def selection_score(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> dict[str, float]:
    """What of `probability_score` a model may be stopped and chosen by, at a fraction of its time.

    Args:
        labels: True class codes, (rows,).
        probabilities: Of each class, (rows, classes), rows summing to 1.

    Returns:
        A value for each of `setting.METRICS`.
    """
    codes = list(range(probabilities.shape[1]))
    predicted = probabilities.argmax(1)
    f1 = precision_recall_fscore_support(labels, predicted, labels=codes, zero_division=0)[2]
    return {
        "macro_f1": float(f1.mean()),
        "accuracy": float(accuracy_score(labels, predicted)),
        "neg_log_loss": -float(log_loss(labels, probabilities, labels=codes)),
    }
