"""The mixture for a short time, and that its invariants see what is wrong."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from tests.soak.driver import Soak
from tests.soak.invariants import Invariants
from tests.soak.project import Project, rows_in_store
from tests.support.small_work import call
from tests.support.tally import Tally


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Project:
    folder = tmp_path_factory.mktemp("project")
    project = Project(folder, text_model, 40, random.Random(0))
    call(folder, "extract", "--split", "all")
    return project


def test_a_row_that_is_lost_changed_or_not_needed_is_seen(project: Project) -> None:
    held = Invariants(project)
    rows = held.rows(complete=True)
    assert rows == len(project.wanted()) == len(rows_in_store(project.cache))
    key = next(iter(project.wanted()))
    right = project.reference[key]
    project.reference[key] = (*right[:2], right[2][::-1], right[3])
    with pytest.raises(AssertionError, match="1 rows are not those of the reference"):
        held.rows(complete=True)
    project.reference[key] = right
    held._rows["text", bytes(16)] = right
    with pytest.raises(AssertionError, match="1 rows were lost"):
        held.rows(complete=True)
    project.change({project.absent[0]: "positive"})
    with pytest.raises(AssertionError, match="4 rows are missing"):
        Invariants(project).rows(complete=True)
    project.change({}, list(project.labels)[:3])
    with pytest.raises(AssertionError, match="rows that nothing needs are there"):
        Invariants(project).rows(complete=False, pruned=True)


def test_trials_that_are_lost_or_left_are_seen(project: Project) -> None:
    database = project.folder / "studies/studies.db"
    with sqlite3.connect(database) as made:
        made.executescript(
            "create table studies (study_id, study_name); insert into studies values (1, 's');"
            "create table trials (study_id, trial_id, number, state);"
            "create table trial_values (trial_id, value);"
            "insert into trials values (1, 1, 0, 'COMPLETE'), (1, 2, 1, 'RUNNING');"
            "insert into trial_values values (1, 0.5);"
        )
    held = Invariants(project)
    assert held.trials() == 1
    with pytest.raises(AssertionError, match="s: 1 finished trials, wanted 2"):
        held.trials("s", 2)
    with pytest.raises(AssertionError, match=r"trials are left \{'RUNNING'\}"):
        held.trials("s", 1)
    made.execute("update trial_values set value = 0.6")
    made.commit()
    with pytest.raises(AssertionError, match="finished trials were lost or changed"):
        held.trials()
    made.close()
    database.unlink()


def test_what_is_left_over_or_answered_otherwise_is_seen(project: Project) -> None:
    held = Invariants(project)
    held.no_leftovers("cache")
    (project.cache / ".tmp-left").touch()
    with pytest.raises(AssertionError, match=r"temporary files are left: .'cache/\.tmp-left'"):
        held.no_leftovers("cache")
    held.answer("the same", b"1")
    held.answer("the same", b"1")
    with pytest.raises(AssertionError, match="answered otherwise before"):
        held.answer("the same", b"2")


@pytest.mark.parametrize(
    ("seconds", "forks"), [(3, False), pytest.param(60, True, marks=pytest.mark.faults)]
)
def test_a_random_mixture_of_commands_holds(
    tmp_path: Path, seconds: float, forks: bool, tally: Tally
) -> None:
    said: list[str] = []
    soak = Soak(tmp_path, 27, posts=60, forks=forks, say=said.append)
    assert soak.run(seconds), "\n".join(said)
    done = 0 if soak.commands is None else sum(soak.commands.done.values())
    tally(
        "steps of a random mixture on one folder",
        soak.count,
        f"{done} commands, many killed or two at once: rows, trials, memory and files as wanted",
    )
