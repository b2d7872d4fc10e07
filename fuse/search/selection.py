"""Which trial is chosen, and how far its score may be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from fuse.figures.confusion import Floats, confusion_scores
from fuse.figures.metrics import log_likelihoods
from fuse.figures.record import LEVEL, Interval
from fuse.figures.resampling import confusion_cells, resample, sum_by_group
from fuse.figures.study import Gap
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import unknown_name

from .messages import FoldPredictions
from .trial_record import Trial

SELECT = ("best", "one-se")
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class ScoredTrial:
    """A trial that was trained on every unit (fold and seed)."""

    number: int
    units: tuple[float, ...]
    """Its scores, the units in the same order for every trial."""
    parameters: int
    """Trained numbers of its model."""
    seconds: float
    """What its trainings took."""

    @property
    def score(self) -> float:
        return float(np.mean(self.units))

    @property
    def standard_error(self) -> float:
        """Of the mean over units: sd / √n."""
        if len(self.units) < 2:
            return 0.0
        return float(np.std(self.units, ddof=1) / math.sqrt(len(self.units)))


def scored(trials: Sequence[Trial]) -> list[ScoredTrial]:
    """The complete trials of a study."""
    return [
        ScoredTrial(t.number, tuple(t.result.units), t.result.parameters, t.result.seconds)
        for t in trials
        if t.is_complete
    ]


def select(trials: Sequence[ScoredTrial], how: str) -> ScoredTrial:
    """Takes a trial.

    ``best`` has the highest mean. ``one-se`` is the simplest whose mean is at most one standard
    error of the best one's below it (Breiman et al., Classification and Regression Trees, 1984):
    the one with the fewest trained numbers, of equal ones the one that trained fastest.

    Raises:
        SettingsError: Unknown rule, or no trial.
    """
    if how not in SELECT:
        raise unknown_name("Unknown rule", how, SELECT)
    if not trials:
        raise SettingsError("No trial was trained to the end.", "Raise --trials.")
    best = max(trials, key=lambda trial: (trial.score, -trial.number))
    if how == "best":
        return best
    near = [trial for trial in trials if trial.score >= best.score - best.standard_error]
    return min(near, key=lambda trial: (trial.parameters, trial.seconds, trial.number))


def ties(trials: Sequence[ScoredTrial], folds: int) -> list[int]:
    """Trials that cannot be told apart from the best one, the best one first.

    Units are paired: the same rows under the same seed. Training rows of the folds overlap, so the
    variance of the mean difference is taken as (1/n + 1/(folds − 1)) s² and compared with Student's
    t at 95 % (Nadeau and Bengio, Inference for the Generalization Error, 2003).
    """
    ordered = sorted(trials, key=lambda trial: (-trial.score, trial.number))
    best = np.array(ordered[0].units)
    n = len(best)
    if n < 2:
        return [trial.number for trial in ordered]
    limit = stdtrit(n - 1, (1 + LEVEL) / 2)  # Student's t
    found = []
    for trial in ordered:
        difference = best - np.array(trial.units)
        error = math.sqrt((1 / n + 1 / (folds - 1)) * float(difference.var(ddof=1)))
        if difference.mean() <= limit * error:
            found.append(trial.number)
    return found


def optimism(
    judgements: Sequence[FoldPredictions],
    validation: Sequence[NDArray[np.int64]],
    outer: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    metric: str,
    seed: int,
) -> Gap:
    """Compares the scores of the same models on held-out and on outer rows.

    The interval resamples duplicate groups, since posts that show the same thing are one draw; it
    does not count that the choice was the best of many, which is what the gap itself shows.

    Args:
        judgements: A unit each.
        validation: A unit each: the rows of its ``held_out`` probabilities.
        outer: The rows of the ``outer`` probabilities.
        labels: Class codes of all rows.
        groups: Duplicate groups of all rows.
        metric: One of `fuse.setting.METRICS`.
        seed: Seed of the resampling.
    """
    inside = [
        _cells(labels[rows], of.held_out, groups[rows], metric)
        for rows, of in zip(validation, judgements, strict=True)
    ]
    outside = [_cells(labels[outer], of.outer, groups[outer], metric) for of in judgements]
    mean = np.mean([of.outer for of in judgements], axis=0)
    together = _cells(labels[outer], mean, groups[outer], metric)
    # The same rows are drawn alike for every model that is scored on them.
    sizes = {
        rows.tobytes(): len(sums)
        for rows, sums in [*zip(validation, inside, strict=True), (outer, outside[0])]
    }

    def gap(*times: Floats) -> dict[str, Floats]:
        drawn = dict(zip(sizes, times, strict=True))
        inner = [
            _score(drawn[rows.tobytes()] @ sums, metric)
            for rows, sums in zip(validation, inside, strict=True)
        ]
        found = [_score(drawn[outer.tobytes()] @ sums, metric) for sums in outside]
        return {"gap": np.mean(inner, 0) - np.mean(found, 0)}

    gaps = resample(gap, *sizes.values(), resamples=_RESAMPLES, seed=seed)["gap"]
    interval = Interval.of(gaps)
    inner = float(np.mean([_score(c.sum(0), metric) for c in inside]))
    outer_score = float(np.mean([_score(c.sum(0), metric) for c in outside]))
    return Gap(
        inner_score=inner,
        outer_score=outer_score,
        outer_score_together=float(_score(together.sum(0), metric)),
        optimism_gap=inner - outer_score,
        optimism_interval=(interval.low, interval.high),
    )


def _cells(
    labels: NDArray[np.int64],
    probabilities: Floats,
    groups: NDArray[np.int64],
    metric: str,
) -> Floats:
    """What each group adds to the figures that the metric is made of, (groups, figures).

    Cells of the confusion matrix; for the log-loss, the sum of log-probabilities and the rows.
    """
    if metric == "neg_log_loss":
        logs = log_likelihoods(labels, probabilities)
        return sum_by_group(np.stack([logs, np.ones(len(labels))], 1), groups)
    return sum_by_group(
        confusion_cells(labels, probabilities.argmax(1), probabilities.shape[1]), groups
    )


def _score(sums: Floats, metric: str) -> Floats:
    """The metric of sums of `_cells`, (…, figures) → (…)."""
    if metric == "neg_log_loss":
        return sums[..., 0] / sums[..., 1]
    classes = math.isqrt(sums.shape[-1])
    return confusion_scores(sums.reshape(*sums.shape[:-1], classes, classes))[metric]
