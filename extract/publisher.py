"""Sealing of encoded windows, several at once where they come quickly."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import MERGED_BYTES

from .plan import RowWriter
from .streams import Timings

GATHERED_BYTES = MERGED_BYTES // 2
"""Shards of that size are not merged: a GPU writes as much in some seconds, and to read and write
it all again takes longer than to encode it where one process does so for many."""
GATHERED_SECONDS = 20.0
"""What a kill may lose at most, beside the windows that are being encoded."""


class Publisher:
    """Takes windows and seals them; what was taken is sealed whatever ends the work.

    Args:
        writer: Where they go.
        timings: The seconds that it takes are added here.
        beside: Whether a thread seals them while the caller goes on.
    """

    def __init__(self, writer: RowWriter, timings: Timings, beside: bool = False) -> None:
        self._writer = writer
        self._timings = timings
        self._thread = ThreadPoolExecutor(1, "seal") if beside else None
        self._sealing: Future[None] | None = None
        self._taken: list[Shard] = []
        self._since = time.monotonic()

    def add(self, window: Shard | None) -> int:
        """Takes a window; seals all that were taken if they are many, or it has been long.

        Args:
            window: None where nothing of it was missing any more.

        Returns:
            Its rows.

        Raises:
            DiskError: They were not sealed.
            CacheError: What another writer added cannot be read.
        """
        if window is None:
            return 0
        self._taken.append(window)
        size = sum(shard.nbytes for shard in self._taken)
        if size >= GATHERED_BYTES or time.monotonic() - self._since >= GATHERED_SECONDS:
            self.publish()
        return len(window)

    def publish(self) -> None:
        """Seals what was taken; beside the caller, who is told later on how that went."""
        self._wait()  # an interrupt meanwhile loses nothing
        taken, self._taken = self._taken, []  # not tried again
        self._since = time.monotonic()
        if self._thread is None:
            self._seal(taken)
        else:
            self._sealing = self._thread.submit(self._seal, taken)

    def _seal(self, taken: list[Shard]) -> None:
        started = time.perf_counter()
        if taken:
            self._writer.publish(*taken)
        self._timings.write += time.perf_counter() - started

    def _wait(self) -> None:
        """For what is being sealed; raises as that did."""
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.publish()
            self._wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
