"""``mmsa search``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuse.search import search as engine
from fuse.search.choice import Summary, summaries
from fuse.search.coordinator import Progress
from fuse.search.database import DATABASE
from fuse.search.selection import SELECT
from fuse.search.space import Study, candidates
from fuse.search.study_file import find_study, known_studies, read_study
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import SettingsError
from mmsa_cache.runs.json_lines import JsonLines, TrialLines, log_run
from mmsa_cache.runs.trackers import Place
from mmsa_cache.runs.tracking import check_trackers, scalars, tracking

from .encoders import notes_of
from .search_view import watch
from .workers import devices_of, prepared

STUDIES = Path("studies")
"""Where studies lie, and what is recorded of them."""


def search(
    settings: Settings,
    name: str,
    trials: int,
    *,
    workers: int | None = None,
    storage: str | None = None,
    how: str = "best",
    track: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs a study; returns its choice, what it is worth outside, and what mattered.

    Args:
        settings: The command's settings.
        name: The study.
        trials: Finished trials in all.
        workers: Worker processes; None takes one a usable core, or one a GPU.
        storage: Address of a database; None is the working folder's own.
        how: ``best`` or ``one-se``.
        track: Where it is recorded besides JSON lines, see `trackers.TRACKERS`.
    """
    if how not in SELECT:
        raise SettingsError(f"Unknown --select {how!r}.", f"Valid: {', '.join(SELECT)}.")
    study = read_study(find_study(name))
    if not study.space:
        raise SettingsError(
            f"The study {name!r} has no space: it is one setting.",
            f"Train it: mmsa train --study {name}.",
        )
    check_trackers(track)
    devices = devices_of(settings.device, workers)
    place = Place(study.name, STUDIES / "tensorboard" / study.name, _protocol(study))
    with (
        prepared(settings, study.encoder_pairs(), grid_sides(study), STUDIES) as ready,
        tracking(track, place) as tracked,
        watch(f"study {study.name}, {len(devices)} worker(s)") as progress,
    ):
        lines = TrialLines(JsonLines(STUDIES / f"{study.name}.jsonl"), tracked)

        def on_change(now: Progress) -> None:
            lines.add(now.trials)
            progress(now)

        outcome = engine.search(
            study,
            trials=trials,
            seed=settings.seed,
            storage=storage or DATABASE,
            devices=devices,
            how=how,
            on_change=on_change,
            **ready,
        )
        tracked.final = scalars(outcome.record)
    lines.end(tracked.final)
    log_run("search", study.name, outcome.record["seconds"], tracked.final)
    notes = notes_of(settings, study.encoder_pairs()) + _warnings(outcome.record)
    return outcome.record | {"notes": notes}


def grid_sides(study: Study) -> list[int]:
    """Sides of the grids that a study's trials may ask for."""
    return [study.fixed.get("grid", 0), *candidates(study.space.get("grid", [0]))]


def _protocol(study: Study) -> dict[str, Any]:
    """What trackers show of a study: the protocol and what is fixed."""
    found = {"study": study.name, "outer": study.outer, "folds": study.folds}
    return {**found, "seeds": study.seeds, "metric": study.metric, **study.fixed}


def _warnings(record: dict[str, Any]) -> list[str]:
    """What a reader of the figures must know."""
    notes = []
    alike, complete = len(record["cannot_be_told_apart"]), record["complete_trials"]
    if alike > 1:
        notes.append(
            f"{alike} of {complete} complete trials cannot be told apart from the best one "
            "(paired over folds, 95 %)"
            + ("; --select one-se takes the simplest near it" if record["select"] == "best" else "")
        )
    if record["looks_at_outer_rows"] > 1:
        notes.append(
            f"the outer rows have judged {record['looks_at_outer_rows']} choices of this study: "
            "what they say is no longer quite unseen"
        )
    return notes


def list_studies(storage: str | None) -> list[dict[str, Any]]:
    """Studies there is a file of, and studies in the database."""
    files = known_studies()
    found = {summary.name: summary for summary in summaries(storage or DATABASE)}
    rows = []
    for name in sorted(files.keys() | found.keys()):
        summary = found.get(name, Summary(name))
        rows.append(
            {
                "study": name,
                "file": str(files[name]) if name in files else None,
                "finished": summary.complete + summary.pruned,
                **{key: getattr(summary, key) for key in ("complete", "pruned", "failed")},
                "best": summary.score,
                "age_seconds": None if summary.last is None else time.time() - summary.last,
            }
        )
    return rows
