"""What is to be extracted: the rows of a cache, how they are read, and their batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from extract.encoders.protocol import Encoder
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import DataError
from mmsa_cache.store.writer import CacheWriter


@dataclass(frozen=True, slots=True)
class Row:
    """One (sample, variant); variant 0 is the original."""

    sample: Sample
    variant: int


# Row → the text or picture and the augmentation used ("" for an original).
Reader = Callable[[Row], tuple[Any, str]]


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


@dataclass(slots=True)
class Prepared:
    """Rows that are ready for the model."""

    inputs: list[Tensor] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


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
