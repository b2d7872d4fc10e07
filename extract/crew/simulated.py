"""A simulated crew: it seals made-up rows, dies, hangs and lags as large fleets do.

Shards and replies are real; the seconds that encoders would take are skipped. The time of the
driver and the store counts, that in which rows are made up does not: other machines do it in a
fleet.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmsa_cache.store.index import ShardEntry
from mmsa_cache.store.keys import Keys, as_keys
from mmsa_cache.store.schema import FEATURE_DTYPE, Shard

from .pieces import Piece
from .protocol import PIECES_A_WORKER, Lost, PieceReply, Sealed, Sealer

POSITIONS, DIM, POOLS = 4, 16, ("mean", "first")
"""Of the made-up rows; the features of a row are the bytes of its key."""


class Clock:
    """Seconds of the computer's clock, some skipped and some left out."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.left_out = self.cpu_left_out = 0.0
        """Seconds, and processor seconds, that were left out."""

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def skip_to(self, moment: float) -> None:
        """Sleeps without waiting."""
        self._ahead += max(0.0, moment - self())

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Leaves out the time spent inside."""
        started, cpu_started = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            self._ahead -= seconds
            self.left_out += seconds
            self.cpu_left_out += time.process_time() - cpu_started


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines and their faults. Times are in seconds; mean times are exponentially distributed."""

    workers: int = 64
    a_node: int = 8
    """Workers of a node, which end with it."""
    rows_a_second: float = 350.0
    """Of one worker."""
    load: float = 30.0
    """Time to load an encoder, once a worker and job."""
    restart: float = 60.0
    """Time until a worker that ended is replaced."""
    worker_dies: float = float("inf")
    """Mean time until a worker dies."""
    node_dies: float = float("inf")
    """Mean time until a node is lost."""
    slow_workers: float = 0.0
    """Fraction of workers that take `slow` times as long for everything."""
    slow_pieces: float = 0.0
    """Fraction of pieces that take `slow` times as long."""
    slow: float = 5.0
    hung: float = 0.0
    """Fraction of pieces that never end."""
    unsaid: float = 0.25
    """Fraction of deaths that come between the sealing of a piece and its reply."""


@dataclass(slots=True)
class FleetStats:
    """Statistics of a simulated fleet."""

    deaths: int = 0
    nodes_lost: int = 0
    hung: int = 0
    slowed: int = 0
    """Pieces that took longer, by a slow worker or themselves."""
    ended: int = 0
    """Workers that the driver ended."""
    rows: float = 0.0
    """Rows that were computed, lost and repeated ones included."""


@dataclass(slots=True)
class _SimulatedWorker:
    number: int
    slow: bool
    loaded: set[int] = field(default_factory=set)
    pieces: list[Piece] = field(default_factory=list)
    """The first one runs."""
    up: bool = True
    life: int = 0
    """Counts its ends; events of an earlier life do not happen."""
    started: float = 0.0
    """When the first piece began, its encoder loaded."""
    duration: float = 0.0
    """Seconds that it takes; infinite if it never ends."""


class SimulatedCrew:
    """Workers that sleep; see the module.

    Args:
        sealers: Of each job.
        fleet: The machines.
        clock: The driver's.
        seed: Of the random numbers.

    Attributes:
        stats: What happened so far.
    """

    def __init__(
        self, sealers: Sequence[Sealer], fleet: Fleet, clock: Clock, seed: int = 0
    ) -> None:
        self.stats = FleetStats()
        self._sealers, self._fleet, self._clock = sealers, fleet, clock
        self._rng = np.random.default_rng(seed)
        slow = (self._rng.random(fleet.workers) < fleet.slow_workers).tolist()
        self._workers = [_SimulatedWorker(number, is_slow) for number, is_slow in enumerate(slow)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._replies: list[PieceReply] = []
        for worker in self._workers:
            self._schedule_death(worker)
        for first in range(0, fleet.workers, fleet.a_node):
            self._schedule_node_loss(self._workers[first : first + fleet.a_node])

    @property
    def workers(self) -> int:
        """Workers that are up."""
        return sum(worker.up for worker in self._workers)

    @property
    def capacity(self) -> int:
        """Pieces that can be submitted now."""
        return sum(PIECES_A_WORKER - len(worker.pieces) for worker in self._workers if worker.up)

    def submit(self, piece: Piece) -> None:
        """Hands a piece to the worker that has fewest."""
        worker = min((w for w in self._workers if w.up), key=lambda w: len(w.pieces))
        worker.pieces.append(piece)
        if len(worker.pieces) == 1:
            self._start_piece(worker)

    def wait(self, timeout: float) -> list[PieceReply]:
        """The next replies; none if they take longer than `timeout`."""
        end = self._clock() + timeout
        while not self._replies and self._events and self._events[0][0] <= end:
            self._clock.skip_to(self._events[0][0])
            while self._events and self._events[0][0] <= self._clock():
                heapq.heappop(self._events)[2]()
        if not self._replies:
            self._clock.skip_to(end)
        replies, self._replies = self._replies, []
        return replies

    def forget(self, piece: int) -> None:
        """Ends the worker of a piece, and ignores its reply."""
        for worker in self._workers:
            if any(held.number == piece for held in worker.pieces):
                self.stats.ended += 1
                self._end(worker, "its worker was ended")
                self._replies = [r for r in self._replies if r.piece != piece]

    def close(self) -> None:
        """Does nothing."""

    def _schedule(self, moment: float, event: Callable[[], None]) -> None:
        if moment < float("inf"):
            heapq.heappush(self._events, (moment, next(self._order), event))

    def _schedule_for(
        self, worker: _SimulatedWorker, seconds: float, event: Callable[[], None]
    ) -> None:
        """Schedules an event that does not happen if the worker ends first."""
        life = worker.life
        self._schedule(self._clock() + seconds, lambda: event() if worker.life == life else None)

    def _start_piece(self, worker: _SimulatedWorker) -> None:
        fleet, piece = self._fleet, worker.pieces[0]
        slow = worker.slow or self._rng.random() < fleet.slow_pieces
        hung = self._rng.random() < fleet.hung
        self.stats.slowed += slow
        self.stats.hung += hung
        seconds = len(piece.rows) / fleet.rows_a_second * self._rng.uniform(0.9, 1.1)
        load = 0.0 if piece.job in worker.loaded else fleet.load
        factor = fleet.slow if slow else 1.0
        worker.started = self._clock() + load * factor
        worker.duration = float("inf") if hung else seconds * factor
        worker.loaded.add(piece.job)
        self._schedule_for(worker, load * factor + worker.duration, lambda: self._finish(worker))

    def _finish(self, worker: _SimulatedWorker) -> None:
        piece = worker.pieces.pop(0)
        self._count_rows(worker, piece)
        entries, name = (self._seal(piece),), f"simulated {worker.number}"
        rows, seconds = len(piece.rows), worker.duration
        self._replies.append(Sealed(piece.number, entries, rows, seconds, name))
        if worker.pieces:
            self._start_piece(worker)

    def _count_rows(self, worker: _SimulatedWorker, piece: Piece) -> None:
        """Counts the rows done of a worker's first piece."""
        fraction = (self._clock() - worker.started) / worker.duration
        self.stats.rows += len(piece.rows) * min(1.0, max(0.0, fraction))

    def _seal(self, piece: Piece) -> ShardEntry:
        with self._clock.stopped():
            return self._sealers[piece.job].seal(
                [make_up_rows(as_keys(row.key for row in piece.rows))]
            )

    def _schedule_death(self, worker: _SimulatedWorker) -> None:
        seconds = self._draw_seconds(self._fleet.worker_dies)
        self._schedule_for(worker, seconds, lambda: self._die(worker))

    def _die(self, worker: _SimulatedWorker) -> None:
        self.stats.deaths += 1
        if worker.pieces and self._rng.random() < self._fleet.unsaid:
            self._seal(worker.pieces[0])
        self._end(worker, "its worker died")

    def _schedule_node_loss(self, node: Sequence[_SimulatedWorker]) -> None:
        def lose_node() -> None:
            self.stats.nodes_lost += 1
            for worker in node:
                self._end(worker, "its node was lost", by_node=True)
            self._schedule_node_loss(node)

        self._schedule(self._clock() + self._draw_seconds(self._fleet.node_dies), lose_node)

    def _end(self, worker: _SimulatedWorker, reason: str, *, by_node: bool = False) -> None:
        """Ends a worker; another one replaces it after a while."""
        if worker.pieces:
            self._count_rows(worker, worker.pieces[0])
        for index, piece in enumerate(worker.pieces):  # the second one had not begun
            self._replies.append(Lost(piece.number, reason, by_node or index > 0))
        worker.pieces, worker.up = [], False
        worker.loaded.clear()
        worker.life += 1
        self._schedule_for(worker, self._fleet.restart, lambda: self._restart(worker))

    def _restart(self, worker: _SimulatedWorker) -> None:
        worker.up = True
        self._schedule_death(worker)

    def _draw_seconds(self, mean: float) -> float:
        return mean if mean == float("inf") else self._rng.exponential(mean)


def make_up_rows(keys: Keys) -> Shard:
    """A shard whose features tell which rows they are.

    Args:
        keys: (rows, 16)
    """
    features = keys[:, None].astype(FEATURE_DTYPE)  # DIM is the width of a key
    rows = len(keys)
    return Shard(
        keys,
        [""] * rows,
        POSITIONS * np.arange(rows + 1),
        features.repeat(POSITIONS, 1).reshape(-1, DIM),
        features.repeat(len(POOLS), 1),
        POOLS,
    )
