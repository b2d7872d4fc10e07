"""Searches: workers and coordinators killed, the database locked, trials that fail."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuse.search.dispatch import RETRIES
from fuse.setting import Setting, restore
from tests.support.fake_search import (
    FakeFit,
    make_study,
    run,
    score_of,
    start_thread,
)
from tests.support.faulty import fork
from tests.support.study_records import (
    FINISHED,
    assert_gone,
    figures,
    raw_trials,
    states,
    trials_of,
)
from tests.support.tally import Tally

MANY = 100_000
RANDOM = make_study(sampler={"kind": "random", "startup": 4})


def search(database: Path, folder: Path, trials: int, seconds: float = 0.005) -> None:
    fit = FakeFit(folder, seconds)
    run(database, folder, trials, devices=["cpu"] * 2, fit=fit, study=RANDOM)


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def finished(database: Path) -> dict[int, Any]:
    """Finished trials by number, as they are stored."""
    found = raw_trials(database).items()
    return {number: trial for (_, number), trial in found if trial[0] in FINISHED}


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.faults)])
def test_killed_workers_and_coordinators_lose_nothing(
    tmp_path: Path, kills: int, tally: Tally
) -> None:
    database = tmp_path / "s.db"
    chance = random.Random(0)
    done = {"worker": 0, "coordinator": 0}
    known: dict[int, Any] = {}
    coordinator = 0
    log = tmp_path / "log.txt"
    while sum(done.values()) < kills:
        if not coordinator:
            coordinator = fork(lambda: search(database, tmp_path, MANY), log)
        # Mostly in the midst of work; now and then while everything starts.
        more = chance.choice([0, 1, 1, 2])
        deadline = time.monotonic() + 60
        while len(now := finished(database)) < len(known) + more:
            assert not ended(coordinator), log.read_text()[-3000:]
            assert time.monotonic() < deadline, "the search does not get on"
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        assert known.items() <= now.items(), "a result was lost or changed"
        known = now
        workers = children(coordinator)
        if workers and chance.random() < 0.6:
            os.kill(chance.choice(workers), signal.SIGKILL)
            done["worker"] += 1
            continue
        os.kill(coordinator, signal.SIGKILL)
        os.waitpid(coordinator, 0)
        done["coordinator"] += 1
        assert_gone(set(workers))
        coordinator = 0
    if coordinator:
        os.kill(coordinator, signal.SIGKILL)
        os.waitpid(coordinator, 0)
    assert min(done.values()) >= kills // 8
    known = finished(database)
    wanted = len(known) + 5
    search(database, tmp_path, wanted)
    found = states(database)
    assert found.pop("COMPLETE") == wanted
    assert found.keys() <= {"FAIL"}, "a trial is left running or waiting"
    assert known.items() <= finished(database).items()
    for trial in trials_of(database):
        deaths = trial.user_attrs.get("deaths", 0)
        assert deaths <= RETRIES + 1
        if trial.state.name == "FAIL":
            assert deaths == RETRIES + 1
            continue
        setting = restore(trial.user_attrs["setting"])
        units = [score_of(setting, fold) for fold in range(3)]
        assert sorted(trial.user_attrs["result"]["units"]) == pytest.approx(sorted(units))
    assert not list(tmp_path.glob(".s.db.owner-*")), "locks of the dead stay"
    tally(
        "kill -9 in a search",
        kills,
        f"{done['worker']} workers, {done['coordinator']} coordinators; {wanted} of {wanted} "
        "finished, none running, none lost",
    )


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.faults)])
def test_two_coordinators_begin_one_study(tmp_path: Path, times: int, tally: Tally) -> None:
    for number in range(times):
        folder = tmp_path / str(number)
        folder.mkdir()
        pids = [
            fork(lambda f=folder: search(f / "s.db", f, 6), folder / "log.txt")  # type: ignore[misc]
            for _ in range(2)
        ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert codes == [0, 0], (folder / "log.txt").read_text()[-3000:]
        assert states(folder / "s.db") == {"COMPLETE": 6}
    tally("two processes on one fresh study", times, "exact total, both exit 0")


class _Failing(FakeFit):
    """Some trials run out of memory, others diverge."""

    def __call__(self, setting: Setting, *arguments: Any, **options: Any) -> Any:
        if setting.text_dim == 32 and setting.layers == 1:
            raise MemoryError("made up")
        return super().__call__(setting, *arguments, **options)


@pytest.mark.parametrize("trials", [12, pytest.param(60, marks=pytest.mark.faults)])
def test_failing_trials_are_named_and_do_not_count(
    tmp_path: Path, trials: int, tally: Tally
) -> None:
    fit = _Failing(tmp_path, nan_from=0.01)
    study = make_study(sampler={"kind": "random", "startup": 4})
    record = run(tmp_path / "s.db", tmp_path, trials, start=start_thread, fit=fit, study=study)
    reasons = [failed["reason"] for failed in record["failed"]]
    assert set(reasons) <= {"MemoryError: made up", "The loss is nan in epoch 1."}
    assert record["trials"]["complete"] == trials
    assert record["trials"]["fail"] == len(reasons) > 0
    values = [value for *_, value in figures(tmp_path / "s.db") if value is not None]
    assert np.isfinite(values).all()
    for kind, word in (("NaN loss", "nan"), ("out of memory", "Memory")):
        count = sum(word in reason for reason in reasons)
        tally(f"{kind} in a trial", count, f"named; {trials} others finished")


@pytest.mark.parametrize("seconds", [0.5, pytest.param(60, marks=pytest.mark.faults)])
def test_a_database_that_is_locked_while_trials_end_loses_none(
    tmp_path: Path, seconds: float, tally: Tally
) -> None:
    database = tmp_path / "s.db"
    run(database, tmp_path, 1, start=start_thread)
    before = finished(database)
    connection = sqlite3.connect(database, check_same_thread=False, timeout=60)

    def lock() -> None:
        time.sleep(0.1)
        connection.execute("begin exclusive")
        time.sleep(seconds)
        connection.rollback()
        connection.close()

    thread = threading.Thread(target=lock)
    thread.start()
    started = time.monotonic()
    run(database, tmp_path, 30, start=start_thread, fit=FakeFit(tmp_path, 0.002))
    assert time.monotonic() - started > seconds
    thread.join()
    assert states(database) == {"COMPLETE": 30}
    assert before.items() <= finished(database).items()
    tally(f"database locked for {seconds:g} s", 1, "waited for, 30 of 30 finished")
