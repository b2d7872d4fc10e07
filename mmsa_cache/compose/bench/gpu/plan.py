"""The steps of a run, in order, with their time limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import compiled, correctness, memory, profiling, searching, stage_one, stage_two
from .bench import Bench


@dataclass(frozen=True, slots=True)
class Step:
    """A step."""

    run: Callable[[Bench], None]
    seconds: float
    """Limit, after which its process is killed; its measurements until then are kept."""


PREPARATION = 60.0
"""Limit of the preparations, in seconds."""

STEPS: dict[str, Step] = {
    "stage one": Step(stage_one.run, 60),
    "stage two": Step(stage_two.run, 40),
    "search": Step(searching.run, 105),
    "correctness": Step(correctness.run, 40),
    "memory": Step(memory.run, 13),
    "profile": Step(profiling.run, 20),
    "compiled": Step(compiled.run, 80),
}
