"""The actor of `RayCrew`: a worker in a process that Ray starts, and starts again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsa_cache.version import __version__

if TYPE_CHECKING:  # what a worker needs is imported by its first call
    from .pieces import Piece
    from .protocol import EncoderLoader, PieceReply, Sealer
    from .worker import CrewWorker


@dataclass(frozen=True, slots=True)
class ActorSettings:
    """What an actor is made of; Ray keeps it for the length of the job."""

    source: EncoderLoader
    sealers: Sequence[Sealer]
    gpu: bool
    """Whether it has one."""
    cores: int
    """Threads that read, and on the CPU that compute."""
    batch_size: int | None


@dataclass(frozen=True, slots=True)
class Hello:
    """Where an actor is."""

    node: str
    """Ray's number of the machine."""
    name: str
    """Machine and process, for people."""
    version: str
    """Of mmsa, there."""


class RayWorker:
    """Nothing is loaded in ``__init__``: an actor that cannot be made is never tried again."""

    def __init__(self, orders: ActorSettings) -> None:
        self._orders = orders
        self._made: CrewWorker | None = None

    @property
    def _worker(self) -> CrewWorker:
        if self._made is None:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            import torch

            from .worker import CrewWorker

            torch.set_num_threads(1)
            orders = self._orders
            # Ray shows a process the card that it was given, and no other.
            device = torch.device("cuda:0" if orders.gpu else "cpu")
            self._made = CrewWorker(
                orders.source, orders.sealers, device, orders.cores, orders.batch_size
            )
        return self._made

    def hello(self) -> Hello:
        """Says where it is, once it can work."""
        import ray

        return Hello(ray.get_runtime_context().get_node_id(), self._worker.name, __version__)

    def run(self, piece: Piece) -> PieceReply:
        """Does a piece."""
        return self._worker.run(piece)
