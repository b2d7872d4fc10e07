"""Assigns requests to workers and repeats those of dead ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from .messages import EpochReport, Failure, Message, TrainingRequest
from .pool import WorkerDeath, WorkerPool

RETRIES = 2
"""Times that a request is repeated after its worker died."""
_POLL_SECONDS = 0.5
"""Longest wait for messages of workers."""
RETRY_SECONDS = 2 * _POLL_SECONDS
"""Seconds after which a source of requests that had none is asked again."""


class RetryQueue:
    """Requests whose workers died. One of them runs at a time.

    Where workers share a GPU, the fault of one request ends all of them. Requests that run beside
    it would die with it until all of them count as deadly.

    Args:
        stacked: See `WorkerOptions.stacked`.
        count_death: Counts a death; returns how often workers died over the request.
    """

    def __init__(
        self, stacked: bool, count_death: Callable[[TrainingRequest], int] | None = None
    ) -> None:
        self._stacked = stacked
        self._count_death = count_death or self._count
        self._deaths: Counter[tuple[int, tuple[int, ...]]] = Counter()
        self._requests: list[TrainingRequest] = []
        self._running: TrainingRequest | None = None

    def __len__(self) -> int:
        return len(self._requests)

    def _count(self, request: TrainingRequest) -> int:
        self._deaths[request.number, request.splits] += 1
        return self._deaths[request.number, request.splits]

    def next(self, for_baselines: bool) -> TrainingRequest | None:
        """Returns a request to repeat, if none is being repeated now."""
        for index, request in enumerate(() if self._running else self._requests):
            if bool(request.baseline) == for_baselines or not self._stacked:
                self._running = self._requests.pop(index)
                return request
        return None

    def ended(self, request: TrainingRequest) -> None:
        """Lets the next request run."""
        if request is self._running:
            self._running = None

    def add(self, request: TrainingRequest, reason: str) -> Failure | None:
        """Queues the request of a dead worker; returns a failure if it died too often."""
        deaths = self._count_death(request)
        if deaths > RETRIES:
            return Failure(f"its worker died {deaths} times: {reason}")
        self._requests.append(request)
        return None


def dispatch(
    pool: WorkerPool,
    next_request: Callable[[bool], TrainingRequest | None],
    *,
    prepared: Callable[[bool], TrainingRequest | None] = lambda for_baselines: None,
    is_done: Callable[[], bool] = lambda: True,
    count_death: Callable[[TrainingRequest], int] | None = None,
    on_poll: Callable[[], None] = lambda: None,
) -> Iterator[tuple[TrainingRequest, Message]]:
    """Assigns requests until none is left, and yields the workers' messages about them.

    Args:
        pool: The workers. The caller must answer every `EpochReport` there.
        next_request: Returns the next request, or None if there is none now. Its argument is
            whether the worker only fits baselines.
        prepared: Returns a request that can be assigned before results are processed, so that no
            worker waits for that; the argument is the same.
        is_done: Whether no request will come any more; called when none runs.
        count_death: See `RetryQueue`.
        on_poll: Called after each look at the workers.
    """
    retries = RetryQueue(pool.stacked, count_death)
    running = 0

    def retried_or_next(for_baselines: bool) -> TrainingRequest | None:
        return retries.next(for_baselines) or next_request(for_baselines)

    while True:
        while pool.assign(retried_or_next):
            running += 1
        if not (running or retries) and is_done():
            return
        pool.open()
        events = pool.wait(_POLL_SECONDS)
        running -= sum(not isinstance(message, EpochReport) for _, message in events)
        while pool.assign(prepared):
            running += 1
        for request, message in events:
            if not isinstance(message, EpochReport):
                retries.ended(request)
            if not isinstance(message, WorkerDeath):
                yield request, message
            elif failure := retries.add(request, message.reason):
                yield request, failure
        on_poll()
