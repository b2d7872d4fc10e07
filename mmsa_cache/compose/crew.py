"""Which workers a command is run by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EngineName = Literal["local", "ray"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What a command asked for; nothing at all is this process."""

    engine: EngineName | None = None
    """None with `workers` is local."""
    workers: int | None = None
    address: str | None = None
    """Of a Ray cluster; None: RAY_ADDRESS or one that runs here, else one is started."""
    target: str | None = None
    """URL of an object store that takes the features."""
