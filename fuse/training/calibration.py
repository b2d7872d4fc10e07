"""Fits a calibration to probabilities of rows that the model was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from fuse.figures.calibration import SMALLEST, Calibration, Probabilities, shifted, tempered
from fuse.figures.confusion import macro_f1

_OFFSETS = np.linspace(-1.0, 1.0, 41)
_TEMPERATURES = (0.05, 20.0)


def calibrate(
    probabilities: Sequence[Probabilities],
    labels: Sequence[NDArray[np.int64]],
    *,
    offsets: str,
    prior: float = 0.0,
) -> Calibration:
    """Fits a temperature, then offsets, on held-out rows.

    Args:
        probabilities: A fold each, (rows, classes), of models that the fold did not train.
        labels: A fold each, (rows,).
        offsets: ``fitted`` (`honest_offsets`), ``none``, or ``prior``: −prior · log of the classes'
            shares (post-hoc logit adjustment: Menon et al. 2021, "Long-Tail Learning via Logit
            Adjustment").
        prior: Weight of the log shares.
    """
    truth = np.concatenate(labels)
    temperature = fit_temperature(np.concatenate(probabilities), truth)
    found = np.zeros(probabilities[0].shape[1])
    if offsets == "fitted":
        found = honest_offsets([tempered(part, temperature) for part in probabilities], labels)
    elif offsets == "prior":
        shares = np.bincount(truth, minlength=len(found)) / len(truth)
        found = -prior * np.log(np.maximum(shares, 1 / len(truth)))
    return Calibration(temperature, tuple(found.tolist()))


def fit_temperature(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """The temperature with the smallest mean −log p of the true class.

    Args:
        probabilities: Of rows that did not train the model, (rows, classes).
        labels: Class codes, (rows,).
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        p = tempered(probabilities, math.exp(log_temperature))[rows, labels]
        return float(-np.log(np.maximum(p, SMALLEST)).mean())

    low, high = (math.log(limit) for limit in _TEMPERATURES)
    found = float(minimize_scalar(loss, bounds=(low, high), method="bounded").x)
    return math.exp(found) if loss(found) < loss(0.0) else 1.0


def fit_offsets(probabilities: Probabilities, labels: NDArray[np.int64]) -> Probabilities:
    """Log-probability offsets that raise macro-F1, by coordinate ascent on a grid.

    A class that is rare is predicted too seldom for macro-F1 by a model trained on likelihood; one
    number a class moves the borders. The first class keeps 0, since only differences count.

    Args:
        probabilities: Of rows that did not train the model, (rows, classes).
        labels: Class codes, (rows,).

    Returns:
        (classes,), within ±1 (factors of e); zeros where nothing is better.
    """
    classes = probabilities.shape[1]
    offsets = np.zeros(classes)

    def value(trial: Probabilities) -> tuple[float, float]:
        f1 = macro_f1(labels, shifted(probabilities, trial).argmax(1), classes)
        return round(f1, 9), -float(np.abs(trial).sum())  # of equal ones the smallest

    best = value(offsets)
    for _ in range(2):
        for place in range(1, classes):
            for offset in _OFFSETS:
                trial = offsets.copy()
                trial[place] = offset
                found = value(trial)
                if found > best:
                    best, offsets = found, trial
    return offsets


def honest_offsets(
    probabilities: Sequence[Probabilities], labels: Sequence[NDArray[np.int64]]
) -> Probabilities:
    """`fit_offsets` of all folds together, or zeros where offsets do not carry over.

    Offsets fitted on all folds but one are tried on that one. Only if this gives a better macro-F1
    over all rows than no offsets are the offsets of all rows taken: on few rows they follow noise.

    Args:
        probabilities: A fold each, (rows, classes).
        labels: A fold each, (rows,).
    """
    every, truth = np.concatenate(probabilities), np.concatenate(labels)
    if len(labels) < 2:
        return np.zeros(every.shape[1])
    carried = []
    for number, part in enumerate(probabilities):
        others = [i for i in range(len(labels)) if i != number]
        offsets = fit_offsets(
            np.concatenate([probabilities[i] for i in others]),
            np.concatenate([labels[i] for i in others]),
        )
        carried.append(shifted(part, offsets).argmax(1))
    classes = every.shape[1]
    with_offsets = macro_f1(truth, np.concatenate(carried), classes)
    without = macro_f1(truth, every.argmax(1), classes)
    return fit_offsets(every, truth) if with_offsets > without else np.zeros(classes)
