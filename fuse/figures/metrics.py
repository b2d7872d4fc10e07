"""Figures of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from . import confusion as confusions
from .confusion import Codes, Floats
from .records import ClassScores, MetricScores, Scores
from .reliability import reliability_bins


def score(labels: Codes, predicted: Codes, names: Sequence[str]) -> Scores:
    """Accuracy, macro and per-class precision, recall and F1, and the confusion matrix.

    Args:
        labels: True class codes, (rows,).
        predicted: Predicted class codes, (rows,).
        names: Class names by code. A class without rows or predictions counts as 0.
    """
    counted = confusions.confusion(labels, predicted, len(names))
    per_class = zip(
        names,
        confusions.class_precision(counted),
        confusions.class_recall(counted),
        confusions.class_f1(counted),
        counted.sum(axis=1),
        strict=True,
    )
    return Scores(
        rows=len(labels),
        per_class={
            name: ClassScores(
                precision=float(precision), recall=float(recall), f1=float(f1), support=int(support)
            )
            for name, precision, recall, f1, support in per_class
        },
        confusion=counted.tolist(),
        **{key: float(value) for key, value in confusions.confusion_scores(counted).items()},
    )


def probability_score(
    labels: Codes, probabilities: Floats, names: Sequence[str], *, predicted: Codes | None = None
) -> Scores:
    """`score` of the predicted classes, and how good the probabilities are.

    Args:
        labels: True class codes, (rows,).
        probabilities: Of each class, (rows, classes), rows summing to 1.
        names: Class names by code.
        predicted: Predicted class codes, (rows,); default: the likeliest. How good the
            probabilities are does not depend on them.
    """
    # A second to import, which workers that train do without.
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

    codes = list(range(len(names)))
    likeliest = probabilities.argmax(1)
    found = score(labels, likeliest if predicted is None else predicted, names)
    areas: list[float] = []
    per_class: dict[str, ClassScores] = {}
    for code, (name, scores) in enumerate(found.per_class.items()):
        inside, likely = labels == code, probabilities[:, code]
        precision = None
        if inside.any() and not inside.all():
            areas.append(float(roc_auc_score(inside, likely)))
            precision = float(average_precision_score(inside, likely))
        per_class[name] = scores.model_copy(update={"average_precision": precision})
    brier = brier_score_loss(labels, probabilities, labels=codes, scale_by_half=False)
    return found.model_copy(
        update={
            "per_class": per_class,
            "neg_log_loss": float(log_likelihoods(labels, probabilities).mean()),
            "brier": float(brier),
            "calibration_error": reliability_bins(probabilities.max(1), labels == likeliest)[1],
            "roc_auc": fmean(areas) if areas else None,
        }
    )


def selection_score(
    labels: Codes, probabilities: Floats, *, predicted: Codes | None = None
) -> MetricScores:
    """The metrics that stop training and choose models; faster than `probability_score`.

    Args:
        labels: True class codes, (rows,).
        probabilities: Of each class, (rows, classes), rows summing to 1.
        predicted: Predicted class codes, (rows,); default: the likeliest.
    """
    classes = probabilities.shape[1]
    codes = probabilities.argmax(1) if predicted is None else predicted
    counted = confusions.confusion(labels, codes, classes)
    return metric_scores(counted, float(log_likelihoods(labels, probabilities).mean()))


def metric_scores(counted: confusions.Numbers, neg_log_loss: float) -> MetricScores:
    """The metrics that follow from a confusion, (classes, classes), and the one that does not."""
    found = confusions.confusion_scores(counted)
    return MetricScores(
        macro_f1=float(found["macro_f1"]),
        accuracy=float(found["accuracy"]),
        neg_log_loss=neg_log_loss,
    )


def log_likelihoods(labels: Codes, probabilities: Floats) -> Floats:
    """Log-probability of each row's true class, (rows,), clipped as scikit-learn does."""
    likely = probabilities[np.arange(len(labels)), labels]
    logs: Floats = np.log(likely.clip(np.finfo(probabilities.dtype).eps))
    return logs
