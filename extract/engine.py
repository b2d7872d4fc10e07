"""The extraction loop: rows in, sealed shards out. It holds no model code.

Three things go on at once: threads read and prepare the rows of the coming shards, streams run the
model on the batches of the present one, and the caller's thread seals the one that is ready.
Batches never cross shards and are ordered by length inside one, and on the CPU a stream computes
with one thread, so a shard's bytes depend on its rows alone: neither the number of cores nor an
interruption changes them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from mmsa_cache.errors import DataError
from mmsa_cache.native.memory import reused, trim
from mmsa_cache.native.threads import one_thread
from mmsa_cache.store.schema import Shard

from .plan import Job, Prepared, Row, read_rows
from .shards import Queued, assemble
from .streams import Batch, Halving, Streams, Timings, Workers

_PIECE = 16
"""Rows that one thread reads at a time."""
_TRIM_EVERY = 8
"""Shards. What batches and pictures of all sizes leave behind adds up; but of memory that is given
back, the part that is needed again has to be cleared again."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _ShardRows:
    """The rows of one shard."""

    job: Job
    model: Halving
    rows: Sequence[Row]


def extract(
    jobs: Sequence[Job],
    device: torch.device,
    *,
    shard_rows: int,
    batch_size: int,
    workers: Workers | None = None,
) -> Timings:
    """Writes the shards that are missing, cache by cache, without a pause between them.

    Args:
        jobs: The caches, in order.
        device: Where the models run.
        shard_rows: Rows a shard.
        batch_size: Rows a forward pass.
        workers: Threads; default: what suits the device.

    Raises:
        DataError: Rows could not be read; every unreadable one of the rest is named.
        DeviceError: As `assemble` says.
    """
    workers = workers or Workers.plan(device)
    timings, sealed = Timings(), itertools.count(1)
    models = {id(job.encoder): Halving(job.encoder) for job in jobs}
    work = [
        [_ShardRows(job, models[id(job.encoder)], rows) for rows in job.missing(shard_rows)]
        for job in jobs
    ]
    # So many shards are worked on that no stream waits while the last batches of one are run.
    ahead = -(-workers.streams * batch_size // shard_rows)
    every = _encoded(list(itertools.chain(*work)), device, workers, ahead, batch_size, timings)
    with reused(), contextlib.closing(every) as shards:
        for job, pieces in zip(jobs, work, strict=True):
            trim()  # the encoder before had batches of other sizes
            noticed = False
            with job.watch() as advance:
                for piece in pieces:
                    shard = next(shards)
                    if piece.model.halved and not noticed:
                        noticed = True
                        job.notice(
                            f"No memory for {batch_size} rows at once: half as many are run."
                        )
                    started = time.perf_counter()
                    job.writer.publish(shard)
                    timings.write += time.perf_counter() - started
                    del shard  # or it stays until the next one is ready
                    if next(sealed) % _TRIM_EVERY == 0:
                        trim()
                    advance(len(piece.rows))
                job.writer.finish()
    return timings


def _encoded(
    pieces: Sequence[_ShardRows],
    device: torch.device,
    workers: Workers,
    ahead: int,
    batch_size: int,
    timings: Timings,
) -> Generator[Shard]:
    """Shards in order; while one is taken, the rows of the next are read and encoded.

    Raises:
        DataError: As `extract` says, once what comes before the unreadable row is taken.
        DeviceError: As `assemble` says.
    """
    pool = ThreadPoolExecutor(workers.readers, "read", one_thread)
    streams = Streams(device, workers.streams)
    problems: list[str] = []

    def start_reading(piece: _ShardRows) -> tuple[_ShardRows, list[Future[Prepared]]]:
        job, rows = piece.job, piece.rows
        parts = [rows[i : i + _PIECE] for i in range(0, len(rows), _PIECE)]
        return piece, [pool.submit(read_rows, part, job.reader, job.encoder) for part in parts]

    # On the CPU readers take their time from the streams: to read further ahead gains nothing.
    reading = _ahead(map(start_reading, pieces), 0 if device.type == "cpu" else 1)

    def queued() -> Iterator[Queued]:
        for piece, tasks in reading:
            ready, batches = _submit(tasks, streams, piece.model, batch_size)
            timings.read += ready.seconds
            if ready.problems:
                problems.extend(ready.problems)
                return
            yield Queued(piece.rows, ready.operations, batches, piece.job.encoder)

    try:
        # (A loop variable would keep a shard's batches until the next one is ready.)
        yield from map(functools.partial(assemble, timings=timings), _ahead(queued(), ahead))
        if problems:  # what comes before the unreadable row is sealed by now
            # Only the problems of the rest are collected: inputs of all rows need too much memory.
            for _, tasks in reading:
                while tasks:
                    problems += tasks.pop(0).result().problems
            raise _unreadable(problems)
    finally:
        pool.shutdown(cancel_futures=True)
        streams.close()


def _ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """Items in order, each taken before the ``count`` items in front of it are given."""
    taken: deque[T] = deque()
    for item in items:
        taken.append(item)
        if len(taken) > count:
            yield taken.popleft()
    while taken:
        yield taken.popleft()


def _submit(
    pieces: list[Future[Prepared]], streams: Streams, model: Halving, batch_size: int
) -> tuple[Prepared, list[Batch]]:
    """Waits for the rows of a shard and queues their batches.

    The batches alone keep the inputs, so that they are freed as they are encoded: `pieces` is
    emptied, and what is returned of the rows holds none.

    Where inputs are equally long a batch is queued as soon as its rows are read, which cuts the
    idle time before the first one; else all must be there to be ordered by length.
    """
    whole, batches, sent = Prepared(), [], 0
    pieces.reverse()
    while pieces:
        piece = pieces.pop().result()
        whole.inputs += piece.inputs
        whole.operations += piece.operations
        whole.problems += piece.problems
        whole.seconds += piece.seconds
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


def _unreadable(problems: Sequence[str]) -> DataError:
    unique = list(dict.fromkeys(problems))
    return DataError(
        f"{len(unique)} sample(s) cannot be read; what was sealed before stays.",
        "Repair the files or remove their rows from the label file, then run it again; or set the "
        "rows aside: --on-bad skip.",
        unique,
    )
