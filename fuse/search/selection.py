"""Selection of a trial, and how far its score can be trusted."""

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
from fuse.figures.study import OptimismGap
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import unknown_name

from .messages import FoldPredictions
from .trial_record import Trial

SELECT = ("best", "one-se")
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class ScoredTrial:
    """A trial that was trained on every split (fold and seed)."""

    number: int
    scores: tuple[float, ...]
    """Score on each split, in the same order for every trial."""
    parameters: int
    """Trained parameters of its model."""
    seconds: float
    """Training time."""

    @property
    def score(self) -> float:
        return float(np.mean(self.scores))

    @property
    def standard_error(self) -> float:
        """Of the mean over splits: sd / √n."""
        if len(self.scores) < 2:
            return 0.0
        return float(np.std(self.scores, ddof=1) / math.sqrt(len(self.scores)))


def scored_trials(trials: Sequence[Trial]) -> list[ScoredTrial]:
    """The complete trials of a study."""
    return [
        ScoredTrial(t.number, tuple(t.result.units), t.result.parameters, t.result.seconds)
        for t in trials
        if t.is_complete
    ]


def select(trials: Sequence[ScoredTrial], how: str) -> ScoredTrial:
    """Selects a trial.

    ``best`` has the highest mean. ``one-se`` is the simplest whose mean is at most one standard
    error of the best one's below it (Breiman et al., Classification and Regression Trees, 1984):
    the one with the fewest parameters, among equals the one that trained fastest.

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
    """Trials that cannot be told apart from the best one, by score.

    Scores are paired by split: the same rows under the same seed. Training rows of the folds
    overlap, so the variance of the mean difference is (1/n + 1/(folds − 1)) s². The difference is
    compared with Student's t at 95 % (Nadeau and Bengio, Inference for the Generalization Error,
    2003).
    """
    ordered = sorted(trials, key=lambda trial: (-trial.score, trial.number))
    best = np.array(ordered[0].scores)
    n = len(best)
    if n < 2:
        return [trial.number for trial in ordered]
    limit = stdtrit(n - 1, (1 + LEVEL) / 2)  # Student's t
    tied = []
    for trial in ordered:
        difference = best - np.array(trial.scores)
        error = math.sqrt((1 / n + 1 / (folds - 1)) * float(difference.var(ddof=1)))
        if difference.mean() <= limit * error:
            tied.append(trial.number)
    return tied


def optimism(
    predictions: Sequence[FoldPredictions],
    validation: Sequence[NDArray[np.int64]],
    outer: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    metric: str,
    seed: int,
) -> OptimismGap:
    """Compares the scores of the same models on held-out and on outer rows.

    The interval resamples duplicate groups, since posts that show the same thing are one draw. It
    does not include that the trial was selected as the best of many, which the gap itself shows.

    Args:
        predictions: One a split.
        validation: The held-out rows of each split.
        outer: The outer rows.
        labels: Class codes of all rows.
        groups: Duplicate groups of all rows.
        metric: One of `fuse.setting.METRICS`.
        seed: Seed of the resampling.
    """

    def sums_of(rows: NDArray[np.int64], probabilities: Floats) -> Floats:
        return _group_sums(labels[rows], probabilities, groups[rows], metric)

    inner_sums = [
        sums_of(rows, fold.held_out) for rows, fold in zip(validation, predictions, strict=True)
    ]
    outer_sums = [sums_of(outer, fold.outer) for fold in predictions]
    averaged = sums_of(outer, np.mean([fold.outer for fold in predictions], axis=0))
    gaps = _resampled_gaps(inner_sums, outer_sums, validation, outer, metric, seed)
    interval = Interval.of(gaps)
    inner_score = float(np.mean([_score(sums.sum(0), metric) for sums in inner_sums]))
    outer_score = float(np.mean([_score(sums.sum(0), metric) for sums in outer_sums]))
    return OptimismGap(
        inner_score=inner_score,
        outer_score=outer_score,
        outer_score_together=float(_score(averaged.sum(0), metric)),
        optimism_gap=inner_score - outer_score,
        optimism_interval=(interval.low, interval.high),
    )


def _resampled_gaps(
    inner_sums: Sequence[Floats],
    outer_sums: Sequence[Floats],
    validation: Sequence[NDArray[np.int64]],
    outer: NDArray[np.int64],
    metric: str,
    seed: int,
) -> Floats:
    """The gap on resampled groups, (resamples,). Models scored on the same rows share the draws."""
    inner_keys = [rows.tobytes() for rows in validation]
    outer_key = outer.tobytes()
    sizes = {key: len(sums) for key, sums in zip(inner_keys, inner_sums, strict=True)}
    sizes[outer_key] = len(outer_sums[0])

    def gap(*counts: Floats) -> dict[str, Floats]:
        drawn = dict(zip(sizes, counts, strict=True))
        inner = [
            _score(drawn[key] @ sums, metric)
            for key, sums in zip(inner_keys, inner_sums, strict=True)
        ]
        outer = [_score(drawn[outer_key] @ sums, metric) for sums in outer_sums]
        return {"gap": np.mean(inner, 0) - np.mean(outer, 0)}

    return resample(gap, *sizes.values(), resamples=_RESAMPLES, seed=seed)["gap"]


def _group_sums(
    labels: NDArray[np.int64],
    probabilities: Floats,
    groups: NDArray[np.int64],
    metric: str,
) -> Floats:
    """What each group adds to the sums that the metric is computed from, (groups, sums).

    Cells of the confusion matrix; for the log-loss, the log-probabilities and the number of rows.
    """
    if metric == "neg_log_loss":
        logs = log_likelihoods(labels, probabilities)
        return sum_by_group(np.stack([logs, np.ones(len(labels))], 1), groups)
    return sum_by_group(
        confusion_cells(labels, probabilities.argmax(1), probabilities.shape[1]), groups
    )


def _score(sums: Floats, metric: str) -> Floats:
    """The metric of summed `_group_sums`, (…, sums) → (…)."""
    if metric == "neg_log_loss":
        return sums[..., 0] / sums[..., 1]
    classes = math.isqrt(sums.shape[-1])
    return confusion_scores(sums.reshape(*sums.shape[:-1], classes, classes))[metric]
