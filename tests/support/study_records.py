"""What a search left behind."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from fuse.search.database import read_studies

FINISHED = ("COMPLETE", "PRUNED")
Trials = dict[tuple[str, int], tuple[str, float | None]]
"""By study and number: state and value."""


def assert_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 20
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"workers {alive} are still there"
        time.sleep(0.02)


def figures(database: str | Path) -> list[tuple[int, str, dict[str, Any], float | None]]:
    return [(t.number, t.state.name, t.params, t.value) for t in trials_of(database)]


def trials_of(database: str | Path, name: str = "fake") -> list[FrozenTrial]:
    stored = next(stored for stored in read_studies(database) if stored.name == name)
    return [trial.frozen for trial in stored.trials]


def states(database: str | Path) -> dict[str, int]:
    found = [trial.state.name for trial in trials_of(database)]
    return {name: found.count(name) for name in sorted(set(found))}


def raw_trials(database: Path) -> Trials:
    """Every trial of every study, read past the code under test."""
    if not database.exists():
        return {}
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        try:
            rows = connection.execute(
                "select study_name, number, state, value from trials "
                "join studies using (study_id) left join trial_values using (trial_id)"
            ).fetchall()
        except sqlite3.OperationalError:  # killed before it made the tables
            return {}
    return {(study, number): (state, value) for study, number, state, value in rows}
