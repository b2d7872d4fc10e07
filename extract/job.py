"""A cache that is to be written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from extract.encoders.protocol import Encoder
from mmsa_cache.store.writer import CacheWriter

from .plan import Reader, Row


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
