"""What a worker on a GPU tells and hears, with a coordinator that answers late."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuse.search.messages import (
    EpochReport,
    Failure,
    FoldSplit,
    TrainingReply,
    TrainingRequest,
    WorkerSetup,
)
from fuse.search.worker import Reporter, train
from fuse.setting import Setting
from tests.support.fake_search import EPOCHS, GROUPS, NAMES, FakeFit, FakeSource, fake_predict

UNITS = [
    FoldSplit(np.arange(0), np.arange(fold, fold + 2), np.arange(3), fold) for fold in range(3)
]
SETTING = Setting(epochs=EPOCHS, keep="last", learning_rate=1e-2)


def job(folder: Path, **options: Any) -> WorkerSetup:
    fit = FakeFit(folder, **options)
    return WorkerSetup(FakeSource(), UNITS, NAMES, "macro_f1", fit, fake_predict, fit, GROUPS)


def begun(pipe: Connection, job: WorkerSetup, groups: Any) -> tuple[threading.Thread, list[Any]]:
    """Trains a trial in a thread, without waiting for answers within a group."""
    found: list[Any] = []
    task = TrainingRequest(0, SETTING, groups)
    reporter = Reporter(pipe, waits=False)
    thread = threading.Thread(target=lambda: found.append(train(task, job, "cpu", reporter)))
    thread.start()
    return thread, found


def told(pipe: Connection, count: int) -> list[EpochReport]:
    """Reports that come without an answer."""
    found = []
    for _ in range(count):
        assert pipe.poll(20)
        found.append(pipe.recv())
    return found


@pytest.mark.parametrize("pruned_at", [None, 1, 3])
def test_a_group_trains_on_without_answers_but_does_not_end_without_them(
    tmp_path: Path, pruned_at: int | None
) -> None:
    ours, theirs = multiprocessing.Pipe()
    thread, found = begun(theirs, job(tmp_path), ((0,), (1, 2)))
    first = told(ours, EPOCHS)
    assert [report.epoch for report in first] == [1, 2, 3, 4]
    assert not ours.poll(0.1), "the first fold's end is told when its epochs are answered"
    for _ in first:
        ours.send(True)
    (end,) = told(ours, 1)
    assert (end.finished, end.epoch, len(end.values)) == (0, None, 1)
    ours.send(True)
    second = told(ours, EPOCHS)
    assert [(of.finished, len(of.values)) for of in second] == [(1, 2)] * EPOCHS
    assert thread.is_alive()
    for report in second:
        ours.send(report.epoch != pruned_at)
    thread.join(20)
    (result,) = found
    assert isinstance(result, TrainingReply)
    assert result.pruned == (pruned_at is not None)
    assert len(result.scores) == (3 if pruned_at is None else 1)
    assert len(result.held_out) == len(result.scores)
    assert not ours.poll()


def test_a_failure_leaves_no_answer_for_the_next_trial(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()

    class FailsLate(FakeFit):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            super().__call__(*arguments, **options)
            raise MemoryError("made up")

    fit = FailsLate(tmp_path)
    thread, found = begun(
        theirs,
        WorkerSetup(FakeSource(), UNITS, NAMES, "macro_f1", fit, fake_predict, fit, GROUPS),
        ((0, 1, 2),),
    )
    told(ours, EPOCHS)
    assert thread.is_alive()
    for _ in range(EPOCHS):
        ours.send(True)
    thread.join(20)
    assert found == [Failure("MemoryError: made up")]
    assert not theirs.poll()


def test_a_trial_that_was_given_up_before_it_failed_is_pruned(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    thread, found = begun(theirs, job(tmp_path, nan_from=1.0), ((0, 1, 2),))
    told(ours, 1)
    ours.send(False)
    for report in iter(lambda: ours.recv() if ours.poll(0.5) else None, None):
        assert isinstance(report, EpochReport)
        ours.send(False)
    thread.join(20)
    assert found[0].pruned
    assert found[0].scores == []
    assert not theirs.poll()
