"""``mmsa search --dry-run``: what a search would train, and how long it would take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fuse.figures.records import EpochRecord
from fuse.search.database import read_studies
from fuse.search.study import StudyConfig
from fuse.training.plan import plan_parts
from fuse.training.task import Task
from fuse.training.trainer import fit_group
from mmsa_cache.features.bank import FeatureBank

from ..session.session import Session
from .search import SearchRequest, resolve_study
from .studies import studies_database
from .workers import search_workers

_TIMED_EPOCHS = 3
"""Epochs that are timed where the study has no complete trial."""


@dataclass(frozen=True, slots=True)
class PlannedSearch:
    """What a search would do."""

    study: str
    parameters: int
    """Number of searched parameters."""
    settings: int | None
    """Most settings of the space; None where a parameter has a range."""
    queued: int
    """Settings that are tried first."""
    trials: int
    """Finished trials in all."""
    finished: int
    """Trials that are finished already."""
    trainings_a_trial: int
    """Folds times seeds; a pruned trial has fewer."""
    development_rows: int
    outer_rows: int
    """Rows that judge the choice."""
    encoders: str
    workers: int
    seconds_a_trial: float
    measured: str
    """What `seconds_a_trial` was measured on."""
    seconds: float
    """Time of the missing trials, if none is pruned."""


def plan_search(session: Session, request: SearchRequest) -> PlannedSearch:
    """What `search.search` would do; without complete trials a setting is trained briefly.

    Raises:
        MmsaError: As `search.search` raises before its first trial.
    """
    study = resolve_study(session, request)
    protocol = study.protocol
    pairs = study.encoder_pairs()
    bank = session.bank(protocol.split, pairs)
    (part,) = plan_parts(bank.labels.numpy(), session.groups(protocol.split), protocol)
    studies = read_studies(studies_database(session.settings))
    trials = next((stored.trials for stored in studies if stored.name == study.name), [])
    times = [trial.result.seconds for trial in trials if trial.is_complete]
    seconds, measured = float(np.mean(times or [0.0])), f"{len(times)} complete trials"
    if not times:
        bank = bank.to(session.device)
        together = part.tasks if session.device.type == "cuda" else part.tasks[:1]
        seconds, measured = _time_epochs(study, bank, together, session.classes)
        seconds *= len(part.tasks) / len(together)
    finished = sum(trial.is_finished for trial in trials)
    with search_workers(session, request.engine) as options:
        workers = len(options.devices)
    missing = max(0, request.trials - finished)
    sizes = [len(choice.candidates()) for choice in study.space.values()]
    ranges = any(hasattr(choice, "low") for choice in study.space.values())
    return PlannedSearch(
        study.name,
        len(study.space),
        None if ranges else int(np.prod(sizes, dtype=object)),
        len(study.queue),
        request.trials,
        finished,
        len(part.tasks),
        len(part.development),
        len(part.judged),
        ", ".join(session.encoder_labels(pairs).values()),
        workers,
        round(seconds, 2),
        measured,
        round(seconds * missing / workers, 1),
    )


class _EnoughError(Exception):
    """Ends a training whose epochs were timed."""


def _time_epochs(
    study: StudyConfig, bank: FeatureBank, tasks: Sequence[Task], names: Sequence[str]
) -> tuple[float, str]:
    """Estimates the time of trainings of the study's first setting, if none stops early.

    Returns:
        Seconds of all trainings side by side, and what was timed.
    """
    first = {key: choice.candidates()[0] for key, choice in study.space.items()}
    setting = next(iter(study.queued_settings()), study.complete(first | study.fixed))
    ends = [time.monotonic()]

    def on_epoch(record: EpochRecord) -> None:
        if record.member == len(tasks):
            ends.append(time.monotonic())
        if len(ends) > _TIMED_EPOCHS:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        fit_group(setting, bank, tasks, names=names, on_epoch=on_epoch)
    first_epoch, last_epoch = ends[1] - ends[0], ends[-1] - ends[-2]
    seconds = first_epoch + last_epoch * (setting.epochs - 1)
    return seconds, f"{len(ends) - 1} epochs of {setting.fusion}"
