"""``mmsa search --dry-run``: what a search would train, and about how long."""

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
from .search import SearchRequest, checked_study
from .studies import studies_database
from .workers import search_workers

_EPOCHS = 3
"""That are timed where nothing was searched yet."""


@dataclass(frozen=True, slots=True)
class PlannedSearch:
    """What a search would do."""

    study: str
    parameters: int
    """That are searched."""
    settings: int | None
    """Of a space of lists alone, its settings at most; None where a range is among them."""
    queued: int
    """Settings that are tried first."""
    trials: int
    """Finished trials in all."""
    finished: int
    """Of them, those that are there."""
    trainings_a_trial: int
    """Folds times seeds; a pruned trial has fewer."""
    development_rows: int
    outer_rows: int
    """Which judge at the end."""
    encoders: str
    workers: int
    seconds_a_trial: float
    measured: str
    """Where that is from."""
    seconds: float
    """That the missing trials would take, if none is pruned."""


def plan_search(session: Session, request: SearchRequest) -> PlannedSearch:
    """What `search.search` would do; a setting is trained for an epoch where no trial is there.

    Raises:
        MmsaError: As `search.search` raises before its first trial.
    """
    study = checked_study(session, request)
    protocol = study.protocol
    pairs = study.encoder_pairs()
    bank = session.bank(protocol.split, pairs)
    (part,) = plan_parts(bank.labels.numpy(), session.groups(protocol.split), protocol)
    stored = {of.name: of for of in read_studies(studies_database(session.settings))}
    there = stored[study.name].trials if study.name in stored else []
    done = [trial.result.seconds for trial in there if trial.is_complete]
    seconds, measured = float(np.mean(done or [0.0])), f"{len(done)} complete trials"
    if not done:
        bank = bank.to(session.device)
        together = part.tasks if session.device.type == "cuda" else part.tasks[:1]
        seconds, measured = _tried(study, bank, together, session.classes)
        seconds *= len(part.tasks) / len(together)
    finished = sum(trial.is_finished for trial in there)
    with search_workers(session, request.engine) as found:
        workers = len(found.devices)
    left = max(0, request.trials - finished)
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
        round(seconds * left / workers, 1),
    )


class _EnoughError(Exception):
    """Ends a training whose epochs were timed."""


def _tried(
    study: StudyConfig, bank: FeatureBank, tasks: Sequence[Task], names: Sequence[str]
) -> tuple[float, str]:
    """Seconds of trainings of the study's first setting side by side, if none stops early."""
    first = {key: choice.candidates()[0] for key, choice in study.space.items()}
    setting = next(iter(study.queued()), study.complete(first | study.fixed))
    ends = [time.monotonic()]

    def on_epoch(record: EpochRecord) -> None:
        if record.member == len(tasks):
            ends.append(time.monotonic())
        if len(ends) > _EPOCHS:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        fit_group(setting, bank, tasks, names=names, on_epoch=on_epoch)
    each = ends[-1] - ends[-2]
    started = ends[1] - ends[0]
    return started + each * (setting.epochs - 1), f"{len(ends) - 1} epochs of {setting.fusion}"
