"""Draws the next trial from the study's seed and its trials alone.

Every trial gets a new sampler, seeded by the study's seed and the trial's number, that sees the
trials so far. So a resumed study draws what an unbroken one would, and never repeats its random
phase.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from fuse.setting import Setting

from .study import Study

# Spaces of lists are finite: a repeated trial teaches nothing, so it is drawn again, in the end at
# random.
_REDRAWS = 30
_REDRAWS_BY_SAMPLER = 10


@dataclass(frozen=True, slots=True)
class Draw:
    """A point of the space."""

    setting: Setting
    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]


def draw(study: Study, record: Sequence[FrozenTrial]) -> Draw:
    """Draws the next trial; running trials count as poor ones (constant liar).

    Args:
        study: The space and the seed.
        record: All trials of the study so far, by number.
    """
    seen = [_bare(trial) for trial in record if trial.state is not TrialState.WAITING]
    tried = [trial.params for trial in record]
    for attempt in range(_REDRAWS):
        at_random = study.sampler.kind == "random" or attempt >= _REDRAWS_BY_SAMPLER
        drawn = _ask(study, seen, _derived(study.protocol.seed, len(record), attempt), at_random)
        if drawn.params not in tried:
            break
    return drawn


def _ask(study: Study, seen: list[FrozenTrial], seed: int, at_random: bool) -> Draw:
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if at_random
        else optuna.samplers.TPESampler(seed=seed, n_startup_trials=study.sampler.startup)
    )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    copy = optuna.create_study(direction="maximize", sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        copy.add_trials(seen)
        trial = copy.ask()
        return Draw(study.suggest(trial), trial.params, trial.distributions)


def _bare(trial: FrozenTrial) -> FrozenTrial:
    """The part of a trial that a sampler reads.

    A failed trial looks like one pruned before its first step, the poorest there is: samplers
    ignore failed ones, and would draw settings that diverge again and again.
    """
    last = trial.last_step
    return optuna.trial.create_trial(
        state=TrialState.PRUNED if trial.state is TrialState.FAIL else trial.state,
        params=trial.params,
        distributions=trial.distributions,
        value=trial.value if trial.state is TrialState.COMPLETE else None,
        intermediate_values={} if last is None else {last: trial.intermediate_values[last]},
    )


def _derived(seed: int, *parts: int) -> int:
    """A 32-bit seed for one purpose."""
    text = ":".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
