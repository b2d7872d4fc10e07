"""Draws the next trial from the study's seed and its earlier trials.

Each trial gets a new sampler that is seeded by the study's seed and the trial's number and sees all
earlier trials. A resumed study therefore draws what an uninterrupted one would, and does not repeat
its random phase.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from fuse.figures.study import Value
from fuse.setting import Setting

from .study import StudyConfig

# Spaces of lists are finite. A trial that repeats another one is drawn again, in the end at random.
_REDRAWS = 30
_REDRAWS_BY_SAMPLER = 10


@dataclass(frozen=True, slots=True)
class DrawnSetting:
    """A setting to try, and its parameters as Optuna stores them."""

    setting: Setting
    params: dict[str, Value]
    distributions: dict[str, BaseDistribution]


def draw(study: StudyConfig, trials: Sequence[FrozenTrial]) -> DrawnSetting:
    """Takes the first setting of the queue that was not tried; if all were, draws one.

    Running trials count as poor ones (constant liar).

    Args:
        study: The space and the seed.
        trials: All trials of the study so far, by number.
    """
    queued = _next_queued(study, trials)
    if queued is not None:
        return queued
    earlier = [_for_sampler(trial) for trial in trials if trial.state is not TrialState.WAITING]
    tried = [trial.params for trial in trials]
    for attempt in range(_REDRAWS):
        at_random = study.sampler.kind == "random" or attempt >= _REDRAWS_BY_SAMPLER
        seed = _derive_seed(study.protocol.seed, len(trials), attempt)
        drawn = _sample(study, earlier, seed, at_random)
        if drawn.params not in tried:
            break
    return drawn


def _next_queued(study: StudyConfig, trials: Sequence[FrozenTrial]) -> DrawnSetting | None:
    """The first untried setting of the queue. The sampler learns from its values that are in the
    space."""
    tried = [trial.user_attrs.get("setting") for trial in trials]
    for setting in study.queued_settings():
        values = asdict(setting)
        if values in tried:
            continue
        params: dict[str, Value] = {}
        distributions: dict[str, BaseDistribution] = {}
        for key in study.order():
            distribution = study.space[key].distribution(key)
            if study.is_active(key, values) and _contains(distribution, values[key]):
                params[key], distributions[key] = values[key], distribution
        return DrawnSetting(setting, params, distributions)
    return None


def _contains(distribution: BaseDistribution, value: Value) -> bool:
    try:
        optuna.trial.create_trial(value=0.0, params={"": value}, distributions={"": distribution})
    except ValueError:
        return False
    return True


def _sample(
    study: StudyConfig, trials: list[FrozenTrial], seed: int, at_random: bool
) -> DrawnSetting:
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if at_random
        else optuna.samplers.TPESampler(seed=seed, n_startup_trials=study.sampler.startup)
    )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna_study = optuna.create_study(direction="maximize", sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna_study.add_trials(trials)
        trial = optuna_study.ask()
        return DrawnSetting(study.suggest(trial), trial.params, trial.distributions)


def _for_sampler(trial: FrozenTrial) -> FrozenTrial:
    """The part of a trial that a sampler reads.

    A failed trial becomes one that was pruned before its first step, which is the poorest. Samplers
    ignore failed trials and would draw settings that diverge again and again.
    """
    last = trial.last_step
    return _SharedTrial(
        number=trial.number,
        state=TrialState.PRUNED if trial.state is TrialState.FAIL else trial.state,
        value=trial.value if trial.state is TrialState.COMPLETE else None,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={} if last is None else {last: trial.intermediate_values[last]},
        trial_id=trial.number,
    )


class _SharedTrial(FrozenTrial):
    """A trial that is never changed. Its copies are shallow, since deep copies of all trials would
    take most of the time of drawing."""

    def __deepcopy__(self, memo: object) -> _SharedTrial:
        return copy.copy(self)


def _derive_seed(seed: int, *parts: int) -> int:
    """Derives a 32-bit seed."""
    text = ":".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
