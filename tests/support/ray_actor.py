"""An actor in the place of `RayWorker` that loads nothing, and does as it is told."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from extract.crew.ray_worker import ActorInfo, ActorSettings


@dataclass(frozen=True)
class Told:
    """In the place of a source: what to do.

    Args:
        version: Of mmsa.
        slow: Pieces that take for ever.
        broken: An actor cannot be made, and why.
    """

    version: str
    slow: tuple[int, ...] = ()
    broken: str = ""


@dataclass(frozen=True)
class Number:
    """In the place of a piece, whose module imports torch."""

    number: int


@dataclass(frozen=True)
class Done:
    """What is said of it."""

    piece: int
    pid: int


class LightWorker:
    """Says that pieces are done."""

    def __init__(self, settings: ActorSettings) -> None:
        self._told: Any = settings.loader
        if self._told.broken:
            raise ImportError(self._told.broken)

    def info(self) -> ActorInfo:
        import ray

        node = ray.get_runtime_context().get_node_id()
        return ActorInfo(node, f"there:{os.getpid()}", self._told.version)

    def run(self, piece: Number) -> Done:
        if piece.number in self._told.slow:
            time.sleep(1000)
        return Done(piece.number, os.getpid())
