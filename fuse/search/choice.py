"""The trial that a study's rule chooses."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fuse.figures.record import Count, Record
from fuse.figures.study import StudySource
from fuse.setting import Setting
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, unknown_name
from mmsa_cache.store.identity import Origin

from .address import Address, address_of
from .database import DATABASE, StoredStudy, read_studies
from .selection import scored_trials, select
from .study import StudyConfig
from .trial_record import Trial


@dataclass(frozen=True, slots=True)
class ChosenTrial:
    """A trial that was chosen, by a study's rule or by name."""

    study: StudyConfig
    setting: Setting
    source: StudySource
    compared: list[StoredStudy]
    """The studies that it was chosen from: of one protocol and metric."""
    passed_over: list[str]
    """Other studies, and why they cannot be compared with these."""


def choose(name: str, origin: Origin, storage: str | Path | Address = DATABASE) -> ChosenTrial:
    """Takes the choice of one study, or of all that can be compared, or one trial.

    Scores of studies can be compared where protocol, metric, features and labels are equal: the
    study that was searched last with all that are like it. Studies of one part of a
    cross-validation are taken by their names only.

    Args:
        name: A study's name, ``NAME:TRIAL``, or ``best``.
        origin: The features that are here, of a modality one cache or all by encoder; studies on
            others are passed over.
        storage: SQLite file, or the address of a database.

    Raises:
        SettingsError: There is none.
    """
    hint = "Run mmsa search first."
    address = address_of(storage)
    studies = read_studies(address)
    if not studies:
        raise SettingsError(f"There are no studies here ({address}).", hint)
    study_name, _, number = name.partition(":")
    if number and not number.isdecimal():
        raise SettingsError(f"{name!r} names no trial.", "Write NAME:TRIAL, e.g. default:17.")
    known = [stored.name for stored in studies]
    if study_name not in ("best", *known):
        raise unknown_name("There is no study", study_name, ("best", *known), hint)
    usable: list[tuple[StoredStudy, StudyConfig, Trial]] = []
    others: list[str] = []
    for stored in studies:
        identity = stored.record.identity
        if study_name not in ("best", stored.name):
            continue
        if identity is None or not _is_made_on(identity.origin, origin):
            others.append(f"{stored.name} was made on other features or labels")
            continue
        if study_name == "best" and "/" in identity.study.protocol.outer:
            continue
        trial = _named(stored, int(number)) if number else selected(stored)
        if trial is not None:
            usable.append((stored, identity.study, trial))
    if not usable:
        raise SettingsError(
            f"No study {study_name!r} has a finished trial on these features.", hint, others
        )
    _, leader, _ = max(usable, key=lambda candidate: _last_end(candidate[0]))
    equal = [of for of in usable if not _differences(of[1], leader)]
    others += [
        f"{study.name} has {', '.join(_differences(study, leader))}"
        for _, study, _ in usable
        if _differences(study, leader)
    ]
    stored, study, trial = max(equal, key=lambda candidate: candidate[2].score)
    how = "named" if number else _rule_of(stored)
    return ChosenTrial(
        study,
        trial.setting(),
        source_of(stored, trial, how, str(address)),
        [of for of, _, _ in equal],
        others,
    )


def source_of(stored: StoredStudy, trial: Trial, how: str, storage: str) -> StudySource:
    """Where a setting comes from that is a trial's."""
    return StudySource(
        name=stored.name,
        trial=trial.number,
        score=trial.score,
        units=trial.result.units,
        how=how,
        finished=sum(t.is_finished for t in stored.trials),
        storage=storage,
    )


def _differences(study: StudyConfig, leader: StudyConfig) -> list[str]:
    """What makes scores of two studies numbers of different things."""
    values = [
        of.protocol.model_dump(include={"outer", "folds", "seeds", "seed"}) | {"metric": of.metric}
        for of in (study, leader)
    ]
    return [f"{key} {value}" for key, value in values[0].items() if value != values[1][key]]


def _last_end(stored: StoredStudy) -> float:
    """When its last trial ended, in seconds."""
    ends = [t.frozen.datetime_complete for t in stored.trials if t.frozen.datetime_complete]
    return max((end.timestamp() for end in ends), default=0.0)


def selected(stored: StoredStudy) -> Trial | None:
    """The trial that the study's rule chooses now; the rule is that of its last search."""
    candidates = scored_trials(stored.trials)
    if not candidates:
        return None
    number = select(candidates, _rule_of(stored)).number
    return next(trial for trial in stored.trials if trial.number == number)


def _rule_of(stored: StoredStudy) -> str:
    selection = stored.record.selection
    return "best" if selection is None else selection.how


def _is_made_on(known: Origin, here: Origin) -> bool:
    """Whether a study has the labels that are here, and its features are among those here."""
    same = (known.classes, known.data) == (here.classes, here.data)
    same = same and known.val in (None, here.val)
    return same and all(
        _is_among(*pair) for pair in ((known.text, here.text), (known.image, here.image))
    )


def _is_among(known: str | dict[str, str], here: str | dict[str, str]) -> bool:
    if isinstance(here, str):
        return known == here
    named = known if isinstance(known, dict) else {DEFAULT_ENCODER: known}
    return named.items() <= here.items()


def _named(stored: StoredStudy, number: int) -> Trial:
    complete = {trial.number: trial for trial in stored.trials if trial.is_complete}
    if number not in complete:
        best = sorted(complete.values(), key=lambda trial: -trial.score)[:5]
        raise SettingsError(
            f"Trial {number} of the study {stored.name!r} was not trained to the end.",
            f"Its best: {', '.join(str(trial.number) for trial in best) or 'none'}.",
        )
    return complete[number]


class Summary(Record):
    """A study as a list shows it."""

    study: str
    file: str | None = None
    """Its study file."""
    finished: Count = 0
    complete: Count = 0
    pruned: Count = 0
    failed: Count = 0
    best: float | None = None
    """Score of its selected trial."""
    age_seconds: float | None = None
    """Time since its last trial ended."""


def summaries(storage: str | Path | Address = DATABASE) -> list[Summary]:
    """All studies of a database."""
    rows = []
    for stored in read_studies(storage):
        states = [trial.frozen.state.name for trial in stored.trials]
        last = _last_end(stored)
        chosen = selected(stored)
        complete, pruned = states.count("COMPLETE"), states.count("PRUNED")
        rows.append(
            Summary(
                study=stored.name,
                finished=complete + pruned,
                complete=complete,
                pruned=pruned,
                failed=states.count("FAIL"),
                best=None if chosen is None else chosen.score,
                age_seconds=time.time() - last if last else None,
            )
        )
    return rows
