"""The extraction loop: rows in, sealed shards out. It holds no model code.

Three things go on at once: threads read and prepare the rows of the coming shards, streams run the
model on the batches of the present one, and the caller's thread seals the one that is ready.
Batches never cross shards and are ordered by length inside one, and on the CPU a stream computes
with one thread, so a shard's bytes depend on its rows alone: neither the number of cores nor an
interruption changes them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.encoders.encoder import Encoded, Encoder, Halving
from mmsa_cache.data.dataset import Sample
from mmsa_cache.errors import DataError, DeviceError
from mmsa_cache.native.memory import reused, trim
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.store import CacheWriter

_PIECE = 16
"""Rows that one thread reads at a time."""
_GPU_STREAMS = 2
"""One stream's results are fetched while the other one's kernels run."""
_TRIM_EVERY = 8
"""Shards. What batches and pictures of all sizes leave behind adds up; but of memory that is given
back, the part that is needed again has to be cleared again."""
_MAX_THREADS = 32
_SAMPLE = 256
"""Rows whose lengths give the estimate of a ragged cache's size."""


@dataclass(frozen=True, slots=True)
class Row:
    """One (sample, variant); variant 0 is the original."""

    sample: Sample
    variant: int


# Row → the text or picture and the augmentation used ("" for an original).
Reader = Callable[[Row], tuple[Any, str]]


@dataclass(frozen=True, slots=True)
class Workers:
    """How a machine's cores are shared out."""

    readers: int
    """Threads that read, decode and prepare."""
    streams: int
    """Threads that run the model; on the CPU each computes with one core."""

    @classmethod
    def plan(cls, device: torch.device) -> Workers:
        """A thread a core for both: on the CPU readers are mostly ahead and asleep."""
        cores = min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        if device.type == "cpu":
            return cls(cores, cores)
        return cls(cores, _GPU_STREAMS)


@dataclass(slots=True)
class Timings:
    """Seconds that threads were busy, added up over all of them."""

    read: float = 0.0
    encode: float = 0.0
    write: float = 0.0


@dataclass(slots=True)
class Prepared:
    """Rows that are ready for the model."""

    inputs: list[Tensor] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def plan_rows(samples: Sequence[Sample], copies: dict[int, int]) -> list[Row]:
    """Lists all originals in order, then the copies sample by sample.

    Args:
        samples: The split.
        copies: Class code → augmented copies a sample; missing classes get none.
    """
    rows = [Row(sample, 0) for sample in samples]
    for sample in samples:
        count = copies.get(sample.label, 0) if sample.label is not None else 0
        rows += [Row(sample, variant) for variant in range(1, count + 1)]
    return rows


def plan_batches(inputs: Sequence[Tensor], batch_size: int) -> list[list[int]]:
    """Places of the inputs, batch by batch, ordered by length so that padding stays small."""
    order = sorted(range(len(inputs)), key=lambda place: (inputs[place].shape[0], place))
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def read_rows(rows: Sequence[Row], reader: Reader, encoder: Encoder) -> Prepared:
    """Reads rows and prepares them for the model; unreadable ones become problems."""
    started = time.perf_counter()
    result = Prepared()

    def values() -> Iterator[Any]:  # one by one: pictures are large until they are prepared
        for row in rows:
            try:
                value, operation = reader(row)
            except DataError as error:
                result.problems.append(error.message)
                continue
            result.operations.append(operation)
            yield value

    result.inputs = encoder.prepare(values())
    result.seconds = time.perf_counter() - started
    return result


class Streams:
    """Threads that run models on batches.

    Args:
        device: Where they run.
        count: Number of threads.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        single = (torch.set_num_threads, (1,)) if device.type == "cpu" else (None, ())
        self._pool = ThreadPoolExecutor(count, "encode", *single)

    def submit(
        self, model: Halving, inputs: Sequence[Tensor], batch_size: int, first: int = 0
    ) -> list[Batch]:
        """Queues batches of one shard.

        Args:
            model: The frozen model.
            inputs: Of consecutive rows.
            batch_size: Rows a forward pass.
            first: Place of the first of these rows in the shard.
        """
        batches = []
        for places in plan_batches(inputs, batch_size):
            task = self._pool.submit(_encode, model, [inputs[place] for place in places])
            batches.append(Batch([first + place for place in places], task))
        return batches

    def close(self) -> None:
        """Waits for what runs; drops what is queued."""
        self._pool.shutdown(cancel_futures=True)


def _encode(model: Halving, batch: list[Tensor]) -> tuple[list[Encoded], float]:
    started = time.perf_counter()
    try:
        return model.run(batch), time.perf_counter() - started
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"The device has no memory for {(len(batch) + 1) // 2} rows at once.",
            "Lower batch_size in [extract], or --device cpu.",
        ) from error


@dataclass(frozen=True, slots=True)
class Batch:
    """A queued batch: the places of its rows, and what will come of them."""

    places: list[int]
    task: Future[tuple[list[Encoded], float]]


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


def encode_rows(
    rows: Sequence[Row], reader: Reader, encoder: Encoder, device: torch.device, batch_size: int
) -> Shard:
    """Encodes rows at once, without a cache.

    Raises:
        DataError: Rows could not be read; every one is named.
        DeviceError: As `assemble` says.
    """
    ready = read_rows(rows, reader, encoder)
    if ready.problems:
        raise DataError(f"{len(ready.problems)} sample(s) cannot be read.", "", ready.problems)
    streams = Streams(device, Workers.plan(device).streams)
    try:
        batches = streams.submit(Halving(encoder), ready.inputs, batch_size)
        return assemble(Queued(rows, ready.operations, batches, encoder), Timings())
    finally:
        streams.close()


def estimate_bytes(rows: Sequence[Row], reader: Reader, encoder: Encoder) -> float:
    """Bytes a row will take in the cache, from an even sample of them."""
    count = _SAMPLE if encoder.size.ragged else 0
    sample = rows[:: max(1, len(rows) // count)] if count else []
    return encoder.size.bytes(read_rows(sample, reader, encoder).inputs)


@dataclass(slots=True)
class Job:
    """One cache that is to be written; its writer's lock must be held."""

    rows: Sequence[Row]
    """All rows of the cache, in order."""
    reader: Reader
    encoder: Encoder
    writer: CacheWriter
    watch: Callable[[], AbstractContextManager[Callable[[int], None]]] = lambda: nullcontext(
        lambda count: None
    )
    """Entered while this cache's shards are sealed; its value is called with rows just sealed."""
    notice: Callable[[str], None] = lambda text: None
    """Called once if the batches had to be halved."""

    def missing(self, shard_rows: int) -> list[Sequence[Row]]:
        """The rows of each shard that is not sealed."""
        rows = self.rows
        shards = [rows[i : i + shard_rows] for i in range(0, len(rows), shard_rows)]
        return shards[self.writer.done :]


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
        [_Piece(job, models[id(job.encoder)], rows) for rows in job.missing(shard_rows)]
        for job in jobs
    ]
    with (
        reused(),
        contextlib.closing(
            _shards(list(itertools.chain(*work)), device, workers, shard_rows, batch_size, timings)
        ) as shards,
    ):
        for job, pieces in zip(jobs, work, strict=True):
            trim()  # the encoder before had batches of other sizes
            told = False
            with job.watch() as advance:
                for piece in pieces:
                    shard = next(shards)
                    if piece.model.halved and not told:
                        told = True
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


@dataclass(frozen=True, slots=True)
class _Piece:
    """The rows of one shard."""

    job: Job
    model: Halving
    rows: Sequence[Row]


def _shards(
    pieces: Sequence[_Piece],
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

    def read(piece: _Piece) -> tuple[_Piece, list[Future[Prepared]]]:
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
