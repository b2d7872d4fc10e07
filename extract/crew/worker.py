"""Encodes and seals pieces; local processes and Ray actors run it."""

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
"""Exit code of a process whose device is lost."""
_PAUSE = 1.0
"""Seconds before a worker that cannot load its encoder says so: others take the pieces."""


class CrewWorker:
    """Encodes pieces and seals them; an encoder is loaded for the first piece that needs it.

    Args:
        loader: Loads the encoder of each job.
        sealers: Of each job.
        device: Where models run.
        cores: Threads that read, and on the CPU that compute.
        batch_size: Rows a forward pass; None: what suits the device.
    """

    def __init__(
        self,
        loader: EncoderLoader,
        sealers: Sequence[Sealer],
        device: torch.device,
        cores: int,
        batch_size: int | None,
    ) -> None:
        self.name = f"{platform.node()}:{os.getpid()}"
        self._loader, self._sealers, self._device = loader, sealers, device
        self._threads = ThreadCounts.plan(device, cores)
        self._batch_size = rows_a_batch(batch_size, device)
        self._loaded: dict[int, tuple[Encoder, Reader]] = {}
        self._models: dict[int, HalvingEncoder] = {}

    def run(self, piece: Piece) -> PieceReply:
        """Encodes and seals a piece, or says why not; ends the process if the device is lost."""
        try:
            encoder, reader = self._load(piece.job)
        except Exception as error:
            _exit_if_device_lost(error)
            time.sleep(_PAUSE)
            return Refused(piece.number, self._reason(error))
        writer = _PieceWriter(self._sealers[piece.job])
        started = time.perf_counter()
        try:
            problems = self._encode(piece, encoder, reader, writer)
        except Exception as error:
            _exit_if_device_lost(error)
            return Refused(piece.number, self._reason(error), entries=tuple(writer.entries))
        seconds = time.perf_counter() - started
        entries = tuple(writer.entries)
        if problems:
            reason = f"{len(problems)} sample(s) cannot be read"
            return Refused(piece.number, reason, tuple(problems), False, entries)
        return Sealed(piece.number, entries, len(piece.rows), seconds, self.name)

    def _load(self, job: int) -> tuple[Encoder, Reader]:
        if job not in self._loaded:
            self._loaded[job] = self._loader.load(job, self._device)
        return self._loaded[job]

    def _encode(
        self, piece: Piece, encoder: Encoder, reader: Reader, writer: _PieceWriter
    ) -> list[str]:
        """Encodes the rows that can be read; returns the problems of the others."""
        rows, ends = RowPlan.of_rows(piece.rows), np.cumsum(piece.windows)
        windows = np.split(np.arange(ends[-1]), ends[:-1])

        def encode(some: Sequence[NDArray[np.int64]]) -> None:
            extract(
                [_PieceJob(rows, writer, windows=some, reader=reader, encoder=encoder)],
                self._device,
                shard_rows=max(piece.windows),
                batch_size=self._batch_size,
                threads=self._threads,
                models=self._models,
            )

        try:
            encode(windows)
            return []
        except DataError:
            problems = []
        for window in windows:  # an unreadable row stops the windows after it, but not these
            try:
                encode([window])
            except DataError as error:
                problems += error.problems or [error.message]
        return problems

    def _reason(self, error: Exception) -> str:
        text = error.message if isinstance(error, MmsaError) else f"{type(error).__name__}: {error}"
        return f"{self.name}: {text}"


def _exit_if_device_lost(error: Exception) -> None:
    if is_device_lost(error):
        os._exit(LOST_DEVICE)


class _PieceWriter:
    """Seals the rows of one piece, and keeps the entries of its shards."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._keys = KeyTable(KEY_BYTES)
        self.entries: list[ShardEntry] = []

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
