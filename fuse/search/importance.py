"""What mattered in a study: parameters, fusions, the weights of the loss."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

_LEAST = 10
"""Complete trials below which nothing is said of importance."""
_RESAMPLES = 30
_SPREAD = (0.05, 0.95)
_TOP = 0.25
"""Share of the trials that count as good ones."""


def importances(trials: Sequence[FrozenTrial], seed: int) -> list[dict[str, Any]]:
    """How much each parameter sets the good trials apart from the others, with its uncertainty.

    PED-ANOVA (Watanabe et al., 2023), which also takes parameters that only some trials have; the
    shares sum to 1. The spread is that of resampled trials: where it reaches from nearly 0 to much,
    the study does not know. Pruned trials take no part.

    Args:
        trials: A record.
        seed: Seed of the resampling.

    Returns:
        ``parameter``, ``median``, ``low``, ``high`` (5 and 95 %), and
        the ``trials`` that have it; by median.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if len(complete) < _LEAST:
        return []
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(_RESAMPLES):
        chosen = [complete[i] for i in rng.integers(0, len(complete), len(complete))]
        for name, share in _ped_anova(chosen).items():
            found[name].append(share)
    rows = []
    for name, shares in found.items():
        values = np.array(shares + [0.0] * (_RESAMPLES - len(shares)))
        low, high = np.quantile(values, _SPREAD)
        rows.append(
            {
                "parameter": name,
                "median": float(np.median(values)),
                "low": float(low),
                "high": float(high),
                "trials": sum(name in trial.params for trial in complete),
            }
        )
    return sorted(rows, key=lambda row: -row["median"])


def _ped_anova(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    copy = optuna.create_study(direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental; few trials in a condition
        copy.add_trials(
            [
                optuna.trial.create_trial(
                    params=trial.params, distributions=trial.distributions, value=trial.value
                )
                for trial in trials
            ]
        )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=_TOP)
        found = optuna.importance.get_param_importances(copy, evaluator=evaluator)
    return {name: float(share) for name, share in found.items() if np.isfinite(share)}


def by_value(trials: Sequence[FrozenTrial], parameter: str) -> list[dict[str, Any]]:
    """The best complete trial of each value of a setting's field, best first.

    Returns:
        ``value``, ``trials`` (finished), ``complete``, and ``trial``, ``score``, ``setting`` of the
        best.
    """
    parts: dict[Any, list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            parts[trial.user_attrs["setting"][parameter]].append(trial)
    rows = []
    for value, part in parts.items():
        complete = [trial for trial in part if trial.state is TrialState.COMPLETE]
        if not complete:
            continue
        best = max(complete, key=lambda trial: (trial.value, -trial.number))
        rows.append(
            {
                "value": value,
                "trials": len(part),
                "complete": len(complete),
                "trial": best.number,
                "score": best.value,
                "setting": best.user_attrs["setting"],
            }
        )
    return sorted(rows, key=lambda row: -row["score"])


def alpha_beta(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """Scores over the weights of the adaptive loss; each point's trials differ in all else.

    Returns:
        ``alpha``, ``beta``, ``trials``, ``mean``, ``best`` of the complete trials with that loss.
    """
    points: dict[tuple[float, float], list[float]] = defaultdict(list)
    for trial in trials:
        setting = trial.user_attrs.get("setting", {})
        if trial.state is TrialState.COMPLETE and setting.get("loss") == "acb":
            point = (round(setting["alpha"], 6), round(setting["beta"], 6))
            points[point].append(float(trial.values[0]))
    return [
        {
            "alpha": alpha,
            "beta": beta,
            "trials": len(scores),
            "mean": float(np.mean(scores)),
            "best": max(scores),
        }
        for (alpha, beta), scores in sorted(points.items())
    ]
