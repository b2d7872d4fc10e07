"""Sealing of encoded windows, several at once if they come quickly."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import MERGED_BYTES

from .plan import RowWriter
from .streams import Timings

GATHERED_BYTES = MERGED_BYTES // 2
"""Shards of this size are not merged: a GPU fills one in seconds, and to read and write it again
takes longer than to encode it where one process merges for many."""
GATHERED_SECONDS = 20.0
"""What a kill may lose at most, beside the windows that are being encoded."""


class Publisher:
    """Collects windows and seals them; `close` seals the rest, and is called after errors too.

    Args:
        writer: Takes the shards.
        timings: The seconds of sealing are added here.
        beside: Whether a thread seals while the caller goes on.
    """

    def __init__(self, writer: RowWriter, timings: Timings, beside: bool = False) -> None:
        self._writer = writer
        self._timings = timings
        self._thread = ThreadPoolExecutor(1, "seal") if beside else None
        self._sealing: Future[None] | None = None
        self._pending: list[Shard] = []
        self._since = time.monotonic()

    def add(self, window: Shard | None) -> int:
        """Adds a window; seals all pending ones if they are many, or if it has been long.

        Args:
            window: None if none of its rows was missing any more.

        Returns:
            Its rows.

        Raises:
            DiskError: They were not sealed.
            CacheError: What another writer added cannot be read.
        """
        if window is None:
            return 0
        self._pending.append(window)
        size = sum(shard.nbytes for shard in self._pending)
        if size >= GATHERED_BYTES or time.monotonic() - self._since >= GATHERED_SECONDS:
            self.publish()
        return len(window)

    def publish(self) -> None:
        """Seals pending windows; if a thread does, its errors are raised by a later call."""
        self._wait()  # an interrupt meanwhile loses nothing
        pending, self._pending = self._pending, []  # not tried again
        self._since = time.monotonic()
        if self._thread is None:
            self._seal(pending)
        else:
            self._sealing = self._thread.submit(self._seal, pending)

    def _seal(self, windows: list[Shard]) -> None:
        started = time.perf_counter()
        if windows:
            self._writer.publish(*windows)
        self._timings.write += time.perf_counter() - started

    def _wait(self) -> None:
        """Waits for the thread; raises its error."""
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()

    def close(self) -> None:
        """Seals pending windows and waits for it."""
        try:
            self.publish()
            self._wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
