"""Rows encoded at once, without a cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from extract.encoders.protocol import Encoder
from mmsa_cache.errors import DataError
from mmsa_cache.store.schema import Shard

from .halving import Halving
from .plan import Reader, Row, read_rows
from .shards import Queued, assemble
from .streams import Streams, Timings, Workers

_SAMPLE = 256
"""Rows whose lengths give the estimate of a ragged cache's size."""


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
