"""``mmsa search``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuse.figures.study import Value
from fuse.search import search as engine
from fuse.search.choice import StudySummary, summarise_studies
from fuse.search.progress import SearchProgress
from fuse.search.search import SearchResult
from fuse.search.selection import SELECT
from fuse.search.study import StudyConfig
from fuse.search.study_file import known_studies
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.splits import is_cross_validation
from mmsa_cache.errors import SettingsError
from mmsa_cache.names import unknown_name
from mmsa_cache.runs.json_lines import JsonLines, TrialLines, log_run
from mmsa_cache.runs.trackers import TrackedRun
from mmsa_cache.runs.tracking import check_trackers, flatten_scalars, tracking

from ..extraction.crew import EngineRequest
from ..session.protocols import note_unused_val
from ..session.session import Session
from .dashboard import show_dashboard
from .studies import load_study, studies_database
from .view import watch
from .workers import search_workers, training_data

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
STUDIES = Path("studies")
"""Folder of study files, the database and JSON lines."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """The options of ``mmsa search``."""

    study: str
    trials: int
    """Finished trials in all."""
    engine: EngineRequest = EngineRequest()  # noqa: RUF009  (frozen)
    """Its workers, see `worker_devices`."""
    how: str = "best"
    """Rule of the choice, see `fuse.search.selection.select`."""
    name: str | None = None
    """Name of the study in the database; default: that of its file."""
    track: Sequence[str] = ()
    """Trackers besides JSON lines, see `trackers.TRACKERS`."""
    outer: str | None = None
    """Rows that judge the choice, see `StudyConfig.with_outer`; default: those of the file."""
    dashboard: bool = False
    """Whether Optuna's dashboard shows the study while it runs."""


def resolve_study(session: Session, request: SearchRequest) -> StudyConfig:
    """The requested study, under its name in the database.

    Raises:
        SettingsError: The study or a flag is wrong.
    """
    how, name = request.how, request.name
    if name and not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is no name of a study.", "Use letters, digits, . _ and -.")
    if how not in SELECT:
        raise unknown_name("Unknown --select", how, SELECT)
    if request.outer is not None and is_cross_validation(request.outer):
        raise SettingsError(
            f"{request.outer} has several outer parts.",
            f"Name one of them: {request.outer}/1; or search each: mmsa train --nested.",
        )
    study = load_study(session, request.study, request.outer)
    if not study.space:
        raise SettingsError(
            f"The study {request.study!r} has no space: it is one setting.",
            f"Train it: mmsa train --study {request.study}.",
        )
    note_unused_val(session, request.outer, study.protocol)
    check_trackers(request.track)
    return study.model_copy(update={"name": name or study.name})


def search(session: Session, request: SearchRequest) -> SearchResult:
    """Runs a study; returns its choice, the score on outer rows, and the importance of parameters.

    Raises:
        SettingsError: The study or a flag is wrong, or differs from an earlier run of the study.
        DeviceError: Nearly all trials fail.
    """
    study = resolve_study(session, request)
    name, storage = study.name, studies_database(session.settings)
    pairs = study.encoder_pairs()
    tracked = TrackedRun(name, STUDIES / "tensorboard" / name, _tracker_values(study))
    with (
        show_dashboard(storage, request.dashboard),
        search_workers(session, request.engine) as workers,
        training_data(session, study.protocol.split, pairs, study.derived_names(), STUDIES) as data,
        tracking(request.track, tracked) as tracker,
        watch(f"study {name}, {len(workers.devices)} worker(s)") as show,
    ):
        lines = TrialLines(JsonLines(STUDIES / f"{name}.jsonl"), tracker)

        def on_change(progress: SearchProgress) -> None:
            lines.add(trial.frozen for trial in progress.trials)
            show(progress)

        result = engine.search(
            study,
            data,
            request.trials,
            storage=storage,
            how=request.how,
            workers=workers,
            on_change=on_change,
        )
        tracker.final = flatten_scalars(result.model_dump())
    lines.end(tracker.final)
    log_run("search", name, result.seconds, tracker.final)
    notes = session.notes(pairs) + _warnings(result) + result.notes
    return result.model_copy(update={"notes": notes})


def _tracker_values(study: StudyConfig) -> dict[str, Value]:
    """Values of a study for trackers: the protocol and the fixed parameters."""
    protocol = study.protocol.model_dump(include={"outer", "folds", "seeds"})
    return {"study": study.name, **protocol, "metric": study.metric, **study.fixed}


def _warnings(result: SearchResult) -> list[str]:
    """Notes that readers of the scores need."""
    notes = []
    ties = len(result.cannot_be_told_apart)
    if ties > 1:
        notes.append(
            f"{ties} of {result.complete_trials} complete trials cannot be told apart from the "
            "best one (paired over folds, 95 %)"
            + ("; --select one-se takes the simplest near it" if result.select == "best" else "")
        )
    if result.looks_at_outer_rows > 1:
        notes.append(
            f"the outer rows have judged {result.looks_at_outer_rows} choices of this study: "
            "what they say is no longer quite unseen"
        )
    return notes


def list_studies(settings: Settings) -> list[StudySummary]:
    """All studies that have a file or are in the database."""
    files = known_studies()
    stored = {summary.study: summary for summary in summarise_studies(studies_database(settings))}
    return [
        stored.get(name, StudySummary(study=name)).model_copy(
            update={"file": str(files[name]) if name in files else None}
        )
        for name in sorted(files.keys() | stored.keys())
    ]
