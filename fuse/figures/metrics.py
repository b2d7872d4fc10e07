"""Scores of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from . import confusion as confusions
from .confusion import Codes, Floats
from .records import CalibrationFigures, ClassScores, MetricScores, Scores
from .reliability import reliability_bins


def score(labels: Codes, predicted: Codes, names: Sequence[str]) -> Scores:
    """Accuracy, macro and per-class precision, recall and F1, and the confusion matrix.

    Args:
        labels: True class codes, (rows,).
        predicted: Predicted class codes, (rows,).
        names: Class names by code. A class without rows or predictions has 0.
    """
    confusion = confusions.confusion(labels, predicted, len(names))
    per_class = zip(
        names,
        confusions.class_precision(confusion),
        confusions.class_recall(confusion),
        confusions.class_f1(confusion),
        confusion.sum(axis=1),
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
        confusion=confusion.tolist(),
        **{key: float(value) for key, value in confusions.confusion_scores(confusion).items()},
    )


def probability_score(
    labels: Codes, probabilities: Floats, names: Sequence[str], *, predicted: Codes | None = None
) -> Scores:
    """`score` of the predicted classes, and scores of the probabilities.

    Args:
        labels: True class codes, (rows,).
        probabilities: Class probabilities, (rows, classes).
        names: Class names by code.
        predicted: Predicted class codes, (rows,); default: the most probable. The scores of the
            probabilities do not depend on them.
    """
    # The import takes a second, and workers that train do not need it.
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

    codes = list(range(len(names)))
    decided = probabilities.argmax(1) if predicted is None else predicted
    scores = score(labels, decided, names)
    areas: list[float] = []
    per_class: dict[str, ClassScores] = {}
    for code, (name, of_class) in enumerate(scores.per_class.items()):
        is_class, probability = labels == code, probabilities[:, code]
        precision = None
        if is_class.any() and not is_class.all():
            areas.append(float(roc_auc_score(is_class, probability)))
            precision = float(average_precision_score(is_class, probability))
        per_class[name] = of_class.model_copy(update={"average_precision": precision})
    brier = brier_score_loss(labels, probabilities, labels=codes, scale_by_half=False)
    return scores.model_copy(
        update={
            "per_class": per_class,
            "brier": float(brier),
            **calibration_figures(labels, probabilities).model_dump(),
            "roc_auc": fmean(areas) if areas else None,
        }
    )


def selection_score(
    labels: Codes, probabilities: Floats, *, predicted: Codes | None = None
) -> MetricScores:
    """The metrics that stop training and choose models; faster than `probability_score`.

    Args:
        labels: True class codes, (rows,).
        probabilities: Class probabilities, (rows, classes).
        predicted: Predicted class codes, (rows,); default: the most probable.
    """
    codes = probabilities.argmax(1) if predicted is None else predicted
    confusion = confusions.confusion(labels, codes, probabilities.shape[1])
    return metric_scores(confusion, float(log_likelihoods(labels, probabilities).mean()))


def metric_scores(confusion: confusions.Numbers, neg_log_loss: float) -> MetricScores:
    """All metrics, given a confusion matrix (classes, classes) and the log-likelihood."""
    scores = confusions.confusion_scores(confusion)
    return MetricScores(
        macro_f1=float(scores["macro_f1"]),
        accuracy=float(scores["accuracy"]),
        neg_log_loss=neg_log_loss,
    )


def calibration_figures(labels: Codes, probabilities: Floats) -> CalibrationFigures:
    """How well probabilities fit their rows.

    Args:
        labels: True class codes, (rows,).
        probabilities: Class probabilities, (rows, classes).
    """
    is_right = labels == probabilities.argmax(1)
    return CalibrationFigures(
        neg_log_loss=float(log_likelihoods(labels, probabilities).mean()),
        calibration_error=reliability_bins(probabilities.max(1), is_right)[1],
    )


def log_likelihoods(labels: Codes, probabilities: Floats) -> Floats:
    """Log-probability of each row's true class, (rows,), clipped as scikit-learn does."""
    of_true = probabilities[np.arange(len(labels)), labels]
    logs: Floats = np.log(of_true.clip(np.finfo(probabilities.dtype).eps))
    return logs
