"""The extraction loop: rows in, sealed shards out. It holds no model code.

Three things go on at once: threads read and prepare the rows of the coming windows, streams run the
model on the batches of the present one, and the caller's thread assembles and seals windows that
are done; beside a GPU another thread seals.

Batches never cross windows, are ordered by length inside one, and on the CPU each is computed by
one thread. So the bytes of a row depend only on the missing rows of its window and the batch size,
not on the number of cores or on interruptions. On a GPU this holds as long as its libraries choose
the same kernels for equal batches, and until a batch does not fit into its memory.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mmsa_cache.errors import DataError
from mmsa_cache.native.memory import reuse_blocks, trim_heap
from mmsa_cache.store.schema import Shard

from .plan import EncodingJob, PreparedRows, Row, missing_windows
from .publisher import Publisher
from .reading.reading import ReadingPool, should_use_processes
from .shards import QueuedWindow, assemble
from .streams import HalvingEncoder, QueuedBatch, Streams, ThreadCounts, Timings

_GPU_ROWS_AHEAD = 1024
"""Rows that are read beyond those that are being encoded."""
_TRIM_EVERY = 8
"""Windows between two trims. Freed blocks of all sizes add up; but what is given back to the system
and needed again has to be cleared again."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Rows that are encoded together."""

    job: EncodingJob
    model: HalvingEncoder
    rows: NDArray[np.int64]
    """Those that were missing when the extraction began."""


def extract(
    jobs: Sequence[EncodingJob],
    device: torch.device,
    *,
    shard_rows: int,
    batch_size: int,
    threads: ThreadCounts | None = None,
    processes: bool | None = None,
    models: dict[int, HalvingEncoder] | None = None,
) -> Timings:
    """Adds the rows that are missing, job by job, without a pause between them.

    Args:
        jobs: In order; those of one folder share a writer.
        device: Where the models run.
        shard_rows: Rows a window.
        batch_size: Rows a forward pass.
        threads: Default: what suits the device.
        processes: Whether processes read rows in place of threads, which changes no byte; default:
            see `should_use_processes`.
        models: By the `id` of their encoder, of earlier extractions: they know how many rows fit
            into memory. New ones are added.

    Raises:
        DataError: Rows could not be read; all unreadable ones of the rest are named.
        DeviceError: There is no memory for one row, or see `assemble`.
        DiskError: Rows were not sealed.
    """
    threads, timings = threads or ThreadCounts.plan(device), Timings()
    models = {} if models is None else models
    for job in jobs:
        models.setdefault(id(job.encoder), HalvingEncoder(job.encoder))
    work = [
        [_Window(job, models[id(job.encoder)], rows) for rows in windows]
        for job, windows in zip(jobs, missing_windows(jobs, shard_rows), strict=True)
    ]
    windows = list(itertools.chain(*work))
    if processes is None:
        rows = sum(len(window.rows) for window in windows)
        processes = should_use_processes(device, rows, threads.readers)
    shards = _encode_windows(windows, device, threads, processes, batch_size, timings)
    publishers: dict[int, Publisher] = {}
    with reuse_blocks(), contextlib.closing(shards), contextlib.ExitStack() as stack:
        for job, own_windows in zip(jobs, work, strict=True):
            trim_heap()  # the encoder before had batches of other sizes
            if id(job.writer) not in publishers:  # two would seal the same folder at once
                publisher = Publisher(job.writer, timings, beside=device.type != "cpu")
                publishers[id(job.writer)] = stack.enter_context(contextlib.closing(publisher))
            _publish(job, own_windows, shards, publishers[id(job.writer)], batch_size)
    return timings


def _publish(
    job: EncodingJob,
    windows: Sequence[_Window],
    shards: Iterator[Shard | None],
    publisher: Publisher,
    batch_size: int,
) -> None:
    """Publishes the shards of a job's windows as they come; shows its progress."""
    max_rows = None
    with job.watch() as advance:
        for number, window in enumerate(windows, 1):
            job.computed += publisher.add(next(shards))
            if window.model.max_rows != max_rows:
                max_rows = window.model.max_rows
                job.notice(f"No memory for {batch_size} rows at once: {max_rows} are run.")
            if number % _TRIM_EVERY == 0:
                trim_heap()
            advance(len(window.rows))
        publisher.publish()  # beside a GPU the next job goes on meanwhile


def _encode_windows(
    windows: Sequence[_Window],
    device: torch.device,
    threads: ThreadCounts,
    processes: bool,
    batch_size: int,
    timings: Timings,
) -> Generator[Shard | None]:
    """Encodes windows in order; meanwhile the rows of later ones are read.

    Yields:
        The rows of each window that are still missing; None if there are none.

    Raises:
        DataError: See `extract`; raised once all windows before the unreadable row are taken.
        DeviceError: See `assemble`.
    """
    with (
        contextlib.closing(Streams(device, threads.streams)) as streams,
        contextlib.closing(ReadingPool(threads.readers, processes=processes)) as reading,
    ):
        encoding = _Encoding(reading, streams, batch_size, timings)
        # On the CPU readers take cores from the streams: reading further ahead gains nothing.
        rows_ahead = 0 if device.type == "cpu" else _GPU_ROWS_AHEAD
        begun = _look_ahead(map(encoding.begin_reading, windows), rows_ahead)
        # With so many rows queued no stream waits while the last batches of a window run.
        queued = _look_ahead(encoding.queue(begun), threads.streams * batch_size)
        # `map`, as a loop variable would keep a window's batches until the next one is ready.
        yield from map(encoding.assemble, queued)
        encoding.check(begun)


@dataclass(frozen=True, slots=True)
class _ReadingWindow:
    """A window whose rows are being read."""

    window: _Window
    rows: Sequence[Row]
    """Those that are still missing."""
    futures: list[Future[PreparedRows]]


class _Encoding:
    """The steps from windows to shards.

    Args:
        reading: Reads rows.
        streams: Run models.
        batch_size: Rows a forward pass.
        timings: Seconds are added here.
    """

    def __init__(
        self, reading: ReadingPool, streams: Streams, batch_size: int, timings: Timings
    ) -> None:
        self._reading, self._streams = reading, streams
        self._batch_size, self._timings = batch_size, timings
        self._problems: list[str] = []
        """Of the first window with unreadable rows."""

    def begin_reading(self, window: _Window) -> _ReadingWindow:
        """Starts to read those rows of a window that no other writer has sealed meanwhile."""
        job = window.job
        missing = window.rows[~job.writer.has(job.rows.keys[window.rows])]
        job.present += len(window.rows) - len(missing)
        rows = job.rows.take(missing)
        futures = self._reading.submit(rows, job.reader, job.encoder)
        return _ReadingWindow(window, rows, futures)

    def queue(self, windows: Iterable[_ReadingWindow]) -> Iterator[QueuedWindow]:
        """Queues the batches of windows, up to the first one with unreadable rows."""
        for reading in windows:
            prepared, batches = self._queue_batches(reading.futures, reading.window.model)
            self._problems = prepared.problems
            if self._problems:
                return
            encoder = reading.window.job.encoder
            yield QueuedWindow(reading.rows, prepared.operations, batches, encoder)

    def _queue_batches(
        self, futures: list[Future[PreparedRows]], model: HalvingEncoder
    ) -> tuple[PreparedRows, list[QueuedBatch]]:
        """Waits for the rows of a window and queues their batches.

        Only the batches keep the inputs, which are freed as they are encoded: `futures` is emptied,
        and the returned rows have no inputs.

        Inputs of equal length are queued as soon as a batch of them is read, so that streams start
        early. Others are ordered by length first, which needs all of them.
        """
        window, batches, sent = PreparedRows(), [], 0
        streams, batch_size = self._streams, self._batch_size
        futures.reverse()
        while futures:
            idle, waiting_since = streams.idle, time.perf_counter()
            prepared = futures.pop().result()
            self._timings.starved += (time.perf_counter() - waiting_since) if idle else 0.0
            self._timings.read += prepared.seconds
            window.add(prepared)
            while (
                model.encoder.equal_inputs
                and not window.problems
                and len(window.inputs) >= sent + batch_size
            ):
                inputs = window.inputs[sent : sent + batch_size]
                batches += streams.submit(model, inputs, batch_size, sent)
                sent += batch_size
        if not window.problems:
            batches += streams.submit(model, window.inputs[sent:], batch_size, sent)
        window.inputs = []
        return window, batches

    def assemble(self, window: QueuedWindow) -> Shard | None:
        """Waits for a window's features."""
        return assemble(window, self._timings) if window.rows else None

    def check(self, rest: Iterable[_ReadingWindow]) -> None:
        """Raises if rows were unreadable; reads the remaining windows to name all that are."""
        if not self._problems:
            return
        problems = list(self._problems)
        for reading in rest:
            while reading.futures:  # inputs are freed at once: those of all need too much memory
                problems += reading.futures.pop(0).result().problems
        raise unreadable(problems)


class _HasRows(Protocol):
    @property
    def rows(self) -> Sequence[Row]: ...


T = TypeVar("T", bound=_HasRows)


def _look_ahead(items: Iterable[T], rows: int) -> Iterator[T]:
    """Yields items in order, each once the items after it have so many rows."""
    ahead: deque[T] = deque()
    rows_behind = 0  # the first item
    for item in items:
        rows_behind += len(item.rows) if ahead else 0
        ahead.append(item)
        while ahead and rows_behind >= rows:
            yield ahead.popleft()
            rows_behind -= len(ahead[0].rows) if ahead else 0
    while ahead:
        yield ahead.popleft()


def unreadable(problems: Sequence[str]) -> DataError:
    """The error of rows that cannot be read, a line each."""
    unique = list(dict.fromkeys(problems))
    return DataError(
        f"{len(unique)} sample(s) cannot be read; what was sealed before stays.",
        "Repair the files or remove their rows from the label file, then run it again; or set the "
        "rows aside: --on-bad skip.",
        unique,
    )
