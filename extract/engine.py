"""The extraction loop: rows in, sealed shards out. It holds no model code.

Three things go on at once: threads read and prepare the rows of the coming windows, streams run the
model on the batches of the present one, and the caller's thread puts those that are ready together
and seals them; beside a GPU another thread does the sealing. Batches never cross windows and are
ordered by length inside one, and on the CPU a stream computes with one thread, so a row's bytes
depend on the missing rows of its window and the size of batches alone: neither the number of cores
nor an interruption changes them. On a GPU that holds as far as its libraries take the same kernels
for equal batches, and until a batch does not fit into its memory.
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

_GPU_AHEAD = 1024
"""Rows whose reading is begun before those before them are encoded."""
_TRIM_EVERY = 8
"""Windows. What batches and pictures of all sizes leave behind adds up; but of memory that is given
back, the part that is needed again has to be cleared again."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Rows that are encoded together."""

    job: EncodingJob
    model: HalvingEncoder
    places: NDArray[np.int64]
    """Those that were missing when the extraction began."""


def extract(
    jobs: Sequence[EncodingJob],
    device: torch.device,
    *,
    shard_rows: int,
    batch_size: int,
    workers: ThreadCounts | None = None,
    processes: bool | None = None,
    models: dict[int, HalvingEncoder] | None = None,
) -> Timings:
    """Adds the rows that are missing, job by job, without a pause between them.

    Args:
        jobs: What is wanted, in order; those of one folder share a writer.
        device: Where the models run.
        shard_rows: Rows a window.
        batch_size: Rows a forward pass.
        workers: Threads; default: what suits the device.
        processes: Whether rows are read by processes in place of threads, which changes no byte;
            default: beside a GPU, where there are many rows and cores.
        models: By the `id` of their encoders, those of extractions before, which know how many rows
            fit into memory; new ones are added.

    Raises:
        DataError: Rows could not be read; every unreadable one of the rest is named.
        DeviceError: There is no memory for one row, or as `assemble` says.
        DiskError: Rows were not sealed.
    """
    workers = workers or ThreadCounts.plan(device)
    timings, encoded = Timings(), itertools.count(1)
    models = {} if models is None else models
    for job in jobs:
        models.setdefault(id(job.encoder), HalvingEncoder(job.encoder))
    work = [
        [_Window(job, models[id(job.encoder)], places) for places in windows]
        for job, windows in zip(jobs, missing_windows(jobs, shard_rows), strict=True)
    ]
    every = list(itertools.chain(*work))
    if processes is None:
        rows = sum(len(window.places) for window in every)
        processes = should_use_processes(device, rows, workers.readers)
    shards = _encoded(every, device, workers, processes, batch_size, timings)
    publishers: dict[int, Publisher] = {}
    with reuse_blocks(), contextlib.closing(shards), contextlib.ExitStack() as stack:
        for job, windows in zip(jobs, work, strict=True):
            trim_heap()  # the encoder before had batches of other sizes
            most = None
            if id(job.writer) not in publishers:  # two would seal the same folder at once
                publishers[id(job.writer)] = stack.enter_context(
                    Publisher(job.writer, timings, beside=device.type != "cpu")
                )
            publisher = publishers[id(job.writer)]
            with job.watch() as advance:
                for window in windows:
                    job.computed += publisher.add(next(shards))
                    if window.model.most != most:
                        most = window.model.most
                        job.notice(f"No memory for {batch_size} rows at once: {most} are run.")
                    if next(encoded) % _TRIM_EVERY == 0:
                        trim_heap()
                    advance(len(window.places))
                publisher.publish()  # beside a GPU the next job goes on meanwhile
    return timings


def _encoded(
    windows: Sequence[_Window],
    device: torch.device,
    workers: ThreadCounts,
    processes: bool,
    batch_size: int,
    timings: Timings,
) -> Generator[Shard | None]:
    """Windows in order; while one is taken, the rows of the next are read and encoded.

    Returns:
        The rows of each that are missing still; None where there is none.

    Raises:
        DataError: As `extract` says, once what comes before the unreadable row is taken.
        DeviceError: As `assemble` says.
    """
    reading = ReadingPool(workers.readers, processes=processes)
    streams = Streams(device, workers.streams)
    problems: list[str] = []

    def start_reading(window: _Window) -> _Begun:
        job = window.job
        # Another writer may have sealed some since.
        missing = window.places[~job.writer.has(job.rows.keys[window.places])]
        job.there += len(window.places) - len(missing)
        rows = job.rows.at(missing)
        return _Begun(window, rows, reading.submit(rows, job.reader, job.encoder))

    # On the CPU readers take their time from the streams: to read further ahead gains nothing.
    further = 0 if device.type == "cpu" else _GPU_AHEAD
    begun = _ahead(map(start_reading, windows), further)

    def queued() -> Iterator[QueuedWindow]:
        for read in begun:
            ready, batches = _submit(read.tasks, streams, read.window.model, batch_size, timings)
            if ready.problems:
                problems.extend(ready.problems)
                return
            yield QueuedWindow(read.rows, ready.operations, batches, read.window.job.encoder)

    def assembled(window: QueuedWindow) -> Shard | None:
        return assemble(window, timings) if window.rows else None

    try:
        # So many rows are worked on that no stream waits while the last batches of a window run.
        # (A loop variable would keep a window's batches until the next one is ready.)
        yield from map(assembled, _ahead(queued(), workers.streams * batch_size))
        if problems:  # what comes before the unreadable row is taken by now
            # Only the problems of the rest are collected: inputs of all rows need too much memory.
            for read in begun:
                while read.tasks:
                    problems += read.tasks.pop(0).result().problems
            raise unreadable(problems)
    finally:
        with contextlib.closing(streams):  # an interrupt meanwhile skips neither
            reading.close()


@dataclass(frozen=True, slots=True)
class _Begun:
    """A window whose rows are being read."""

    window: _Window
    rows: Sequence[Row]
    tasks: list[Future[PreparedRows]]


class _HasRows(Protocol):
    @property
    def rows(self) -> Sequence[Row]: ...


T = TypeVar("T", bound=_HasRows)


def _ahead(items: Iterable[T], rows: int) -> Iterator[T]:
    """Items in order, each as soon as items of so many rows after it are taken."""
    taken: deque[T] = deque()
    after = 0
    for item in items:
        after += len(item.rows) if taken else 0
        taken.append(item)
        while taken and after >= rows:
            yield taken.popleft()
            after -= len(taken[0].rows) if taken else 0
    while taken:
        yield taken.popleft()


def _submit(
    pieces: list[Future[PreparedRows]],
    streams: Streams,
    model: HalvingEncoder,
    batch_size: int,
    timings: Timings,
) -> tuple[PreparedRows, list[QueuedBatch]]:
    """Waits for the rows of a window and queues their batches.

    The batches alone keep the inputs, so that they are freed as they are encoded: `pieces` is
    emptied, and what is returned of the rows holds none.

    Where inputs are equally long a batch is queued as soon as its rows are read, which cuts the
    idle time before the first one; else all must be there to be ordered by length.
    """
    whole, batches, sent = PreparedRows(), [], 0
    pieces.reverse()
    while pieces:
        idle, waiting = streams.idle, time.perf_counter()
        piece = pieces.pop().result()
        timings.starved += (time.perf_counter() - waiting) if idle else 0.0
        timings.read += piece.seconds
        whole.add(piece)
        while (
            model.encoder.equal_inputs
            and not whole.problems
            and len(whole.inputs) >= sent + batch_size
        ):
            part = whole.inputs[sent : sent + batch_size]
            batches += streams.submit(model, part, batch_size, sent)
            sent += batch_size
    if not whole.problems:
        batches += streams.submit(model, whole.inputs[sent:], batch_size, sent)
    whole.inputs = []
    return whole, batches


def unreadable(problems: Sequence[str]) -> DataError:
    """The error of rows that cannot be read, a line each."""
    unique = list(dict.fromkeys(problems))
    return DataError(
        f"{len(unique)} sample(s) cannot be read; what was sealed before stays.",
        "Repair the files or remove their rows from the label file, then run it again; or set the "
        "rows aside: --on-bad skip.",
        unique,
    )
