"""Greedy ensemble selection from held-out predictions.

Caruana et al. 2004, "Ensemble Selection from Libraries of Models": members are picked one after
another, with replacement. Each pick lowers the log-loss of the average most.

Trials are calibrated before they are compared, since their average is calibrated in the end. A
trial whose training balanced the classes would otherwise have a poor log-loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.figures.confusion import Codes, Floats, confusion_scores
from fuse.figures.metrics import log_likelihoods
from fuse.figures.record import Interval
from fuse.figures.records import METRICS
from fuse.figures.resampling import RESAMPLES, SEED, confusion_cells, resample, sum_by_group
from fuse.figures.study import NestedGain
from fuse.training.calibration import fit_likelihood
from mmsa_cache.errors import SettingsError

MEMBERS = 8
"""Default number of different trials in an ensemble at most."""
_PICKS = 50
"""Picks at most: weights are multiples of one in so many."""
_SMALLEST_GAIN = 1e-6
"""Log-loss that a pick must save."""
_FOLDS = 5
"""Folds of the rows on which the gain of picking is measured."""


@dataclass(frozen=True, slots=True)
class EnsembleBudget:
    """Limits of an ensemble."""

    members: int = MEMBERS
    """Different trials."""
    bytes: float = np.inf
    """Size of the model file."""

    @property
    def single(self) -> EnsembleBudget:
        """The same for one trial."""
        return EnsembleBudget(1, self.bytes)


def pick_weights(
    probabilities: Floats, labels: Codes, budget: EnsembleBudget, sizes: NDArray[np.int64]
) -> Floats:
    """Picks members. Starts with the best trials: as many as are best averaged.

    Args:
        probabilities: Of held-out rows, (trials, rows, classes).
        labels: Class codes, (rows,).
        budget: Limits of the ensemble.
        sizes: Bytes of each trial's model, (trials,).

    Returns:
        Weights, (trials,), which sum to 1.

    Raises:
        SettingsError: Every model is larger than the budget.
    """
    return _pick(_true_class(probabilities, labels), budget, sizes)


def _true_class(probabilities: Floats, labels: Codes) -> Floats:
    """Calibrated probabilities of the true class, (trials, rows)."""
    calibrated = (fit_likelihood(trial, labels)(trial) for trial in probabilities)
    return np.exp(np.stack([log_likelihoods(labels, trial) for trial in calibrated]))


def _pick(true_class: Floats, budget: EnsembleBudget, sizes: NDArray[np.int64]) -> Floats:
    """See `pick_weights`; takes the probabilities of the true class, (trials, rows)."""
    picks = np.zeros(len(true_class))

    def affordable(trial: int) -> bool:
        members = picks > 0
        fits = sizes[members].sum() + sizes[trial] <= budget.bytes
        return bool(members[trial] or (members.sum() < budget.members and fits))

    total, best, start = np.zeros(true_class.shape[1]), -np.inf, picks
    for trial in np.argsort(-np.log(true_class).mean(1), kind="stable").tolist():
        if affordable(trial):
            picks[trial] += 1
            total = total + true_class[trial]
            value = float(np.log(total / picks.sum()).mean())
            if value > best + _SMALLEST_GAIN:
                best, start = value, picks.copy()
    if best == -np.inf:
        raise SettingsError(
            f"The smallest model has {sizes.min() / 1e6:.1f} MB, more than the ensemble may have.",
            "Raise --max-mb.",
        )
    picks, total = start, start @ true_class
    while picks.sum() < _PICKS:
        candidates = [trial for trial in range(len(true_class)) if affordable(trial)]
        values = np.log((total + true_class[candidates]) / (picks.sum() + 1)).mean(1)
        index = int(values.argmax())
        if values[index] <= best + _SMALLEST_GAIN:
            break
        best, trial = float(values[index]), candidates[index]
        picks[trial] += 1
        total = total + true_class[trial]
    weights: Floats = picks / picks.sum()
    return weights


def nested_gain(
    probabilities: Floats,
    labels: Codes,
    groups: NDArray[np.int64],
    budget: EnsembleBudget,
    sizes: NDArray[np.int64],
) -> dict[str, NestedGain]:
    """Gain of an ensemble over the best single trial, on rows that picked neither.

    The rows are cut into folds that keep duplicate groups together. Weights picked on all folds but
    one are scored on that one, as is the best single trial, picked the same way. Both averages are
    calibrated on the rows that picked them, as a final model is.

    Args:
        probabilities: Of held-out rows, (trials, rows, classes).
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,); the interval resamples them together.
        budget: See `pick_weights`.
        sizes: See `pick_weights`.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    folds = np.random.default_rng(SEED).permutation(numbers.max() + 1)[numbers] % _FOLDS
    single, ensemble = np.empty(probabilities.shape[1:]), np.empty(probabilities.shape[1:])
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        true_class = _true_class(probabilities[:, inside], labels[inside])
        for predicted, limits in ((single, budget.single), (ensemble, budget)):
            weights = _pick(true_class, limits, sizes)
            average = np.tensordot(weights, probabilities, 1)
            calibration = fit_likelihood(average[inside], labels[inside])
            predicted[outside] = calibration(average[outside])
    return gains(single, ensemble, labels, groups)


def gains(
    single: Floats, ensemble: Floats, labels: Codes, groups: NDArray[np.int64]
) -> dict[str, NestedGain]:
    """Compares two classifiers on the same rows: metrics, difference, paired interval.

    Args:
        single: Class probabilities, (rows, classes).
        ensemble: The same of the other classifier.
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,), resampled together.
    """
    classes = single.shape[1]
    group_sums = [
        sum_by_group(
            np.column_stack(
                [
                    confusion_cells(labels, probabilities.argmax(1), classes),
                    log_likelihoods(labels, probabilities),
                    np.ones(len(labels)),
                ]
            ),
            groups,
        )
        for probabilities in (single, ensemble)
    ]

    def metrics(sums: Floats) -> dict[str, Floats]:
        *_, likelihood, rows = np.moveaxis(sums, -1, 0)
        scores = confusion_scores(
            sums[..., : classes**2].reshape(*sums.shape[:-1], classes, classes)
        )
        return {
            metric: likelihood / rows if metric == "neg_log_loss" else scores[metric]
            for metric in METRICS
        }

    def differences(counts: Floats) -> dict[str, Floats]:
        before, after = (metrics(counts @ sums) for sums in group_sums)
        return {metric: after[metric] - before[metric] for metric in METRICS}

    drawn = resample(differences, len(group_sums[0]), resamples=RESAMPLES, seed=SEED)
    before, after = (metrics(sums.sum(0)) for sums in group_sums)
    return {
        metric: NestedGain(
            single=float(before[metric]),
            ensemble=float(after[metric]),
            interval=Interval.of(drawn[metric]),
        )
        for metric in METRICS
    }
