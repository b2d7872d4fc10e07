"""Chooses a trial of the studies in a database, and lists the studies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuse.figures.record import Count, Record
from fuse.figures.study import StudySource
from fuse.setting import Setting
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER, unknown_name
from mmsa_cache.store.identity import Origin

from .address import Address, parse_address
from .database import DATABASE, StoredStudy, read_studies
from .selection import scored_trials, select
from .study import StudyConfig
from .trial_record import Trial

_HINT = "Run mmsa search first."


@dataclass(frozen=True, slots=True)
class ChosenTrial:
    """A trial that was chosen, by a study's rule or by name."""

    study: StudyConfig
    setting: Setting
    source: StudySource
    compared: list[StoredStudy]
    """The studies that it was chosen from; all have one protocol and metric."""
    excluded: list[str]
    """Other studies, and why they cannot be compared with these."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    stored: StoredStudy
    study: StudyConfig
    trial: Trial


def choose_trial(
    name: str, origin: Origin, storage: str | Path | Address = DATABASE
) -> ChosenTrial:
    """Chooses the trial of a name.

    ``best`` compares the study that was searched last with all studies of the same protocol,
    metric, features and labels, since only their scores can be compared. Studies of one part of a
    cross-validation are chosen by their names only.

    Args:
        name: A study's name, ``NAME:TRIAL``, or ``best``.
        origin: The available features, of a modality one cache or all by encoder. Studies on other
            features are excluded.
        storage: SQLite file, or the address of a database.

    Raises:
        SettingsError: There is no such trial.
    """
    address = parse_address(storage)
    studies = read_studies(address)
    if not studies:
        raise SettingsError(f"There are no studies here ({address}).", _HINT)
    study_name, _, number = name.partition(":")
    if number and not number.isdecimal():
        raise SettingsError(f"{name!r} names no trial.", "Write NAME:TRIAL, e.g. default:17.")
    names = ["best", *(stored.name for stored in studies)]
    if study_name not in names:
        raise unknown_name("There is no study", study_name, names, _HINT)
    candidates, excluded = _find_candidates(
        studies, study_name, int(number) if number else None, origin
    )
    if not candidates:
        raise SettingsError(
            f"No study {study_name!r} has a finished trial on these features.", _HINT, excluded
        )
    latest = max(candidates, key=lambda candidate: _last_end(candidate.stored)).study
    comparable = [c for c in candidates if not _differences(c.study, latest)]
    excluded += [
        f"{candidate.study.name} has {', '.join(differences)}"
        for candidate in candidates
        if (differences := _differences(candidate.study, latest))
    ]
    best = max(comparable, key=lambda candidate: candidate.trial.score)
    how = "named" if number else _rule_of(best.stored)
    return ChosenTrial(
        best.study,
        best.trial.setting(),
        study_source(best.stored, best.trial, how, str(address)),
        [candidate.stored for candidate in comparable],
        excluded,
    )


def _find_candidates(
    studies: Sequence[StoredStudy], name: str, number: int | None, origin: Origin
) -> tuple[list[_Candidate], list[str]]:
    """The selected or numbered trial of each study that fits, and why other studies do not."""
    candidates, excluded = [], []
    for stored in studies:
        if name not in ("best", stored.name):
            continue
        identity = stored.record.identity
        if identity is None or not _is_available(identity.origin, origin):
            excluded.append(f"{stored.name} was made on other features or labels")
            continue
        if name == "best" and "/" in identity.study.protocol.outer:
            continue
        trial = selected_trial(stored) if number is None else _complete_trial(stored, number)
        if trial is not None:
            candidates.append(_Candidate(stored, identity.study, trial))
    return candidates, excluded


def study_source(stored: StoredStudy, trial: Trial, how: str, storage: str) -> StudySource:
    """The origin of a setting that is a trial's."""
    return StudySource(
        name=stored.name,
        trial=trial.number,
        score=trial.score,
        units=trial.result.units,
        how=how,
        finished=sum(t.is_finished for t in stored.trials),
        storage=storage,
    )


def _differences(study: StudyConfig, other: StudyConfig) -> list[str]:
    """Values of a study that make its scores incomparable with those of another one."""
    own, others = (
        of.protocol.model_dump(include={"outer", "folds", "seeds", "seed"}) | {"metric": of.metric}
        for of in (study, other)
    )
    return [f"{key} {value}" for key, value in own.items() if value != others[key]]


def _last_end(stored: StoredStudy) -> float:
    """When the study's last trial ended, in seconds since the epoch."""
    ends = [t.frozen.datetime_complete for t in stored.trials if t.frozen.datetime_complete]
    return max((end.timestamp() for end in ends), default=0.0)


def selected_trial(stored: StoredStudy) -> Trial | None:
    """The trial that the rule of the study's last search selects now."""
    candidates = scored_trials(stored.trials)
    if not candidates:
        return None
    number = select(candidates, _rule_of(stored)).number
    return next(trial for trial in stored.trials if trial.number == number)


def _rule_of(stored: StoredStudy) -> str:
    selection = stored.record.selection
    return "best" if selection is None else selection.how


def _is_available(searched: Origin, available: Origin) -> bool:
    """Whether labels are the same and the features of a study are among the available ones."""
    return (
        (searched.classes, searched.data) == (available.classes, available.data)
        and searched.val in (None, available.val)
        and _is_among(searched.text, available.text)
        and _is_among(searched.image, available.image)
    )


def _is_among(searched: str | dict[str, str], available: str | dict[str, str]) -> bool:
    if isinstance(available, str):
        return searched == available
    by_encoder = searched if isinstance(searched, dict) else {DEFAULT_ENCODER: searched}
    return by_encoder.items() <= available.items()


def _complete_trial(stored: StoredStudy, number: int) -> Trial:
    complete = {trial.number: trial for trial in stored.trials if trial.is_complete}
    if number not in complete:
        best = sorted(complete.values(), key=lambda trial: -trial.score)[:5]
        raise SettingsError(
            f"Trial {number} of the study {stored.name!r} was not trained to the end.",
            f"Its best: {', '.join(str(trial.number) for trial in best) or 'none'}.",
        )
    return complete[number]


class StudySummary(Record):
    """A study in a list of studies."""

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


def summarise_studies(storage: str | Path | Address = DATABASE) -> list[StudySummary]:
    """Summarises all studies of a database."""
    summaries = []
    for stored in read_studies(storage):
        states = [trial.frozen.state.name for trial in stored.trials]
        last = _last_end(stored)
        best = selected_trial(stored)
        complete, pruned = states.count("COMPLETE"), states.count("PRUNED")
        summaries.append(
            StudySummary(
                study=stored.name,
                finished=complete + pruned,
                complete=complete,
                pruned=pruned,
                failed=states.count("FAIL"),
                best=None if best is None else best.score,
                age_seconds=time.time() - last if last else None,
            )
        )
    return summaries
