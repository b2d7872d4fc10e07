"""The interfaces between the driver, its crews, and the places for shards."""

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
    """A piece that is done."""

    piece: int
    entries: tuple[ShardEntry, ...]
    """The shards that hold its rows."""
    rows: int
    """Rows that were encoded."""
    seconds: float
    """Without loading the encoder."""
    worker: str
    """Machine and process, for people."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A piece that failed, in whole or in part."""

    piece: int
    reason: str
    problems: tuple[str, ...] = ()
    """Rows that cannot be read, a line each; all others of the piece are in `entries`."""
    retry: bool = True
    """Whether another try may succeed; not if rows cannot be read."""
    entries: tuple[ShardEntry, ...] = ()
    """Shards that were sealed all the same."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A piece whose worker died."""

    piece: int
    reason: str
    by_node: bool = False
    """Whether its machine went, which is not the fault of the piece."""


PieceReply = Sealed | Refused | Lost


PIECES_A_WORKER = 2
"""One runs; the other one waits, so that the worker never does."""


class Crew(Protocol):
    """Workers that encode pieces."""

    @property
    def workers(self) -> int:
        """Workers that are ready."""

    @property
    def capacity(self) -> int:
        """Pieces that can be submitted now; see `PIECES_A_WORKER`."""

    def submit(self, piece: Piece) -> None:
        """Hands out a piece."""

    def wait(self, timeout: float) -> list[PieceReply]:
        """Replies of workers; waits for the first one, at most `timeout` seconds.

        Raises:
            DeviceError: Workers do not start.
        """

    def forget(self, piece: int) -> None:
        """Ends the worker of a piece, and ignores its reply."""

    def close(self) -> None:
        """Ends all workers."""


class EncoderLoader(Protocol):
    """Loads encoders on a worker's machine; can be pickled."""

    def load(self, job: int, device: torch.device) -> tuple[Encoder, Reader]:
        """The encoder of a job, and how its rows are read.

        Raises:
            ModelError: It is missing here, or differs from the driver's.
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
        """Whether each row is in the index by now, (rows,)."""

    def adopt(self, entries: Sequence[ShardEntry]) -> int:
        """Enters sealed shards in the index, without rows that are in it already.

        Shards that are missing, by now or at all, count as nothing.

        Returns:
            Rows that are new.
        """

    def finish(self) -> None:
        """Called once all rows are present, for instance to merge small shards."""
