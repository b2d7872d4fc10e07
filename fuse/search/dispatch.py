"""Hands out tasks to workers and requeues those of dead ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from .messages import EpochReport, Failure, TrainingReply, TrainingRequest
from .pool import WorkerDeath, WorkerPool

RETRIES = 2
"""Times that a task runs again after its worker died."""
_LOOK_AGAIN = 0.5
"""Seconds between looks at the workers."""
RETRY_SECONDS = 2 * _LOOK_AGAIN
"""Seconds after which a source of tasks that had none is asked again."""


def dispatch(
    pool: WorkerPool,
    take: Callable[[bool], TrainingRequest | None],
    *,
    at_hand: Callable[[bool], TrainingRequest | None] = lambda beside: None,
    is_done: Callable[[], bool] = lambda: True,
    count_death: Callable[[TrainingRequest], int] | None = None,
    on_look: Callable[[], None] = lambda: None,
) -> Iterator[tuple[TrainingRequest, EpochReport | TrainingReply | Failure]]:
    """Hands out tasks until none is left, and yields the workers' messages about them.

    Of the tasks whose workers died one runs at a time: where workers share a GPU, the fault of one
    ends all, and those that ran beside it would otherwise do so until all of them count as deadly.

    Args:
        pool: The workers; an `EpochReport` must be answered there.
        take: Returns the next task, or None if none is available now; told whether the worker is
            one for baselines alone.
        at_hand: Returns a task that could be given out before what has just ended is taken in, so
            that no worker waits for that; told the same.
        is_done: Whether no task will come any more; asked when none runs.
        count_death: Counts that a worker died over a task; returns how often that happened.
        on_look: Called after each look at the workers.
    """
    deaths: Counter[tuple[int, tuple[int, ...]]] = Counter()
    requeued: list[TrainingRequest] = []
    suspect: TrainingRequest | None = None
    running = 0

    def count(task: TrainingRequest) -> int:
        deaths[task.number, task.units] += 1
        return deaths[task.number, task.units]

    def find(beside: bool) -> TrainingRequest | None:
        nonlocal suspect
        for place, task in enumerate(requeued if suspect is None else ()):
            if bool(task.baseline) == beside or not pool.stacked:
                suspect = requeued.pop(place)
                return suspect
        return take(beside)

    while True:
        while pool.take(find) is not None:
            running += 1
        if not (running or requeued) and is_done():
            return
        pool.open()
        events = pool.wait(_LOOK_AGAIN)
        running -= sum(not isinstance(said, EpochReport) for _, said in events)
        while pool.take(at_hand) is not None:
            running += 1
        for task, said in events:
            if task is suspect and not isinstance(said, EpochReport):
                suspect = None
            if not isinstance(said, WorkerDeath):
                yield task, said
            elif (died := (count_death or count)(task)) <= RETRIES:
                requeued.append(task)
            else:
                yield task, Failure(f"its worker died {died} times: {said.reason}")
        on_look()
