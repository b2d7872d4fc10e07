"""The extraction loop: rows in, sealed shards out. It holds no model code.

The rows of the next shard are read and prepared in a thread while the model runs on this one's.
Batches never cross shards and are ordered by length inside one, so a shard's bytes depend on its
rows alone: a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mmsa_cache.dataset import Sample
from mmsa_cache.errors import DataError, DeviceError
from mmsa_cache.schema import FEATURE_DTYPE, Shard
from mmsa_cache.store import CacheWriter


@dataclass(frozen=True, slots=True)
class Row:
    """One (sample, variant); variant 0 is the original."""

    sample: Sample
    variant: int


class Encoder(Protocol):
    """What the loop needs of an encoder."""

    @property
    def pools(self) -> tuple[str, ...]: ...

    def encode(self, batch: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]: ...


# Row → the encoder's input and the augmentation used ("" for an original).
Reader = Callable[[Row], tuple[Tensor, str]]


@dataclass(slots=True)
class Timings:
    """Seconds spent by the loop."""

    read: float = 0.0
    """Waiting for input that was not ready yet."""
    encode: float = 0.0
    write: float = 0.0


@dataclass(slots=True)
class _Prepared:
    inputs: list[Tensor] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


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


def encode_rows(
    rows: Sequence[Row],
    inputs: Sequence[Tensor],
    operations: Sequence[str],
    encoder: Encoder,
    batch_size: int,
) -> Shard:
    """Runs the encoder over prepared rows.

    Args:
        rows: What the inputs are, (rows,).
        inputs: The encoder's inputs, (rows,).
        operations: Augmentations used, (rows,).
        encoder: The frozen model.
        batch_size: Rows a forward pass.

    Returns:
        The features in the order of ``rows``, float16.

    Raises:
        DeviceError: The device is out of memory, or features overflow float16.
    """
    order = sorted(range(len(rows)), key=lambda i: (inputs[i].shape[0], i))
    tokens: list[np.ndarray | None] = [None] * len(rows)
    pooled: list[np.ndarray | None] = [None] * len(rows)
    for first in range(0, len(order), batch_size):
        places = order[first : first + batch_size]
        try:
            sequences, vectors = encoder.encode([inputs[i] for i in places])
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"The device has no memory for {len(places)} rows at once.",
                "Lower batch_size in [extract], or --device cpu.",
            ) from error
        for place, sequence, vector in zip(places, sequences, vectors, strict=True):
            tokens[place] = sequence.numpy().astype(FEATURE_DTYPE)
            pooled[place] = vector.numpy().astype(FEATURE_DTYPE)
    filled_tokens = [item for item in tokens if item is not None]
    filled_pooled = [item for item in pooled if item is not None]
    if not all(np.isfinite(item).all() for item in filled_tokens):
        raise DeviceError("The encoder's features are not finite in float16.")
    lengths = [len(item) for item in filled_tokens]
    return Shard(
        [row.sample.guid for row in rows],
        np.array([row.variant for row in rows], np.int32),
        list(operations),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(filled_tokens),
        np.stack(filled_pooled),
        encoder.pools,
    )


def extract(
    rows: Sequence[Row],
    reader: Reader,
    encoder: Encoder,
    writer: CacheWriter,
    *,
    shard_rows: int,
    batch_size: int,
    advance: Callable[[int], None],
) -> Timings:
    """Writes the shards that are missing; the writer's lock must be held.

    Args:
        rows: All rows of the cache, in order.
        reader: Makes the encoder's input of one row.
        encoder: The frozen model.
        writer: Where shards go.
        shard_rows: Rows a shard.
        batch_size: Rows a forward pass.
        advance: Called with the number of rows just sealed.

    Raises:
        DataError: Rows could not be read; every unreadable one of the rest is named.
    """
    shards = [rows[i : i + shard_rows] for i in range(0, len(rows), shard_rows)]
    todo = shards[writer.done :]
    timings = Timings()
    with ThreadPoolExecutor(1, "prepare") as pool:
        ahead = pool.submit(_prepare, todo[0], reader) if todo else None
        for number, chunk in enumerate(todo):
            assert ahead is not None
            started = time.perf_counter()
            ready = ahead.result()
            if ready.problems:
                for later in todo[number + 1 :]:
                    ready.problems += _prepare(later, reader).problems
                unique = list(dict.fromkeys(ready.problems))
                raise DataError(
                    f"{len(unique)} sample(s) cannot be read; what was sealed before stays.",
                    "Mend the files or take their rows out of the label file, then run it again.",
                    unique,
                )
            if number + 1 < len(todo):
                ahead = pool.submit(_prepare, todo[number + 1], reader)
            timings.read += time.perf_counter() - started
            started = time.perf_counter()
            shard = encode_rows(chunk, ready.inputs, ready.operations, encoder, batch_size)
            timings.encode += time.perf_counter() - started
            started = time.perf_counter()
            writer.publish(shard)
            timings.write += time.perf_counter() - started
            advance(len(chunk))
    writer.finish()
    return timings


def _prepare(rows: Sequence[Row], reader: Reader) -> _Prepared:
    result = _Prepared()
    for row in rows:
        try:
            value, operation = reader(row)
        except DataError as error:
            result.problems.append(error.message)
            continue
        result.inputs.append(value)
        result.operations.append(operation)
    return result
