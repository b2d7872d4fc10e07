"""Importance of parameters, best trials by value, scores over the weights of the loss."""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator

from fuse.figures.study import BestOfValue, LossWeights, ParameterImportance, Value

from .trial_record import Trial

_LEAST = 10
"""Complete trials that an estimate of importance needs."""
_RESAMPLES = 30
_SPREAD = (0.05, 0.95)
_TOP = 0.25
"""Share of the trials that count as good ones."""


def importances(trials: Sequence[Trial], seed: int) -> list[ParameterImportance]:
    """How much each parameter separates the good trials from the others, with its uncertainty.

    PED-ANOVA (Watanabe et al., 2023), which supports parameters that only some trials have; the
    shares sum to 1. The interval is over resampled trials: a wide one means that the study cannot
    tell. Only complete trials are used, so a parameter whose bad values are pruned early looks less
    important than it is.

    Args:
        trials: All trials of a study.
        seed: Seed of the resampling.

    Returns:
        A record a parameter, by median; none for fewer than ten complete trials.
    """
    complete = [trial for trial in trials if trial.is_complete]
    pruned = [trial for trial in trials if trial.is_finished and not trial.is_complete]
    if len(complete) < _LEAST:
        return []
    rng = np.random.default_rng(seed)
    shares_of: dict[str, list[float]] = defaultdict(list)
    for _ in range(_RESAMPLES):
        drawn = [complete[i] for i in rng.integers(0, len(complete), len(complete))]
        for name, share in _ped_anova(drawn).items():
            shares_of[name].append(share)
    records = []
    for name, shares in shares_of.items():
        values = np.array(shares + [0.0] * (_RESAMPLES - len(shares)))
        low, high = np.quantile(values, _SPREAD)
        records.append(
            ParameterImportance(
                parameter=name,
                median=float(np.median(values)),
                low=float(low),
                high=float(high),
                trials=sum(name in trial.frozen.params for trial in complete),
                pruned=sum(name in trial.frozen.params for trial in pruned),
            )
        )
    return sorted(records, key=lambda record: -record.median)


def _ped_anova(trials: Sequence[Trial]) -> dict[str, float]:
    study = optuna.create_study(direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental; few trials under a condition
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params=trial.frozen.params,
                    distributions=trial.frozen.distributions,
                    value=trial.score,
                )
                for trial in trials
            ]
        )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=_TOP)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items() if np.isfinite(share)}


def best_by_value(trials: Sequence[Trial], parameter: str) -> list[BestOfValue]:
    """The best complete trial of each value of a setting's field, best first."""
    groups: dict[Value, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.is_finished:
            groups[trial.record.setting.get(parameter)].append(trial)
    records = []
    for value, group in groups.items():
        complete = [trial for trial in group if trial.is_complete]
        if not complete:
            continue
        best = max(complete, key=lambda trial: (trial.score, -trial.number))
        records.append(
            BestOfValue(
                value=value,
                trials=len(group),
                complete=len(complete),
                trial=best.number,
                score=best.score,
                setting=best.record.setting,
            )
        )
    return sorted(records, key=lambda record: -record.score)


def loss_weight_scores(trials: Sequence[Trial]) -> list[LossWeights]:
    """Scores of complete trials at each point of the adaptive loss's weights."""
    points: dict[tuple[float, float], list[float]] = defaultdict(list)
    pruned: Counter[tuple[float, float]] = Counter()
    for trial in trials:
        setting = trial.record.setting
        weights = [setting.get(key) for key in ("alpha", "beta")]
        alpha, beta = (round(w, 6) if isinstance(w, int | float) else math.nan for w in weights)
        if setting.get("loss") != "acb" or math.isnan(alpha + beta):
            continue
        if trial.is_complete:
            points[alpha, beta].append(trial.score)
        elif trial.is_finished:
            pruned[alpha, beta] += 1
    return [
        LossWeights(
            alpha=alpha,
            beta=beta,
            trials=len(scores),
            mean=float(np.mean(scores)),
            best=max(scores),
            pruned=pruned[alpha, beta],
        )
        for (alpha, beta), scores in sorted(points.items())
    ]
