"""Hands pieces to a crew and enters what it sealed; it knows neither models nor machines.

What a worker says is believed only as far as the store bears it out: a piece is done when its rows
are in the index. So any number of workers may die, answer twice or too late, and several drivers
may add to one store. Tries are counted here, not by the engine: one that repeats a piece by itself
(as Ray's ``max_task_retries=-1``) would do so for ever with one that kills its worker.
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

TRIES = 3
"""Of a piece, before it is listed."""
_NODES = 10
"""Machines that may go under a piece: that is seldom its fault."""
_DEADLINE, _FIRST_DEADLINE = 600.0, 3600.0
"""Seconds that a piece may take at least, and while no rate is known."""
_SLOW = 10.0
"""Times the expected seconds that a piece may take."""
_STRAGGLING = 1.5
"""Times the expected seconds from which another worker tries it too, if it has nothing else."""
_GATHERED, _GATHERED_SECONDS = 64, 1.0
"""Answers that are entered at once, and how long the first one waits for others."""


def drive(
    jobs: Sequence[FeatureJob[Depot]],
    crew: Crew,
    *,
    shard_rows: int,
    tries: int = TRIES,
    tally: Tally | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Tally:
    """Adds the rows that are missing by a crew, which is ended at the end.

    Args:
        jobs: What is wanted, in order; those of one folder share a writer. Their encoders are the
            crew's affair.
        crew: The workers.
        shard_rows: Rows a window.
        tries: Of a piece, before it is listed and the rest goes on.
        tally: What is counted is added here.
        clock: Seconds.

    Raises:
        DataError: Rows could not be read; all others are there.
        DeviceError: Pieces failed; all others are there. Or no worker works.
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
    _again: deque[Unit] = field(default_factory=deque)
    _open: int = 0
    """Units whose rows are neither there nor given up."""
    _handed: dict[int, Assignment] = field(default_factory=dict)
    _heard: list[tuple[Unit, Sealed | Refused]] = field(default_factory=list)
    """Answers that are not entered yet."""
    _heard_since: float = 0.0
    _problems: list[str] = field(default_factory=list)
    _listed: list[str] = field(default_factory=list)
    """Pieces that were given up."""
    _failures: int = 0
    """In a row, as where a disk is full: nothing was entered since."""
    _most: int = 1
    """Workers at a time."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _rates: dict[int, Rate] = field(default_factory=lambda: defaultdict(Rate))
    """By the features."""
    _backlog: Backlog = field(init=False)
    _watching: JobProgress = field(init=False)

    def __post_init__(self) -> None:
        work = missing_windows(self.jobs, self.shard_rows)
        self._backlog = Backlog(work)
        self._watching = JobProgress(self.jobs, [sum(map(len, windows)) for windows in work])

    def run(self) -> None:
        """Until every row is there or given up."""
        while self._open or self._backlog.job is not None:
            while self.crew.idle > 0 and (unit := self._next()):
                self._hand_out(unit)
            if not self._open and self._backlog.job is None:
                return  # what was left had been added by others
            self._most = max(self._most, self.crew.workers)
            for said in self.crew.wait(_GATHERED_SECONDS):
                self._hear(said)
            waited = self.clock() - self._heard_since
            more = self._handed or self._backlog.job is not None
            if len(self._heard) >= _GATHERED or waited >= _GATHERED_SECONDS or not more:
                self._enter()
            self._forget_late()

    def _next(self) -> Unit | None:
        """What to hand out now."""
        while self._again or self._backlog.job is not None:
            job = self._backlog.job
            if job is not None:
                windows = self._backlog.take(self._rate(job).value, self.crew.workers)
                unit = Unit(job, windows)
                self._open += 1
            else:  # what has failed comes last: it must not keep the rest waiting
                unit = self._again.popleft()
                self.tally.again += 1
            if self._settle(unit):
                return unit
        return self._slowest()

    def _slowest(self) -> Unit | None:
        """The one that is expected for longest, for a second worker: who is first wins."""
        if len(self._handed) >= self.crew.workers:
            return None  # it would only wait behind another one
        now, late = self.clock(), {}
        for handed in self._handed.values():
            unit, rate = handed.unit, self._rate(handed.unit.job).value
            last = unit.failed >= self.tries - 1  # else it would never be seen to have failed
            if rate is not None and unit.windows and unit.running == 1 and not last:
                late[now - handed.since - _STRAGGLING * len(unit.places) / rate] = unit
        longest = max(late, default=-1.0)
        if longest <= 0:
            return None
        self.tally.again += 1
        return late[longest]

    def _hand_out(self, unit: Unit) -> None:
        rows = tuple(self.jobs[unit.job].rows.take(unit.places))
        number, now = next(self._numbers), self.clock()
        rate = self._rate(unit.job).value
        expected = None if rate is None else len(rows) / rate
        limit = _FIRST_DEADLINE if expected is None else max(_DEADLINE, _SLOW * expected)
        self._handed[number] = Assignment(unit, now, now + limit * (1 + unit.failed))
        unit.running += 1
        self.tally.pieces += 1
        self.crew.submit(Piece(number, unit.job, rows, tuple(map(len, unit.windows))))

    def _hear(self, said: PieceReply) -> None:
        handed = self._handed.pop(said.piece, None)
        if handed is None:  # it was too late
            return
        unit = handed.unit
        if isinstance(said, Lost):
            self.tally.lost += 1
            unit.running -= 1
            self._failed(unit, said.reason, by_node=said.by_node)
            return
        self.tally.encoded += sum(entry.rows for entry in said.entries)
        if isinstance(said, Sealed):
            self._rate(unit.job).add(said.rows, said.seconds)
        if not self._heard:
            self._heard_since = self.clock()
        self._heard.append((unit, said))

    def _enter(self) -> None:
        """Enters what was heard of; what is not there all the same is done again."""
        for unit, said in self._adopt():
            unit.running -= 1
            if not unit.windows or not self._settle(unit):
                continue
            if isinstance(said, Sealed):
                where = "its shards are not where they are looked for: do all workers see them?"
                self._failed(unit, where)
            elif said.again:
                self._failed(unit, said.reason)
            else:
                self._problems += said.problems
                self.jobs[unit.job].notice(f"{said.reason}; the others go on.")
                self._give_up(unit)

    def _adopt(self) -> list[tuple[Unit, Sealed | Refused]]:
        """Enters the shards that were heard of; returns who said so."""
        heard, self._heard = self._heard, []
        entries: dict[int, list[ShardEntry]] = defaultdict(list)
        for unit, said in heard:
            entries[unit.job] += said.entries
        for job, sealed in entries.items():
            with self._store():
                rows = self.jobs[job].writer.adopt(sealed)
            self.jobs[job].computed += rows
            self._failures *= not rows
            self.tally.adopted += len(sealed)
            self.tally.wasted += sum(entry.rows for entry in sealed) - rows
        return heard

    def _settle(self, unit: Unit) -> bool:
        """Takes away the rows of a unit that are there by now; whether some are missing."""
        job = self.jobs[unit.job]
        with self._store():
            there = job.writer.has(job.rows.keys[unit.places])
        if there.any():
            unit.take_away(there)
            self._watching.settled(unit.job, int(there.sum()), there=True)
            self._open -= not unit.windows
        return bool(unit.windows)

    def _failed(self, unit: Unit, reason: str, *, by_node: bool = False) -> None:
        """Hands a unit out again, window by window before the last try; or lists it."""
        if not unit.windows:
            return
        unit.nodes += by_node
        unit.failed += not by_node
        self._failures += not by_node
        # With nothing else to do, what fails is tried as often as it may, and listed.
        more = self._backlog.job is not None or not any(job.computed for job in self.jobs)
        if more and not self._heard and self._failures >= self.tries * (self._most + 1):
            raise DeviceError(f"No worker works: {reason}", "The same command goes on.")
        if unit.running:
            return  # another worker has it
        if unit.failed >= self.tries or unit.nodes >= _NODES:
            self._list(unit, reason)
        elif unit.failed == self.tries - 1 and len(unit.windows) > 1:
            self._open += len(unit.windows) - 1
            self._again += [
                Unit(unit.job, [window], unit.failed, unit.nodes) for window in unit.windows
            ]
            unit.windows = []
        else:
            self._again.append(unit)

    def _list(self, unit: Unit, reason: str) -> None:
        job = self.jobs[unit.job]
        first, last = (row.sample.guid for row in job.rows.take(unit.places[[0, -1]]))
        self._listed.append(f"{job.name}, {len(unit.places)} rows from {first} to {last}: {reason}")
        job.notice(f"given up after {unit.failed + unit.nodes} tries: {self._listed[-1]}")
        self._give_up(unit)

    def _give_up(self, unit: Unit) -> None:
        self._watching.settled(unit.job, len(unit.places), there=False)
        unit.windows = []
        self._open -= 1

    def _forget_late(self) -> None:
        now = self.clock()
        for number in [number for number, handed in self._handed.items() if now > handed.limit]:
            handed = self._handed.pop(number)
            handed.unit.running -= 1
            self.tally.lost += 1
            self.crew.forget(number)
            self._failed(handed.unit, f"no answer for {now - handed.since:.0f} s")

    def _rate(self, job: int) -> Rate:
        return self._rates[id(self.jobs[job].writer)]

    @contextlib.contextmanager
    def _store(self) -> Iterator[None]:
        started = time.perf_counter()
        self.tally.store_operations += 1
        try:
            yield
        finally:
            self.tally.store_seconds += time.perf_counter() - started

    def close(self) -> None:
        """Enters what was sealed, whatever ended the work."""
        try:
            self._adopt()
        finally:
            self._watching.close()

    def check(self) -> None:
        """Raises for what is not there."""
        if self._problems:
            raise unreadable(self._problems)
        if self._listed:
            raise DeviceError(
                f"{len(self._listed)} piece(s) of the rows failed {self.tries} times; all others "
                "are there.",
                "The same command tries them again.",
                self._listed,
            )
