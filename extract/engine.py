"""The extraction loop: rows in, sealed shards out. It holds no model code.

Three things go on at once: threads read and prepare the rows of the coming shards, streams run the
model on the batches of the present one, and the caller's thread seals the one that is ready.
Batches never cross shards and are ordered by length inside one, and on the CPU a stream computes
with one thread, so a shard's bytes depend on its rows alone: neither the number of cores nor an
interruption changes them.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsa_cache.dataset import Sample
from mmsa_cache.errors import DataError, DeviceError
from mmsa_cache.schema import FEATURE_DTYPE, Shard
from mmsa_cache.store import CacheWriter

from .encoder import Encoded, Encoder, Memory

_PIECE = 16
"""Rows that one thread reads at a time."""
_GPU_STREAMS = 2
"""One stream's results are fetched while the other one's kernels run."""
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
    values = []
    for row in rows:
        try:
            value, operation = reader(row)
        except DataError as error:
            result.problems.append(error.message)
            continue
        values.append(value)
        result.operations.append(operation)
    if values:
        result.inputs = encoder.prepare(values)
    result.seconds = time.perf_counter() - started
    return result


class Streams:
    """Threads that run the model on batches.

    Args:
        encoder: The frozen model.
        device: Where it runs.
        count: Number of threads.
    """

    def __init__(self, encoder: Encoder, device: torch.device, count: int) -> None:
        self._encoder = encoder
        self._memory = Memory()
        single = (torch.set_num_threads, (1,)) if device.type == "cpu" else (None, ())
        self._pool = ThreadPoolExecutor(count, "encode", *single)

    @property
    def halved(self) -> bool:
        """Whether the device had no memory for a batch, and half ones are run since."""
        return self._memory.halved

    def submit(self, inputs: Sequence[Tensor], batch_size: int, first: int = 0) -> list[Batch]:
        """Queues batches of one shard.

        Args:
            inputs: Of consecutive rows.
            batch_size: Rows a forward pass.
            first: Place of the first of these rows in the shard.
        """
        batches = []
        for places in plan_batches(inputs, batch_size):
            task = self._pool.submit(self._encode, [inputs[place] for place in places])
            batches.append(Batch([first + place for place in places], task))
        return batches

    def _encode(self, batch: list[Tensor]) -> tuple[list[Encoded], float]:
        started = time.perf_counter()
        try:
            return self._memory.run(self._encoder, batch), time.perf_counter() - started
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"The device has no memory for {(len(batch) + 1) // 2} rows at once.",
                "Lower batch_size in [extract], or --device cpu.",
            ) from error

    def close(self) -> None:
        """Waits for what runs; drops what is queued."""
        self._pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Batch:
    """A queued batch: the places of its rows, and what will come of them."""

    places: list[int]
    task: Future[tuple[list[Encoded], float]]


def assemble(
    rows: Sequence[Row], operations: Sequence[str], batches: Sequence[Batch], encoder: Encoder
) -> tuple[Shard, float]:
    """Waits for the batches of a shard and puts their rows back in order.

    Args:
        rows: What the shard holds, (rows,).
        operations: Augmentations used, (rows,).
        batches: As queued.
        encoder: Names the pools.

    Returns:
        The shard, and the seconds that streams spent on it.

    Raises:
        DeviceError: The device is out of memory, or features overflow float16.
    """
    tokens: list[Tensor] = [torch.empty(0)] * len(rows)
    pooled, shared = list(tokens), list(tokens)
    seconds = 0.0
    for batch in batches:
        parts, spent = batch.task.result()
        seconds += spent
        place = iter(batch.places)
        for part in parts:
            for i, sequence in enumerate(part.tokens.split(part.lengths)):
                row = next(place)
                tokens[row], pooled[row] = sequence, part.pooled[i]
                if part.shared is not None:
                    shared[row] = part.shared[i]
    shard = Shard(
        [row.sample.guid for row in rows],
        np.array([row.variant for row in rows], np.int32),
        list(operations),
        np.cumsum([0, *map(len, tokens)], dtype=np.int64),
        _stored(torch.cat(tokens)),
        _stored(torch.stack(pooled)),
        encoder.pools,
        _stored(torch.stack(shared)) if shared[0].numel() else None,
    )
    for values in (shard.tokens, shard.pooled, shard.shared):
        if values is not None and not np.isfinite(values).all():
            raise DeviceError(
                f"The features of {encoder.label} are not finite in float16.",
                "Set compute = 'float32' in [extract]; if it is, this model's features are too "
                "large to be stored.",
            )
    return shard, seconds


def _stored(value: Tensor) -> Any:
    return value.numpy().astype(FEATURE_DTYPE, copy=False)


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
    streams = Streams(encoder, device, Workers.plan(device).streams)
    try:
        batches = streams.submit(ready.inputs, batch_size)
        return assemble(rows, ready.operations, batches, encoder)[0]
    finally:
        streams.close()


def estimate_bytes(rows: Sequence[Row], reader: Reader, encoder: Encoder) -> float:
    """Bytes a row will take in the cache, from an even sample of them."""
    count = _SAMPLE if encoder.size.ragged else 0
    sample = rows[:: max(1, len(rows) // count)] if count else []
    return encoder.size.bytes(read_rows(sample, reader, encoder).inputs)


def extract(
    rows: Sequence[Row],
    reader: Reader,
    encoder: Encoder,
    device: torch.device,
    writer: CacheWriter,
    *,
    shard_rows: int,
    batch_size: int,
    advance: Callable[[int], None],
    workers: Workers | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> Timings:
    """Writes the shards that are missing; the writer's lock must be held.

    Args:
        rows: All rows of the cache, in order.
        reader: Reads one row.
        encoder: The frozen model.
        device: Where it runs.
        writer: Where shards go.
        shard_rows: Rows a shard.
        batch_size: Rows a forward pass.
        advance: Called with the number of rows just sealed.
        workers: Threads; default: what suits the device.
        notice: Called once if the batches had to be halved.

    Raises:
        DataError: Rows could not be read; every unreadable one of the rest is named.
        DeviceError: As `assemble` says.
    """
    workers = workers or Workers.plan(device)
    chunks = [rows[i : i + shard_rows] for i in range(0, len(rows), shard_rows)][writer.done :]
    # So many shards are worked on that no stream waits while the last batches of one are run.
    ahead = 1 + -(-workers.streams * batch_size // shard_rows)
    timings = Timings()
    told = False
    pool = ThreadPoolExecutor(workers.readers, "read", torch.set_num_threads, (1,))
    streams = Streams(encoder, device, workers.streams)
    reading: deque[list[Future[Prepared]]] = deque()
    encoding: deque[tuple[list[str], list[Batch]]] = deque()

    def read_ahead(chunk: Sequence[Row]) -> list[Future[Prepared]]:
        pieces = [chunk[i : i + _PIECE] for i in range(0, len(chunk), _PIECE)]
        return [pool.submit(read_rows, piece, reader, encoder) for piece in pieces]

    problems: list[str] = []
    try:
        coming = iter(chunks)
        for chunk in chunks:
            while len(encoding) < ahead and not problems:
                while len(reading) <= ahead and (following := next(coming, None)) is not None:
                    reading.append(read_ahead(following))
                if not reading:
                    break
                ready, batches = _submit(reading.popleft(), streams, encoder, batch_size)
                timings.read += ready.seconds
                problems = ready.problems
                if not problems:
                    encoding.append((ready.operations, batches))
            if not encoding:  # what comes before the unreadable row is sealed first
                waiting = [*reading, *(read_ahead(rest) for rest in coming)]
                for task in itertools.chain.from_iterable(waiting):
                    problems += task.result().problems
                raise _unreadable(problems)
            operations, batches = encoding.popleft()
            shard, seconds = assemble(chunk, operations, batches, encoder)
            timings.encode += seconds
            if streams.halved and not told:
                told = True
                notice(f"No memory for {batch_size} rows at once: half as many are run.")
            started = time.perf_counter()
            writer.publish(shard)
            timings.write += time.perf_counter() - started
            advance(len(chunk))
    finally:
        pool.shutdown(cancel_futures=True)
        streams.close()
    writer.finish()
    return timings


def _submit(
    pieces: Sequence[Future[Prepared]], streams: Streams, encoder: Encoder, batch_size: int
) -> tuple[Prepared, list[Batch]]:
    """Waits for the rows of a shard and queues their batches.

    Where inputs are equally long a batch is queued as soon as its rows are read, which cuts the
    idle time before the first one; else all must be there to be ordered by length.
    """
    whole, batches, sent = Prepared(), [], 0
    for task in pieces:
        piece = task.result()
        whole.inputs += piece.inputs
        whole.operations += piece.operations
        whole.problems += piece.problems
        whole.seconds += piece.seconds
        while (
            encoder.equal_inputs and not whole.problems and len(whole.inputs) >= sent + batch_size
        ):
            part = whole.inputs[sent : sent + batch_size]
            batches += streams.submit(part, batch_size, sent)
            sent += batch_size
    if not whole.problems:
        batches += streams.submit(whole.inputs[sent:], batch_size, sent)
    return whole, batches


def _unreadable(problems: Sequence[str]) -> DataError:
    unique = list(dict.fromkeys(problems))
    return DataError(
        f"{len(unique)} sample(s) cannot be read; what was sealed before stays.",
        "Mend the files or take their rows out of the label file, then run it again.",
        unique,
    )
