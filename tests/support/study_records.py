"""What a search left behind."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fuse.search.records import Record, read_records


def assert_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 20
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"workers {alive} are still there"
        time.sleep(0.02)


def figures(database: str | Path) -> list[tuple[int, str, dict[str, Any], float | None]]:
    return [(t.number, t.state.name, t.params, t.value) for t in record_of(database).trials]


def record_of(database: str | Path, name: str = "fake") -> Record:
    return next(record for record in read_records(database) if record.name == name)


def states(database: str | Path) -> dict[str, int]:
    found = [trial.state.name for trial in record_of(database).trials]
    return {name: found.count(name) for name in sorted(set(found))}
