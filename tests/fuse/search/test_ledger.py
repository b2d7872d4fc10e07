"""A study's ledger: claims of the living, of the dead, and of those who were not told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from fuse.search.ledger import Ledger
from fuse.search.sampling import draw
from tests.support.fake_search import make_study
from tests.support.study_records import states

MANY = 99


@pytest.fixture
def open_ledger(tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    """Opens the study of one file, as a process of its own each time."""
    opened = []

    def opener() -> Ledger:
        opened.append(Ledger(tmp_path / "s[1].db", "fake"))
        return opened[-1]

    yield opener
    for ledger in opened:
        ledger.close()


def claim(ledger: Ledger) -> int | None:
    claimed = ledger.claim(MANY, lambda trials: draw(make_study(), trials))
    return None if claimed is None else claimed[0]


def die(ledger: Ledger) -> None:
    """As a killed process: the lock is free, its file is left, nothing was requeued."""
    ledger._running.clear()
    ledger._locks._stack.pop_all()


def test_trials_of_the_dead_are_claimed_again_and_those_of_the_living_are_not(
    open_ledger: Callable[[], Ledger], tmp_path: Path
) -> None:
    living, dead, other = (open_ledger() for _ in range(3))
    assert [claim(living), claim(dead)] == [0, 1]
    die(dead)
    assert [claim(other), claim(other)] == [1, 2]
    die(living)
    open_ledger().requeue_orphans()
    assert states(tmp_path / "s[1].db") == {"RUNNING": 2, "WAITING": 1}


def test_a_claim_whose_answer_was_lost_is_claimed_again(
    open_ledger: Callable[[], Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger()
    create = ledger._storage.create_new_trial
    answers = iter([False, True])

    def unreliable(*arguments: Any) -> int:
        made = create(*arguments)  # the transaction is committed
        if not next(answers):
            raise optuna.exceptions.StorageInternalError("the connection is gone")
        return made

    monkeypatch.setattr(ledger._storage, "create_new_trial", unreliable)
    assert claim(ledger) == 0
    assert states(tmp_path / "s[1].db") == {"RUNNING": 1}


def test_the_locks_of_the_dead_are_removed_whatever_the_file_is_called(
    open_ledger: Callable[[], Ledger], tmp_path: Path
) -> None:
    for _ in range(2):
        die(open_ledger())
    (tmp_path / ".s1.db.owner-x.lock").touch()
    with closing(Ledger(tmp_path / "s[1].db", "fake")):
        pass
    assert sorted(path.name for path in tmp_path.glob("*owner*")) == [".s1.db.owner-x.lock"]
