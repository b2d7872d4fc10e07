"""Searches by several coordinators."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.fake_search import (
    FakeFit,
    run,
    start_thread,
)
from tests.support.faulty import fork
from tests.support.study_records import states


def run_here(database: str | Path, folder: Path, trials: int, **options: Any) -> dict[str, Any]:
    return run(database, folder, trials, start=start_thread, **options)


PROGRAM = "from tests.support.fake_search import main; main()"  # workers know no __main__


def start(database: str | Path, folder: Path, trials: int, **options: Any) -> subprocess.Popen[str]:
    """The fake search as a program of its own."""
    arguments = [database, folder, trials, options.get("workers", 2), options.get("seconds", 0.02)]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return dict(json.loads(out))


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def wait_for_trainings(folder: Path, lines: int) -> set[int]:
    """Waits until so many trainings have begun; the processes that did them."""
    deadline = time.monotonic() + 90
    path = folder / "trainings.txt"
    while not path.exists() or len(found := path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline, "the search does not get on"
        time.sleep(0.01)
    return {int(line.split()[0]) for line in found}


def read_lines(folder: Path) -> list[str]:
    path = folder / "trainings.txt"
    return path.read_text().splitlines() if path.exists() else []


def two_coordinators(storage: str | Path, folder: Path) -> None:
    """Both find what one would, and nothing is trained twice."""
    log, records = folder / "log.txt", [folder / name for name in ("one.json", "two.json")]

    def search(record: Path) -> None:
        found = run(storage, folder, 12, fit=FakeFit(folder, 0.03))
        record.write_text(json.dumps(found))

    pids = [fork(partial(search, record), log) for record in records]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0, 0], log.read_text()[-3000:]
    one, two = (json.loads(record.read_text()) for record in records)
    assert states(storage) == {"COMPLETE": 12}
    assert one["trial"] == two["trial"]
    assert one["outer_score"] == two["outer_score"]
    assert one["looks_at_outer_rows"] == two["looks_at_outer_rows"] == 1
    trainings = [line.split()[0] for line in read_lines(folder)]
    assert len(trainings) == 12 * 3 + 3, "a trial was trained twice, or the choice judged twice"
    assert len(set(trainings)) == 2, "one of the two did nothing"
