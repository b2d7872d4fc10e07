"""The trial that a study's rule chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from fuse.setting import Setting
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER

from .coordinator import complete
from .database import DATABASE, FINISHED, address_of
from .records import Record, read_records
from .selection import scored, select
from .space import Study, restored
from .study_notes import IDENTITY, SELECTION, stored


@dataclass(frozen=True, slots=True)
class Chosen:
    """A trial that was chosen, by a study's rule or by name."""

    study: str
    trial: int
    score: float
    setting: Setting
    source: dict[str, Any] = field(default_factory=dict)
    """Where it came from: database, rule, scores of the units, finished trials of the study."""


def choose(
    name: str, origin: dict[str, Any], storage: str | Path = DATABASE
) -> tuple[Chosen, Study]:
    """Takes the choice of one study, or of all studies made on the same features, or one trial.

    Args:
        name: A study's name, ``NAME:TRIAL``, or ``best``.
        origin: What the features are, of a modality the cache or all of them by encoder; studies
            on others are passed over.
        storage: SQLite file, or the address of a database.

    Raises:
        SettingsError: There is none.
    """
    hint = "Run mmsa search first."
    place = address_of(storage).render_as_string()
    records = read_records(storage)
    if not records:
        raise SettingsError(f"There are no studies here ({place}).", hint)
    study_name, _, number = name.partition(":")
    if number and not number.isdecimal():
        raise SettingsError(f"{name!r} names no trial.", "Write NAME:TRIAL, e.g. default:17.")
    wanted = json.loads(json.dumps(origin))
    found: list[tuple[Chosen, Study]] = []
    others: list[str] = []
    for record in records:
        identity = stored(record.attributes, IDENTITY, dict, {})
        if study_name not in ("best", record.name):
            continue
        if not all(_is_of(identity.get(key), value) for key, value in wanted.items()):
            others.append(record.name)
            continue
        trial = _trial(record, int(number)) if number else _selected(record)
        if trial is None:
            continue
        how = "named" if number else _rule_of(record)
        finished = sum(t.state in FINISHED for t in record.trials)
        chosen = chosen_from(trial, record.name, how=how, finished=finished, storage=place)
        found.append((chosen, Study.from_dict(identity)))
    if not found:
        problems = [f"{other} was made on other features" for other in others]
        raise SettingsError(
            f"No study {study_name!r} has a finished trial on these features.", hint, problems
        )
    return max(found, key=lambda item: item[0].score)


def chosen_from(trial: FrozenTrial, study: str, **source: Any) -> Chosen:
    assert trial.value is not None
    try:
        setting = restored(trial.user_attrs["setting"])
    except ValueError as error:
        raise SettingsError(
            f"Trial {trial.number} of the study {study!r} is not of this version: {error}.",
            "Search again.",
        ) from error
    units = trial.user_attrs["result"]["units"]
    source = {"trial": trial.number, "score": trial.value, "units": units, **source}
    return Chosen(study, trial.number, trial.value, setting, source)


def by_number(trials: Sequence[FrozenTrial], number: int) -> FrozenTrial:
    return next(trial for trial in trials if trial.number == number)


def _selected(record: Record) -> FrozenTrial | None:
    """The trial that the study's rule chooses now; the rule is that of its last search."""
    every = scored(record.trials)
    if not every:
        return None
    return by_number(record.trials, select(every, _rule_of(record)).number)


def _rule_of(record: Record) -> str:
    return str(stored(record.attributes, SELECTION, dict, {}).get("how", "best"))


def _is_of(known: Any, here: Any) -> bool:
    """Whether what a study was made on is what is here, or among it."""
    if not isinstance(here, dict):
        return bool(known == here)
    named = known if isinstance(known, dict) else {DEFAULT_ENCODER: known}
    return named.items() <= here.items()


def _trial(record: Record, number: int) -> FrozenTrial:
    done = {trial.number: trial for trial in complete(record.trials)}
    if number not in done:
        best = sorted(done.values(), key=lambda t: -float(t.values[0]))[:5]
        raise SettingsError(
            f"Trial {number} of the study {record.name!r} was not trained to the end.",
            f"Its best: {', '.join(str(trial.number) for trial in best) or 'none'}.",
        )
    return done[number]


@dataclass(frozen=True, slots=True)
class Summary:
    """A study as a list shows it."""

    name: str
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    score: float | None = None
    """Of its selected trial, or its best one."""
    last: float | None = None
    """When its last trial ended, seconds since 1970."""


def summaries(storage: str | Path = DATABASE) -> list[Summary]:
    """All studies of a database."""
    rows = []
    for record in read_records(storage):
        count = {state: sum(t.state is state for t in record.trials) for state in TrialState}
        ends = [t.datetime_complete.timestamp() for t in record.trials if t.datetime_complete]
        found = _selected(record)
        rows.append(
            Summary(
                record.name,
                count[TrialState.COMPLETE],
                count[TrialState.PRUNED],
                count[TrialState.FAIL],
                None if found is None else found.value,
                max(ends, default=None),
            )
        )
    return rows
