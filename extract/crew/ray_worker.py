"""The actor of `RayCrew`: a worker in a process that Ray starts and restarts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsa_cache.version import __version__

if TYPE_CHECKING:  # imported by the first call
    from .pieces import Piece
    from .protocol import EncoderLoader, PieceReply, Sealer
    from .worker import CrewWorker


@dataclass(frozen=True, slots=True)
class ActorSettings:
    """Arguments of an actor; Ray keeps them for the length of the job."""

    loader: EncoderLoader
    sealers: Sequence[Sealer]
    gpu: bool
    """Whether it runs on one."""
    cores: int
    """Threads that read, and on the CPU that compute."""
    batch_size: int | None


@dataclass(frozen=True, slots=True)
class ActorInfo:
    """Where an actor runs."""

    node: str
    """Ray's identifier of the machine."""
    name: str
    """Machine and process, for people."""
    version: str
    """Of mmsa on that machine."""


class RayWorker:
    """Loads nothing in ``__init__``: Ray never retries an actor that cannot be constructed."""

    def __init__(self, settings: ActorSettings) -> None:
        self._settings = settings
        self._loaded: CrewWorker | None = None

    @property
    def _worker(self) -> CrewWorker:
        if self._loaded is None:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            import torch

            from .worker import CrewWorker

            torch.set_num_threads(1)
            settings = self._settings
            # Ray makes only the process's own card visible.
            device = torch.device("cuda:0" if settings.gpu else "cpu")
            self._loaded = CrewWorker(
                settings.loader, settings.sealers, device, settings.cores, settings.batch_size
            )
        return self._loaded

    def info(self) -> ActorInfo:
        """Where it runs; replies once it can work."""
        import ray

        return ActorInfo(ray.get_runtime_context().get_node_id(), self._worker.name, __version__)

    def run(self, piece: Piece) -> PieceReply:
        """Encodes and seals a piece."""
        return self._worker.run(piece)
