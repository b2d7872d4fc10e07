"""The trial that a study's rule chooses."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fuse.figures.record import Count, Record
from fuse.figures.study import StudySource
from fuse.setting import Setting
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import DEFAULT_ENCODER
from mmsa_cache.store.identity import Origin

from .address import Address, address_of
from .database import DATABASE, StoredStudy, read_studies
from .selection import scored, select
from .study import Study
from .trial_record import Trial


@dataclass(frozen=True, slots=True)
class Chosen:
    """A trial that was chosen, by a study's rule or by name."""

    study: Study
    setting: Setting
    source: StudySource


def choose(name: str, origin: Origin, storage: str | Path | Address = DATABASE) -> Chosen:
    """Takes the choice of one study, or of all studies made on the same features, or one trial.

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
    place = str(address)
    studies = read_studies(address)
    if not studies:
        raise SettingsError(f"There are no studies here ({place}).", hint)
    study_name, _, number = name.partition(":")
    if number and not number.isdecimal():
        raise SettingsError(f"{name!r} names no trial.", "Write NAME:TRIAL, e.g. default:17.")
    candidates: list[tuple[float, Chosen]] = []
    others: list[str] = []
    for stored in studies:
        identity = stored.record.identity
        if study_name not in ("best", stored.name):
            continue
        if identity is None or not _is_made_on(identity.origin, origin):
            others.append(stored.name)
            continue
        trial = _named(stored, int(number)) if number else _selected(stored)
        if trial is None:
            continue
        source = StudySource(
            name=stored.name,
            trial=trial.number,
            score=trial.score,
            units=trial.result.units,
            how="named" if number else _rule_of(stored),
            finished=sum(t.is_finished for t in stored.trials),
            storage=place,
        )
        candidates.append((trial.score, Chosen(identity.study, trial.setting(), source)))
    if not candidates:
        problems = [f"{other} was made on other features or labels" for other in others]
        raise SettingsError(
            f"No study {study_name!r} has a finished trial on these features.", hint, problems
        )
    return max(candidates, key=lambda candidate: candidate[0])[1]


def _selected(stored: StoredStudy) -> Trial | None:
    """The trial that the study's rule chooses now; the rule is that of its last search."""
    candidates = scored(stored.trials)
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
        ends = [t.frozen.datetime_complete for t in stored.trials if t.frozen.datetime_complete]
        selected = _selected(stored)
        complete, pruned = states.count("COMPLETE"), states.count("PRUNED")
        rows.append(
            Summary(
                study=stored.name,
                finished=complete + pruned,
                complete=complete,
                pruned=pruned,
                failed=states.count("FAIL"),
                best=None if selected is None else selected.score,
                age_seconds=time.time() - max(ends).timestamp() if ends else None,
            )
        )
    return rows
