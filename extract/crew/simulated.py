"""A crew that only sleeps: it seals made-up rows, dies, hangs and lags as large fleets do.

What it seals and how the driver hears of it is real; the seconds that encoders would take are
skipped. The time that the driver and the store take counts, that in which rows are made up does
not: on a fleet it passes on other machines.
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
from .protocol import Lost, PieceReply, Sealed, Sealer

POSITIONS, DIM, POOLS = 4, 16, ("mean", "first")
"""Of the rows that are made up; a row's features are the bytes of its key."""


class Clock:
    """Seconds that pass as the computer's do, but for those that are skipped or left out."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.left_out = self.cpu_left_out = 0.0
        """Seconds, and seconds of the processor, that were left out."""

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def skip_to(self, moment: float) -> None:
        """Sleeps without waiting."""
        self._ahead += max(0.0, moment - self())

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Leaves out what is done here."""
        started, used = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            self._ahead -= seconds
            self.left_out += seconds
            self.cpu_left_out += time.process_time() - used


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines as they are; times in seconds, the mean of an exponential distribution where they
    are means."""

    workers: int = 64
    a_node: int = 8
    """Workers that a node has, and that end with it."""
    rows_a_second: float = 350.0
    """Of one worker."""
    load: float = 30.0
    """Until an encoder is loaded, once a worker and job."""
    restart: float = 60.0
    """Until a worker that ended is replaced."""
    worker_dies: float = float("inf")
    """Mean time until a worker dies."""
    node_dies: float = float("inf")
    """Mean time until a node is lost."""
    slow_workers: float = 0.0
    """Share of the workers that take `slow` times as long for everything."""
    slow_pieces: float = 0.0
    """Share of the pieces that take `slow` times as long."""
    slow: float = 5.0
    hung: float = 0.0
    """Share of the pieces that never end."""
    unsaid: float = 0.25
    """Share of the deaths that come after a piece was sealed and before it was said."""


@dataclass(slots=True)
class FleetStats:
    """What happened on a simulated fleet."""

    deaths: int = 0
    nodes_lost: int = 0
    hung: int = 0
    slowed: int = 0
    """Pieces that took longer than others, whatever of."""
    ended: int = 0
    """Workers that the driver gave up."""
    rows: float = 0.0
    """That were computed, lost ones and those that were computed twice included."""


@dataclass(slots=True)
class _SimulatedWorker:
    number: int
    slow: bool
    loaded: set[int] = field(default_factory=set)
    pieces: list[Piece] = field(default_factory=list)
    """What it holds; the first one runs."""
    up: bool = True
    life: int = 0
    """Times that it was started; what an earlier one was about to do does not happen."""
    began: float = 0.0
    """When the first piece did, once its encoder was loaded."""
    lasts: float = 0.0
    """Seconds that it takes; infinite where it never ends."""


class SimulatedCrew:
    """See the module.

    Args:
        sealers: Where the shards of each job go.
        fleet: The machines.
        clock: The driver's.
        seed: Of all that happens by chance.

    Attributes:
        seen: What happened.
    """

    _HELD = 2
    """Pieces that a worker may hold."""

    def __init__(
        self, sealers: Sequence[Sealer], fleet: Fleet, clock: Clock, seed: int = 0
    ) -> None:
        self.seen = FleetStats()
        self._sealers, self._fleet, self._clock = sealers, fleet, clock
        self._rng = np.random.default_rng(seed)
        slow = self._rng.random(fleet.workers) < fleet.slow_workers
        self._workers = [_SimulatedWorker(number, bool(s)) for number, s in enumerate(slow)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._said: list[PieceReply] = []
        for worker in self._workers:
            self._expect_death(worker)
        for first in range(0, fleet.workers, fleet.a_node):
            self._expect_loss(self._workers[first : first + fleet.a_node])

    @property
    def workers(self) -> int:
        """Workers that are up."""
        return sum(worker.up for worker in self._workers)

    @property
    def idle(self) -> int:
        """Pieces that can be submitted now."""
        return sum(self._HELD - len(worker.pieces) for worker in self._workers if worker.up)

    def submit(self, piece: Piece) -> None:
        """Hands a piece to the worker that holds least."""
        worker = min((w for w in self._workers if w.up), key=lambda w: len(w.pieces))
        worker.pieces.append(piece)
        if len(worker.pieces) == 1:
            self._begin(worker)

    def wait(self, timeout: float) -> list[PieceReply]:
        """What is said next; nothing where that takes longer."""
        end = self._clock() + timeout
        while not self._said and self._events and self._events[0][0] <= end:
            self._clock.skip_to(self._events[0][0])
            while self._events and self._events[0][0] <= self._clock():
                heapq.heappop(self._events)[2]()
        if not self._said:
            self._clock.skip_to(end)
        said, self._said = self._said, []
        return said

    def forget(self, piece: int) -> None:
        """Ends the worker of a piece."""
        for worker in self._workers:
            if any(held.number == piece for held in worker.pieces):
                self.seen.ended += 1
                self._end(worker, "its worker was ended")
                self._said = [said for said in self._said if said.piece != piece]

    def close(self) -> None:
        """There is nothing to end."""

    def _at(self, moment: float, happens: Callable[[], None]) -> None:
        if moment < float("inf"):
            heapq.heappush(self._events, (moment, next(self._order), happens))

    def _after(self, worker: _SimulatedWorker, seconds: float, happens: Callable[[], None]) -> None:
        """Unless the worker ends before."""
        life = worker.life
        self._at(self._clock() + seconds, lambda: happens() if worker.life == life else None)

    def _begin(self, worker: _SimulatedWorker) -> None:
        """Starts on the first piece that a worker holds."""
        fleet, piece = self._fleet, worker.pieces[0]
        slow = worker.slow or self._rng.random() < fleet.slow_pieces
        hung = self._rng.random() < fleet.hung
        self.seen.slowed += slow
        self.seen.hung += hung
        seconds = len(piece.rows) / fleet.rows_a_second * self._rng.uniform(0.9, 1.1)
        load = 0.0 if piece.job in worker.loaded else fleet.load
        times = fleet.slow if slow else 1.0
        worker.began = self._clock() + load * times
        worker.lasts = float("inf") if hung else seconds * times
        worker.loaded.add(piece.job)
        self._after(worker, load * times + worker.lasts, lambda: self._finish(worker))

    def _finish(self, worker: _SimulatedWorker) -> None:
        piece = worker.pieces.pop(0)
        self._count(worker, piece)
        name = f"simulated {worker.number}"
        sealed = self._seal(piece)
        self._said.append(Sealed(piece.number, (sealed,), len(piece.rows), worker.lasts, name))
        if worker.pieces:
            self._begin(worker)

    def _count(self, worker: _SimulatedWorker, piece: Piece) -> None:
        """Counts what was done of a worker's first piece."""
        done = (self._clock() - worker.began) / worker.lasts
        self.seen.rows += len(piece.rows) * min(1.0, max(0.0, done))

    def _seal(self, piece: Piece) -> ShardEntry:
        with self._clock.stopped():
            return self._sealers[piece.job].seal([made_up(as_keys(row.key for row in piece.rows))])

    def _expect_death(self, worker: _SimulatedWorker) -> None:
        self._after(worker, self._mean(self._fleet.worker_dies), lambda: self._die(worker))

    def _die(self, worker: _SimulatedWorker) -> None:
        self.seen.deaths += 1
        if worker.pieces and self._rng.random() < self._fleet.unsaid:
            self._seal(worker.pieces[0])
        self._end(worker, "its worker died")

    def _expect_loss(self, node: Sequence[_SimulatedWorker]) -> None:
        def lose() -> None:
            self.seen.nodes_lost += 1
            for worker in node:
                self._end(worker, "its node was lost", by_node=True)
            self._expect_loss(node)

        self._at(self._clock() + self._mean(self._fleet.node_dies), lose)

    def _end(self, worker: _SimulatedWorker, reason: str, *, by_node: bool = False) -> None:
        """Ends a worker, which is replaced after a while."""
        if worker.pieces:
            self._count(worker, worker.pieces[0])
        for place, piece in enumerate(worker.pieces):  # the second one has not begun
            self._said.append(Lost(piece.number, reason, by_node or place > 0))
        worker.pieces, worker.up = [], False
        worker.loaded.clear()
        worker.life += 1
        self._after(worker, self._fleet.restart, lambda: self._restart(worker))

    def _restart(self, worker: _SimulatedWorker) -> None:
        worker.up = True
        self._expect_death(worker)

    def _mean(self, seconds: float) -> float:
        return float("inf") if seconds == float("inf") else self._rng.exponential(seconds)


def made_up(keys: Keys) -> Shard:
    """Rows whose features say which rows they are.

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
