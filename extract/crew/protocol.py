"""What the driver, its crews and the places for shards agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from extract.encoders.protocol import Encoder
from extract.plan import Reader
from mmsa_cache.store.index import ShardEntry
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.schema import Shard

from .pieces import Piece


@dataclass(frozen=True, slots=True)
class Sealed:
    """A piece that was done."""

    piece: int
    entries: tuple[ShardEntry, ...]
    """The shards that hold its rows."""
    rows: int
    """That were encoded."""
    seconds: float
    """Without the loading of the encoder."""
    worker: str
    """Machine and process, for people."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A piece that was not done, or not all of it."""

    piece: int
    reason: str
    problems: tuple[str, ...] = ()
    """Rows that cannot be read, a line each; all others of the piece are in `entries`."""
    again: bool = True
    """Whether another try may succeed; not where rows cannot be read."""
    entries: tuple[ShardEntry, ...] = ()
    """Shards that were sealed all the same."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker of a piece died."""

    piece: int
    reason: str
    by_node: bool = False
    """Whether its machine went, which says nothing of the piece."""


PieceReply = Sealed | Refused | Lost


class Crew(Protocol):
    """Workers that pieces are handed to."""

    @property
    def workers(self) -> int:
        """Those that work now."""

    @property
    def idle(self) -> int:
        """Pieces that can be submitted now; a worker may hold two: one runs, one waits."""

    def submit(self, piece: Piece) -> None:
        """Hands out a piece."""

    def wait(self, timeout: float) -> list[PieceReply]:
        """What workers said of pieces; waits for the first, at most so many seconds.

        Raises:
            DeviceError: Workers do not start.
        """

    def forget(self, piece: int) -> None:
        """Ends the worker of a piece; what it says is not waited for any more."""

    def close(self) -> None:
        """Ends all workers."""


class EncoderLoader(Protocol):
    """Opens encoders on a worker's machine; can be pickled."""

    def load(self, job: int, device: torch.device) -> tuple[Encoder, Reader]:
        """The encoder of a job, and how its rows are read.

        Raises:
            ModelError: It is not found here, or is another one than the driver's.
        """


class Sealer(Protocol):
    """Where a worker puts shards; can be pickled."""

    def seal(self, shards: Sequence[Shard]) -> ShardEntry:
        """Seals shards as one.

        Raises:
            DiskError: It was not sealed.
        """


class Depot(Protocol):
    """The driver's side of where shards go."""

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """Which rows are in the index by now, (rows,)."""

    def adopt(self, entries: Sequence[ShardEntry]) -> int:
        """Enters sealed shards in the index, without rows that are there already.

        Shards that are not there, by now or at all, count as nothing.

        Returns:
            Rows that are new.
        """

    def finish(self) -> None:
        """What is due when all rows are there, as a merge of small shards."""
