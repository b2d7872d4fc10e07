"""Greedy ensemble selection from held-out predictions.

Caruana et al. 2004, "Ensemble Selection from Libraries of Models": members are picked one after
another, with replacement, each the one that lowers the log-loss of the average most.

Trials are compared as calibrated ones, since their average is calibrated in the end: a trial whose
training balanced the classes has a poor log-loss for that alone.
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
"""Different trials of an ensemble at most, where nothing is said."""
_PICKS = 50
"""Weights are multiples of one in so many at most."""
_SMALLEST_GAIN = 1e-6
"""Log-loss that a pick must save."""
_FOLDS = 5
"""Folds of the rows on which the gain of picking is measured."""


@dataclass(frozen=True, slots=True)
class EnsembleBudget:
    """What an ensemble may cost."""

    members: int = MEMBERS
    """Different trials."""
    bytes: float = np.inf
    """Of the model file."""

    @property
    def single(self) -> EnsembleBudget:
        """The same for one trial."""
        return EnsembleBudget(1, self.bytes)


def greedy(
    probabilities: Floats, labels: Codes, budget: EnsembleBudget, sizes: NDArray[np.int64]
) -> Floats:
    """Picks members; begins with as many of the best trials as are best averaged.

    Args:
        probabilities: Of held-out rows, (trials, rows, classes).
        labels: Class codes, (rows,).
        budget: What the members may cost.
        sizes: Bytes of each trial's model, (trials,).

    Returns:
        Weights, (trials,), which sum to 1.

    Raises:
        SettingsError: Every model is larger than the budget.
    """
    return _greedy(_likely(probabilities, labels), budget, sizes)


def _likely(probabilities: Floats, labels: Codes) -> Floats:
    """Calibrated probabilities of the true class, (trials, rows)."""
    calibrated = (fit_likelihood(of, labels)(of) for of in probabilities)
    return np.exp(np.stack([log_likelihoods(labels, of) for of in calibrated]))


def _greedy(likely: Floats, budget: EnsembleBudget, sizes: NDArray[np.int64]) -> Floats:
    """`greedy` of the probabilities of the true class, (trials, rows)."""
    picks = np.zeros(len(likely))

    def affordable(trial: int) -> bool:
        has = picks > 0
        fits = sizes[has].sum() + sizes[trial] <= budget.bytes
        return bool(has[trial] or (has.sum() < budget.members and fits))

    total, best, start = np.zeros(likely.shape[1]), -np.inf, picks
    for trial in np.argsort(-np.log(likely).mean(1), kind="stable").tolist():
        if affordable(trial):
            picks[trial] += 1
            total = total + likely[trial]
            value = float(np.log(total / picks.sum()).mean())
            if value > best + _SMALLEST_GAIN:
                best, start = value, picks.copy()
    if best == -np.inf:
        raise SettingsError(
            f"The smallest model has {sizes.min() / 1e6:.1f} MB, more than the ensemble may have.",
            "Raise --max-mb.",
        )
    picks, total = start, start @ likely
    while picks.sum() < _PICKS:
        open_ = [trial for trial in range(len(likely)) if affordable(trial)]
        values = np.log((total + likely[open_]) / (picks.sum() + 1)).mean(1)
        place = int(values.argmax())
        if values[place] <= best + _SMALLEST_GAIN:
            break
        best, trial = float(values[place]), open_[place]
        picks[trial] += 1
        total = total + likely[trial]
    weights: Floats = picks / picks.sum()
    return weights


def nested_gain(
    probabilities: Floats,
    labels: Codes,
    groups: NDArray[np.int64],
    budget: EnsembleBudget,
    sizes: NDArray[np.int64],
) -> dict[str, NestedGain]:
    """What an ensemble is worth on rows that its weights were not picked on.

    The rows are cut into folds that keep duplicate groups together. Weights picked on all folds but
    one are scored on that one, as is the best single trial, picked the same way. Both averages are
    calibrated as a final model is, on the rows that picked them.

    Args:
        probabilities: Of held-out rows, (trials, rows, classes).
        labels: Class codes, (rows,).
        groups: Duplicate groups, (rows,); the interval resamples them together.
        budget: See `greedy`.
        sizes: See `greedy`.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    fold = np.random.default_rng(SEED).permutation(numbers.max() + 1)[numbers] % _FOLDS
    one, several = np.empty(probabilities.shape[1:]), np.empty(probabilities.shape[1:])
    for number in np.unique(fold):
        inside, outside = fold != number, fold == number
        likely = _likely(probabilities[:, inside], labels[inside])
        for found, limit in ((one, budget.single), (several, budget)):
            weights = _greedy(likely, limit, sizes)
            mixed = np.tensordot(weights, probabilities, 1)
            calibration = fit_likelihood(mixed[inside], labels[inside])
            found[outside] = calibration(mixed[outside])
    return gains(one, several, labels, groups)


def gains(
    one: Floats, several: Floats, labels: Codes, groups: NDArray[np.int64]
) -> dict[str, NestedGain]:
    """Metrics of two classifiers of the same rows, their difference, its paired interval."""
    classes = one.shape[1]
    summed = [
        sum_by_group(
            np.column_stack(
                [
                    confusion_cells(labels, of.argmax(1), classes),
                    log_likelihoods(labels, of),
                    np.ones(len(labels)),
                ]
            ),
            groups,
        )
        for of in (one, several)
    ]

    def scored(sums: Floats) -> dict[str, Floats]:
        *_, likelihood, rows = np.moveaxis(sums, -1, 0)
        confusion = confusion_scores(
            sums[..., : classes**2].reshape(*sums.shape[:-1], classes, classes)
        )
        return {
            metric: likelihood / rows if metric == "neg_log_loss" else confusion[metric]
            for metric in METRICS
        }

    def gained(times: Floats) -> dict[str, Floats]:
        before, after = (scored(times @ of) for of in summed)
        return {metric: after[metric] - before[metric] for metric in METRICS}

    drawn = resample(gained, len(summed[0]), resamples=RESAMPLES, seed=SEED)
    before, after = (scored(of.sum(0)) for of in summed)
    return {
        metric: NestedGain(
            single=float(before[metric]),
            ensemble=float(after[metric]),
            interval=Interval.of(drawn[metric]),
        )
        for metric in METRICS
    }
