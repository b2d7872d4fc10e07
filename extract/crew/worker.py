"""What a worker does with a piece, whatever started it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from extract.encoders.protocol import Encoder
from extract.engine import extract
from extract.plan import EncodingJob, Reader, RowPlan
from extract.streams import HalvingEncoder, ThreadCounts, rows_a_batch
from mmsa_cache.errors import DataError, MmsaError
from mmsa_cache.key_table import KeyTable
from mmsa_cache.native.device import is_device_lost
from mmsa_cache.store.index import ShardEntry
from mmsa_cache.store.keys import KEY_BYTES, Keys
from mmsa_cache.store.schema import Shard

from .pieces import Piece
from .protocol import EncoderLoader, PieceReply, Refused, Sealed, Sealer

LOST_DEVICE = 75
"""Exit code of a process whose device can do nothing more."""
_PAUSE = 1.0
"""Seconds before a worker that cannot load its encoder says so: others take the pieces."""


class CrewWorker:
    """Encodes pieces and seals them; an encoder is loaded for the first piece that needs it.

    Args:
        source: Where encoders come from.
        sealers: Where the shards of each job go.
        device: Where models run.
        cores: Threads that read, and on the CPU that compute.
        batch_size: Rows a forward pass; None: what suits the device.
    """

    def __init__(
        self,
        source: EncoderLoader,
        sealers: Sequence[Sealer],
        device: torch.device,
        cores: int,
        batch_size: int | None,
    ) -> None:
        self.name = f"{platform.node()}:{os.getpid()}"
        self._source, self._sealers, self._device = source, sealers, device
        self._threads = ThreadCounts.plan(device, cores)
        self._batch_size = rows_a_batch(batch_size, device)
        self._loaded: dict[int, tuple[Encoder, Reader]] = {}
        self._models: dict[int, HalvingEncoder] = {}

    def run(self, piece: Piece) -> PieceReply:
        """Does a piece; says why where it cannot. Ends the process when the device is lost."""
        try:
            loaded = self._load(piece.job)
        except Exception as error:
            if is_device_lost(error):
                os._exit(LOST_DEVICE)
            time.sleep(_PAUSE)
            return Refused(piece.number, self._reason(error))
        to = _Entries(self._sealers[piece.job])
        started = time.perf_counter()
        try:
            rows, problems = self._encode(piece, loaded, to)
        except Exception as error:
            if is_device_lost(error):
                os._exit(LOST_DEVICE)
            return Refused(piece.number, self._reason(error), entries=tuple(to.entries))
        seconds = time.perf_counter() - started
        entries = tuple(to.entries)
        if problems:
            reason = f"{len(problems)} sample(s) cannot be read"
            return Refused(piece.number, reason, tuple(problems), False, entries)
        return Sealed(piece.number, entries, rows, seconds, self.name)

    def _load(self, job: int) -> tuple[Encoder, Reader]:
        if job not in self._loaded:
            self._loaded[job] = self._source.load(job, self._device)
        return self._loaded[job]

    def _encode(
        self, piece: Piece, loaded: tuple[Encoder, Reader], to: _Entries
    ) -> tuple[int, list[str]]:
        """Encodes what can be read; the rows that were, and what is wrong with the others."""
        rows, ends = RowPlan.of_rows(piece.rows), np.cumsum(piece.windows)
        windows = np.split(np.arange(ends[-1]), ends[:-1])
        encoder, reader = loaded

        def encode(some: Sequence[NDArray[np.int64]]) -> int:
            job = _PieceJob(rows=rows, writer=to, windows=some, reader=reader, encoder=encoder)
            extract(
                [job],
                self._device,
                shard_rows=max(piece.windows),
                batch_size=self._batch_size,
                threads=self._threads,
                models=self._models,
            )
            return job.computed

        try:
            return encode(windows), []
        except DataError:
            done, problems = to.rows, []
        for window in windows:  # one bad row stops those after it; here its window alone
            try:
                done += encode([window])
            except DataError as error:
                problems += error.problems or [error.message]
        return done, problems

    def _reason(self, error: Exception) -> str:
        said = error.message if isinstance(error, MmsaError) else f"{type(error).__name__}: {error}"
        return f"{self.name}: {said}"


class _Entries:
    """Seals what is published, and remembers it."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._keys = KeyTable(KEY_BYTES)
        self.entries: list[ShardEntry] = []

    @property
    def rows(self) -> int:
        return self._keys.count

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        return self._keys.find(keys) >= 0

    def publish(self, *shards: Shard) -> int:
        entry = self._sealer.seal(shards)
        self.entries.append(entry)
        for shard in shards:
            self._keys.add(shard.keys)
        return entry.rows


@dataclass(slots=True, kw_only=True)
class _PieceJob(EncodingJob):
    """Rows whose windows are given."""

    windows: Sequence[NDArray[np.int64]] = field(default_factory=list)

    def missing(self, shard_rows: int, planned: KeyTable) -> list[NDArray[np.int64]]:
        return list(self.windows)
