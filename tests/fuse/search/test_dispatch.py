"""Tasks whose workers die, where the fault of one ends all that share its GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fuse.search.dispatch import RETRIES, dispatch
from fuse.search.messages import EpochReport, Failure, TrainingReply, TrainingRequest
from fuse.search.pool import WorkerDeath
from fuse.setting import Setting

WORKERS = 4
DEADLY = 2


class _SharedGpu:
    """Workers that take a look at their task each, then end it; the deadly one ends all of them."""

    stacked = True

    def __init__(self) -> None:
        self.running: list[TrainingRequest] = []
        self.begun: list[int] = []

    def open(self) -> None:
        """Nothing: they are always there."""

    def assign(self, find: Callable[[bool], TrainingRequest | None]) -> bool:
        task = find(False) if len(self.running) < WORKERS else None
        if task is not None:
            self.running.append(task)
            self.begun.append(task.number)
        return task is not None

    def wait(self, timeout: float) -> list[tuple[TrainingRequest, Any]]:
        ended, self.running = self.running, []
        if any(task.number == DEADLY for task in ended):
            return [(task, WorkerDeath("lost")) for task in ended]
        return [(task, TrainingReply([1.0], 1, 1.0)) for task in ended]


def test_only_the_trial_that_ends_the_others_fails() -> None:
    waiting = [TrainingRequest(number, Setting(), ((0,),)) for number in range(20)]
    pool = _SharedGpu()
    ended: dict[int, EpochReport | TrainingReply | Failure] = {}
    for task, said in dispatch(
        pool,  # type: ignore[arg-type]
        lambda beside: waiting.pop(0) if waiting else None,
        is_done=lambda: not waiting,
    ):
        assert task.number not in ended
        ended[task.number] = said
    assert sorted(ended) == [*range(20)]
    failed = {number: said for number, said in ended.items() if isinstance(said, Failure)}
    assert failed == {DEADLY: Failure("its worker died 3 times: lost")}
    assert pool.begun.count(DEADLY) == RETRIES + 1


def test_a_task_at_hand_is_given_out_before_what_ended_is_taken_in() -> None:
    waiting = [TrainingRequest(10 + number, Setting(), ((0,),)) for number in range(8)]
    pool, at_work = _SharedGpu(), []
    for _ in dispatch(
        pool,  # type: ignore[arg-type]
        lambda beside: waiting.pop(0) if len(pool.begun) < WORKERS else None,
        prepared=lambda beside: waiting.pop(0) if waiting else None,
        is_done=lambda: not waiting,
    ):
        at_work.append(len(pool.running))
    assert at_work == [4] * 4 + [0] * 4
