"""Figures of a classifier, by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)


def score(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str]
) -> dict[str, Any]:
    """Accuracy, macro and per-class precision, recall and F1 (0–1), and the confusion matrix.

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
        0) and ``brier`` (mean squared distance to the one-hot truth, 0 … 2).
    """
    codes = list(range(len(names)))
    return {
        **score(labels, probabilities.argmax(1), names),
        "neg_log_loss": -float(log_loss(labels, probabilities, labels=codes)),
        "brier": float(brier_score_loss(labels, probabilities, labels=codes, scale_by_half=False)),
    }
