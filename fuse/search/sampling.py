"""Draws the next trial from the study's seed and its trials alone.

Every trial gets a new sampler, seeded by the study's seed and the trial's number, that sees the
trials so far. So a resumed study draws what an unbroken one would, and never repeats its random
phase.
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

# Spaces of lists are finite: a repeated trial teaches nothing, so it is drawn again, in the end at
# random.
_REDRAWS = 30
_REDRAWS_BY_SAMPLER = 10


@dataclass(frozen=True, slots=True)
class DrawnSetting:
    """A point of the space."""

    setting: Setting
    params: dict[str, Value]
    distributions: dict[str, BaseDistribution]


def draw(study: StudyConfig, record: Sequence[FrozenTrial]) -> DrawnSetting:
    """The first of the queue that was not tried, else a drawn one.

    When one is drawn, running trials count as poor ones (constant liar).

    Args:
        study: The space and the seed.
        record: All trials of the study so far, by number.
    """
    waiting = _next_of_queue(study, record)
    if waiting is not None:
        return waiting
    seen = [_bare(trial) for trial in record if trial.state is not TrialState.WAITING]
    tried = [trial.params for trial in record]
    for attempt in range(_REDRAWS):
        at_random = study.sampler.kind == "random" or attempt >= _REDRAWS_BY_SAMPLER
        drawn = _ask(study, seen, _derived(study.protocol.seed, len(record), attempt), at_random)
        if drawn.params not in tried:
            break
    return drawn


def _next_of_queue(study: StudyConfig, record: Sequence[FrozenTrial]) -> DrawnSetting | None:
    """The sampler learns from what the space has of its values."""
    tried = [trial.user_attrs.get("setting") for trial in record]
    for setting in study.queued():
        values = asdict(setting)
        if values in tried:
            continue
        params: dict[str, Value] = {}
        distributions: dict[str, BaseDistribution] = {}
        for key in study.order():
            choice = study.space[key].distribution(key)
            if study.matters(key, values) and _has(choice, values[key]):
                params[key], distributions[key] = values[key], choice
        return DrawnSetting(setting, params, distributions)
    return None


def _has(choice: BaseDistribution, value: Value) -> bool:
    try:
        optuna.trial.create_trial(value=0.0, params={"": value}, distributions={"": choice})
    except ValueError:
        return False
    return True


def _ask(study: StudyConfig, seen: list[FrozenTrial], seed: int, at_random: bool) -> DrawnSetting:
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if at_random
        else optuna.samplers.TPESampler(seed=seed, n_startup_trials=study.sampler.startup)
    )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    shadow = optuna.create_study(direction="maximize", sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shadow.add_trials(seen)
        trial = shadow.ask()
        return DrawnSetting(study.suggest(trial), trial.params, trial.distributions)


def _bare(trial: FrozenTrial) -> FrozenTrial:
    """The part of a trial that a sampler reads.

    A failed trial looks like one pruned before its first step, the poorest there is: samplers
    ignore failed ones, and would draw settings that diverge again and again.
    """
    last = trial.last_step
    return _Bare(
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


class _Bare(FrozenTrial):
    """A trial that nobody changes: the copy that a study keeps shares what it holds, since copying
    all trials whole would take most of a draw's time."""

    def __deepcopy__(self, memo: object) -> _Bare:
        return copy.copy(self)


def _derived(seed: int, *parts: int) -> int:
    """A 32-bit seed for one purpose."""
    text = ":".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
