"""Assembles the encoded batches of a window to a shard."""

from __future__ import annotations

import contextlib
import itertools
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
"""Rows from whose lengths the size of a ragged cache is estimated."""


@dataclass(frozen=True, slots=True)
class QueuedWindow:
    """A window whose batches are queued."""

    rows: Sequence[Row]
    """Its missing rows, (rows,)."""
    operations: Sequence[str]
    """Augmentations used, (rows,)."""
    batches: Sequence[QueuedBatch]
    encoder: Encoder
    """For the names of the pools."""


def assemble(queued: QueuedWindow, timings: Timings) -> Shard:
    """Waits for the batches of a window and puts their rows back in order.

    Args:
        queued: The window.
        timings: The seconds that streams spent on it are added here.

    Raises:
        DeviceError: The device is out of memory, or features are not finite (`check_finite`).
    """
    # NumPy assembles: torch would copy with several threads, which then wait for each other in a
    # loop that keeps the cores from the streams, at times for seconds.
    rows = queued.rows
    tokens: list[NDArray[Any]] = [np.empty(0)] * len(rows)
    pooled, shared = list(tokens), list(tokens)
    for batch in queued.batches:
        encoded, seconds = batch.future.result()
        timings.encode += seconds
        indices = iter(batch.rows)
        for part in encoded:
            own = list(itertools.islice(indices, len(part.lengths)))
            check_finite(part, [rows[index].sample.guid for index in own], queued.encoder)
            sequences = part.tokens.split(part.lengths)
            for i, index in enumerate(own):
                tokens[index], pooled[index] = sequences[i].numpy(), part.pooled[i].numpy()
                if part.shared is not None:
                    shared[index] = part.shared[i].numpy()
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
    """Encodes rows without a cache.

    Raises:
        DataError: Rows could not be read; every one is named.
        DeviceError: As `assemble` says.
    """
    threads, ready = ThreadCounts.plan(device), PreparedRows()
    with contextlib.closing(ReadingPool(threads.readers, processes=False)) as reading:
        for future in reading.submit(rows, reader, encoder):
            ready.add(future.result())
    if ready.problems:
        raise DataError(f"{len(ready.problems)} sample(s) cannot be read.", "", ready.problems)
    with contextlib.closing(Streams(device, threads.streams)) as streams:
        batches = streams.submit(HalvingEncoder(encoder), ready.inputs, batch_size)
        return assemble(QueuedWindow(rows, ready.operations, batches, encoder), Timings())


def estimate_bytes(rows: Sequence[Row], reader: Reader, encoder: Encoder) -> float:
    """Estimated bytes a row in the cache, from evenly spaced rows."""
    count = _SAMPLE if encoder.size.ragged else 0
    sample = rows[:: max(1, len(rows) // count)] if count else []
    return encoder.size.bytes(read_rows(sample, reader, encoder).inputs)
