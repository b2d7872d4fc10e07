"""Encoded batches put together: the shard of a window."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extract.encoders.protocol import Encoder
from mmsa_cache.errors import DataError
from mmsa_cache.store.keys import as_keys
from mmsa_cache.store.schema import Shard

from .overflow import check_finite
from .plan import PreparedRows, Reader, Row, read_rows
from .reading.reading import ReadingPool
from .streams import HalvingEncoder, QueuedBatch, Streams, ThreadCounts, Timings

_SAMPLE = 256
"""Rows whose lengths give the estimate of a ragged cache's size."""


@dataclass(frozen=True, slots=True)
class QueuedWindow:
    """A window whose batches are queued."""

    rows: Sequence[Row]
    """Its missing rows, (rows,)."""
    operations: Sequence[str]
    """Augmentations used, (rows,)."""
    batches: Sequence[QueuedBatch]
    encoder: Encoder
    """Names the pools."""


def assemble(queued: QueuedWindow, timings: Timings) -> Shard:
    """Waits for the batches of a window and puts their rows back in order.

    Args:
        queued: The window.
        timings: The seconds that streams spent on it are added here.

    Raises:
        DeviceError: The device is out of memory, or features are not finite (`check_finite`).
    """
    # Put together by NumPy: torch would share the copying out among threads, which then wait for
    # each other in a loop that keeps the cores from the streams, at times for seconds.
    rows = queued.rows
    tokens: list[NDArray[Any]] = [np.empty(0)] * len(rows)
    pooled, shared = list(tokens), list(tokens)
    for batch in queued.batches:
        parts, seconds = batch.task.result()
        timings.encode += seconds
        done = 0
        for part in parts:
            places = batch.places[done : done + len(part.lengths)]
            done += len(places)
            check_finite(part, [rows[row].sample.guid for row in places], queued.encoder)
            for i, (row, sequence) in enumerate(
                zip(places, part.tokens.split(part.lengths), strict=True)
            ):
                tokens[row], pooled[row] = sequence.numpy(), part.pooled[i].numpy()
                if part.shared is not None:
                    shared[row] = part.shared[i].numpy()
    return Shard(
        as_keys(row.key for row in rows),
        list(queued.operations),
        np.cumsum([0, *map(len, tokens)], dtype=np.int64),
        np.concatenate(tokens),
        np.stack(pooled),
        queued.encoder.pools,
        np.stack(shared) if shared[0].size else None,
    )


def encode_rows(
    rows: Sequence[Row], reader: Reader, encoder: Encoder, device: torch.device, batch_size: int
) -> Shard:
    """Encodes rows at once, without a cache.

    Raises:
        DataError: Rows could not be read; every one is named.
        DeviceError: As `assemble` says.
    """
    workers, ready = ThreadCounts.plan(device), PreparedRows()
    with contextlib.closing(ReadingPool(workers.readers, processes=False)) as reading:
        for task in reading.submit(rows, reader, encoder):
            ready.add(task.result())
    if ready.problems:
        raise DataError(f"{len(ready.problems)} sample(s) cannot be read.", "", ready.problems)
    streams = Streams(device, workers.streams)
    try:
        batches = streams.submit(HalvingEncoder(encoder), ready.inputs, batch_size)
        return assemble(QueuedWindow(rows, ready.operations, batches, encoder), Timings())
    finally:
        streams.close()


def estimate_bytes(rows: Sequence[Row], reader: Reader, encoder: Encoder) -> float:
    """Bytes a row will take in the cache, from an even sample of them."""
    count = _SAMPLE if encoder.size.ragged else 0
    sample = rows[:: max(1, len(rows) // count)] if count else []
    return encoder.size.bytes(read_rows(sample, reader, encoder).inputs)
