"""From rows to shards: reading, encoding and assembling overlap."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extract.encoders.protocol import Encoder
from mmsa_cache.errors import DataError, DeviceError
from mmsa_cache.store.schema import Shard

from .halving import Halving
from .job import Job
from .plan import Prepared, Row, read_rows
from .streams import Batch, Streams, Timings, Workers

_PIECE = 16
"""Rows that one thread reads at a time."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A shard whose batches are queued."""

    rows: Sequence[Row]
    """What it holds, (rows,)."""
    operations: Sequence[str]
    """Augmentations used, (rows,)."""
    batches: Sequence[Batch]
    encoder: Encoder
    """Names the pools."""


def assemble(queued: Queued, timings: Timings) -> Shard:
    """Waits for the batches of a shard and puts their rows back in order.

    Args:
        queued: The shard.
        timings: The seconds that streams spent on it are added here.

    Raises:
        DeviceError: The device is out of memory, or features overflow float16.
    """
    # Put together by NumPy: torch would share the copying out among threads, which then wait for
    # each other in a loop that keeps the cores from the streams, at times for seconds.
    rows = queued.rows
    tokens: list[NDArray[Any]] = [np.empty(0)] * len(rows)
    pooled, shared = list(tokens), list(tokens)
    for batch in queued.batches:
        parts, seconds = batch.task.result()
        timings.encode += seconds
        place = iter(batch.places)
        for part in parts:
            for i, sequence in enumerate(part.tokens.split(part.lengths)):
                row = next(place)
                tokens[row], pooled[row] = sequence.numpy(), part.pooled[i].numpy()
                if part.shared is not None:
                    shared[row] = part.shared[i].numpy()
    shard = Shard(
        [row.sample.guid for row in rows],
        np.array([row.variant for row in rows], np.int32),
        list(queued.operations),
        np.cumsum([0, *map(len, tokens)], dtype=np.int64),
        np.concatenate(tokens),
        np.stack(pooled),
        queued.encoder.pools,
        np.stack(shared) if shared[0].size else None,
    )
    for values in (shard.tokens, shard.pooled, shard.shared):
        if values is not None and not _finite(values):
            raise DeviceError(
                f"The features of {queued.encoder.label} are not finite in float16.",
                "Set compute = 'float32' in [extract]; if it is, this model's features are too "
                "large to be stored.",
            )
    return shard


def _finite(values: NDArray[np.float16]) -> bool:
    """Infinities and NaN have all exponent bits set; four times as quick as ``np.isfinite``."""
    return not values.size or int((values.view(np.uint16) & 0x7C00).max()) < 0x7C00


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows of one shard."""

    job: Job
    model: Halving
    rows: Sequence[Row]


def encoded_shards(
    pieces: Sequence[ShardRows],
    device: torch.device,
    workers: Workers,
    shard_rows: int,
    batch_size: int,
    timings: Timings,
) -> Generator[Shard]:
    """Shards in order; while one is taken, the rows of the next are read and encoded.

    Raises:
        DataError: As `extract` says, once what comes before the unreadable row is taken.
        DeviceError: As `assemble` says.
    """
    # So many shards are worked on that no stream waits while the last batches of one are run.
    ahead = 1 + -(-workers.streams * batch_size // shard_rows)
    pool = ThreadPoolExecutor(workers.readers, "read", torch.set_num_threads, (1,))
    streams = Streams(device, workers.streams)
    encoding: deque[Queued] = deque()

    def read(piece: ShardRows) -> tuple[ShardRows, list[Future[Prepared]]]:
        job, rows = piece.job, piece.rows
        parts = [rows[i : i + _PIECE] for i in range(0, len(rows), _PIECE)]
        return piece, [pool.submit(read_rows, part, job.reader, job.encoder) for part in parts]

    problems: list[str] = []
    coming = map(read, pieces)  # reading a shard starts as it is taken
    # On the CPU readers take their time from the streams: to read further ahead gains nothing.
    reading = deque(itertools.islice(coming, 0 if device.type == "cpu" else 1))
    try:
        for _ in pieces:
            while len(encoding) < ahead and not problems:
                reading.extend(itertools.islice(coming, 1))
                if not reading:
                    break
                piece, tasks = reading.popleft()
                ready, batches = _submit(tasks, streams, piece.model, batch_size)
                timings.read += ready.seconds
                problems = ready.problems
                if not problems:
                    job = piece.job
                    encoding.append(Queued(piece.rows, ready.operations, batches, job.encoder))
            if not encoding:  # what comes before the unreadable row is sealed first
                # Of the rest only the problems are of interest: inputs of all rows are too large.
                for _, tasks in itertools.chain(reading, coming):
                    while tasks:
                        problems += tasks.pop(0).result().problems
                raise _unreadable(problems)
            yield assemble(encoding.popleft(), timings)
    finally:
        pool.shutdown(cancel_futures=True)
        streams.close()


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
        "Mend the files or take their rows out of the label file, then run it again; or set the "
        "rows aside: --on-bad skip.",
        unique,
    )
