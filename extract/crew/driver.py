"""Hands pieces to a crew and enters what it sealed; it knows neither models nor machines.

The driver believes a worker only as far as the store confirms it: a piece is done when its rows are
in the index. So any number of workers may die, reply twice or too late, and several drivers may add
to one store. Tries are counted here, not by the engine: one that repeats a piece by itself (as Ray
with ``max_task_retries=-1``) would run one that kills its worker for ever.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from extract.engine import unreadable
from extract.plan import FeatureJob, missing_windows
from mmsa_cache.errors import DeviceError
from mmsa_cache.store.index import ShardEntry

from .pieces import Backlog, Piece
from .protocol import Crew, Depot, Lost, PieceReply, Refused, Sealed
from .units import Assignment, Rate, Unit
from .watching import JobProgress, Tally

_MAX_TRIES = 3
"""Of a piece, before it is given up."""
_MAX_LOST_MACHINES = 10
"""Under one piece: seldom is it the fault of the piece."""
_MIN_DEADLINE, _FIRST_DEADLINE = 600.0, 3600.0
"""Seconds that a piece may take at least, and while no rate is known."""
_SLOW = 10.0
"""A piece may take so many times the expected seconds."""
_STRAGGLING = 1.5
"""After so many times the expected seconds another worker, if free, gets the piece too."""
_MAX_REPLIES, _MAX_REPLY_SECONDS = 64, 1.0
"""Replies that are processed at once, and how long the first one waits for others."""


def drive(
    jobs: Sequence[FeatureJob[Depot]],
    crew: Crew,
    *,
    shard_rows: int,
    tries: int = _MAX_TRIES,
    tally: Tally | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Tally:
    """Adds missing rows by a crew, and closes it.

    Args:
        jobs: In order; those of one folder share a writer. The crew knows their encoders.
        crew: The workers.
        shard_rows: Rows a window.
        tries: Of a piece, before it is given up and the rest goes on.
        tally: Statistics are added here.
        clock: Seconds.

    Raises:
        DataError: Rows could not be read; all others are present.
        DeviceError: Pieces failed, and all others are present; or no worker works.
    """
    with contextlib.closing(crew):
        driver = _Driver(jobs, crew, shard_rows, tries, tally or Tally(), clock)
        try:
            driver.run()
        finally:
            driver.close()
    driver.check()
    return driver.tally


@dataclass(slots=True)
class _Driver:
    jobs: Sequence[FeatureJob[Depot]]
    crew: Crew
    shard_rows: int
    tries: int
    tally: Tally
    clock: Callable[[], float]
    _retries: deque[Unit] = field(default_factory=deque)
    _open_units: int = 0
    """Units with rows that are neither present nor given up."""
    _assignments: dict[int, Assignment] = field(default_factory=dict)
    """By the number of the piece."""
    _replies: list[tuple[Unit, Sealed | Refused]] = field(default_factory=list)
    _replies_since: float = 0.0
    _problems: list[str] = field(default_factory=list)
    _failed_pieces: list[str] = field(default_factory=list)
    _failures: int = 0
    """Since rows were last entered; many of them mean something like a full disk."""
    _max_workers: int = 1
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _rates: dict[int, Rate] = field(default_factory=lambda: defaultdict(Rate))
    """By the `id` of the writer."""
    _backlog: Backlog = field(init=False)
    _progress: JobProgress = field(init=False)

    def __post_init__(self) -> None:
        work = missing_windows(self.jobs, self.shard_rows)
        self._backlog = Backlog(work)
        self._progress = JobProgress(self.jobs, [sum(map(len, windows)) for windows in work])

    def run(self) -> None:
        """Works until every row is present or given up."""
        while self._open_units or self._backlog.job is not None:
            while self.crew.capacity > 0 and (unit := self._next_unit()):
                self._assign(unit)
            if not self._open_units and self._backlog.job is None:
                return  # others had added what was left
            self._max_workers = max(self._max_workers, self.crew.workers)
            for reply in self.crew.wait(_MAX_REPLY_SECONDS):
                self._receive(reply)
            waited = self.clock() - self._replies_since
            more = self._assignments or self._backlog.job is not None
            if len(self._replies) >= _MAX_REPLIES or waited >= _MAX_REPLY_SECONDS or not more:
                self._process_replies()
            self._expire_assignments()

    def _next_unit(self) -> Unit | None:
        """What to hand out next."""
        while self._retries or self._backlog.job is not None:
            job = self._backlog.job
            if job is not None:
                windows = self._backlog.take(self._rate(job).value, self.crew.workers)
                unit = Unit(job, windows)
                self._open_units += 1
            else:  # failed units come last, so that they do not hold up the rest
                unit = self._retries.popleft()
                self.tally.retries += 1
            if self._remove_present(unit):
                return unit
        return self._pick_straggler()

    def _pick_straggler(self) -> Unit | None:
        """The unit that is most overdue, for a second worker; whoever seals it first wins."""
        if len(self._assignments) >= self.crew.workers:
            return None  # it would only wait behind another piece
        now, overdue = self.clock(), {}
        for assignment in self._assignments.values():
            unit, rate = assignment.unit, self._rate(assignment.unit.job).value
            last_try = unit.failures >= self.tries - 1  # two workers would hide its failure
            if rate is not None and unit.windows and unit.workers == 1 and not last_try:
                overdue[now - assignment.since - _STRAGGLING * len(unit.rows) / rate] = unit
        longest = max(overdue, default=-1.0)
        if longest <= 0:
            return None
        self.tally.retries += 1
        return overdue[longest]

    def _assign(self, unit: Unit) -> None:
        rows = tuple(self.jobs[unit.job].rows.take(unit.rows))
        number, now = next(self._numbers), self.clock()
        rate = self._rate(unit.job).value
        expected = None if rate is None else len(rows) / rate
        limit = _FIRST_DEADLINE if expected is None else max(_MIN_DEADLINE, _SLOW * expected)
        self._assignments[number] = Assignment(unit, now, now + limit * (1 + unit.failures))
        unit.workers += 1
        self.tally.pieces += 1
        self.crew.submit(Piece(number, unit.job, rows, tuple(map(len, unit.windows))))

    def _receive(self, reply: PieceReply) -> None:
        assignment = self._assignments.pop(reply.piece, None)
        if assignment is None:  # it comes too late
            return
        unit = assignment.unit
        if isinstance(reply, Lost):
            self.tally.lost += 1
            unit.workers -= 1
            self._handle_failure(unit, reply.reason, by_node=reply.by_node)
            return
        self.tally.encoded += sum(entry.rows for entry in reply.entries)
        if isinstance(reply, Sealed):
            self._rate(unit.job).add(reply.rows, reply.seconds)
        if not self._replies:
            self._replies_since = self.clock()
        self._replies.append((unit, reply))

    def _process_replies(self) -> None:
        """Enters sealed shards; units whose rows are missing all the same are tried again."""
        for unit, reply in self._adopt_shards():
            unit.workers -= 1
            if not unit.windows or not self._remove_present(unit):
                continue
            if isinstance(reply, Sealed):
                reason = "its shards are not where they are looked for: do all workers see them?"
                self._handle_failure(unit, reason)
            elif reply.retry:
                self._handle_failure(unit, reply.reason)
            else:
                self._problems += reply.problems
                self.jobs[unit.job].notice(f"{reply.reason}; the others go on.")
                self._give_up(unit)

    def _adopt_shards(self) -> list[tuple[Unit, Sealed | Refused]]:
        """Enters the shards of the collected replies; returns these replies."""
        replies, self._replies = self._replies, []
        entries: dict[int, list[ShardEntry]] = defaultdict(list)
        for unit, reply in replies:
            entries[unit.job] += reply.entries
        for job, sealed in entries.items():
            with self._timed_store():
                rows = self.jobs[job].writer.adopt(sealed)
            self.jobs[job].computed += rows
            self._failures *= not rows
            self.tally.adopted += len(sealed)
            self.tally.wasted += sum(entry.rows for entry in sealed) - rows
        return replies

    def _remove_present(self, unit: Unit) -> bool:
        """Removes the rows of a unit that are in the index; returns whether any are left."""
        job = self.jobs[unit.job]
        with self._timed_store():
            present = job.writer.has(job.rows.keys[unit.rows])
        if present.any():
            unit.remove(present)
            self._progress.settle(unit.job, int(present.sum()), present=True)
            self._open_units -= not unit.windows
        return bool(unit.windows)

    def _handle_failure(self, unit: Unit, reason: str, *, by_node: bool = False) -> None:
        """Queues a unit again, window by window for the last try; or gives it up."""
        if not unit.windows:
            return
        unit.lost_machines += by_node
        unit.failures += not by_node
        self._failures += not by_node
        # With nothing else to do, what fails is tried as often as it may be, and listed.
        more = self._backlog.job is not None or not any(job.computed for job in self.jobs)
        if more and not self._replies and self._failures >= self.tries * (self._max_workers + 1):
            raise DeviceError(f"No worker works: {reason}", "The same command goes on.")
        if unit.workers:
            return  # another worker has it
        if unit.failures >= self.tries or unit.lost_machines >= _MAX_LOST_MACHINES:
            self._list_failure(unit, reason)
        elif unit.failures == self.tries - 1 and len(unit.windows) > 1:
            self._open_units += len(unit.windows) - 1
            self._retries += [
                Unit(unit.job, [window], unit.failures, unit.lost_machines)
                for window in unit.windows
            ]
            unit.windows = []
        else:
            self._retries.append(unit)

    def _list_failure(self, unit: Unit, reason: str) -> None:
        job, count = self.jobs[unit.job], len(unit.rows)
        first, last = (row.sample.guid for row in job.rows.take(unit.rows[[0, -1]]))
        self._failed_pieces.append(f"{job.name}, {count} rows from {first} to {last}: {reason}")
        tries = unit.failures + unit.lost_machines
        job.notice(f"given up after {tries} tries: {self._failed_pieces[-1]}")
        self._give_up(unit)

    def _give_up(self, unit: Unit) -> None:
        self._progress.settle(unit.job, len(unit.rows), present=False)
        unit.windows = []
        self._open_units -= 1

    def _expire_assignments(self) -> None:
        """Ends workers that missed the deadline of their piece."""
        now = self.clock()
        for number in [n for n, each in self._assignments.items() if now > each.deadline]:
            assignment = self._assignments.pop(number)
            assignment.unit.workers -= 1
            self.tally.lost += 1
            self.crew.forget(number)
            self._handle_failure(assignment.unit, f"no answer for {now - assignment.since:.0f} s")

    def _rate(self, job: int) -> Rate:
        return self._rates[id(self.jobs[job].writer)]

    @contextlib.contextmanager
    def _timed_store(self) -> Iterator[None]:
        started = time.perf_counter()
        self.tally.store_operations += 1
        try:
            yield
        finally:
            self.tally.store_seconds += time.perf_counter() - started

    def close(self) -> None:
        """Enters what was sealed, whatever ended the work."""
        try:
            self._adopt_shards()
        finally:
            self._progress.close()

    def check(self) -> None:
        """Raises if rows are missing."""
        if self._problems:
            raise unreadable(self._problems)
        if self._failed_pieces:
            raise DeviceError(
                f"{len(self._failed_pieces)} piece(s) of the rows failed {self.tries} times; all "
                "others are there.",
                "The same command tries them again.",
                self._failed_pieces,
            )
