"""Readers and preparations for processes: of rows whose names are numbers."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extract.plan import Row
from extract.streams import ThreadCounts
from mmsa_cache.errors import DataError, ModelError
from tests.support.extraction import LENGTHS, Counting, make_rows, run

FOUR = ThreadCounts(6, 2)
"""Of six cores two are left to others."""


@dataclass(frozen=True)
class Numbered:
    """Gives a row's number.

    Args:
        bad: Rows that cannot be read.
        killing: Rows whose process is killed.
        times: So often at most; needs `notes`.
        notes: Takes a file for each process that read, and for each kill.
        seconds: That a row takes.
    """

    bad: tuple[int, ...] = ()
    killing: tuple[int, ...] = ()
    times: int = 1000
    notes: Path | None = None
    seconds: float = 0.0

    def __call__(self, row: Row) -> tuple[int, str]:
        number = int(row.sample.guid)
        time.sleep(self.seconds)
        if self.notes is not None:
            (self.notes / f"read by {os.getpid()}").touch()
        if number in self.killing:
            self._kill()
        if number in self.bad:
            raise DataError(f"{number}.jpg: cannot be decoded")
        return number, f"made {row.variant}"

    def _kill(self) -> None:
        assert self.notes is not None
        killed = len(list(self.notes.glob("killed *")))
        if killed < self.times:
            (self.notes / f"killed {killed}").touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Repeated:
    """Numbers → rows of them, as long as `lengths` says."""

    lengths: tuple[int, ...]

    def __call__(self, values: Iterable[int]) -> list[Tensor]:
        return [torch.full((self.lengths[value],), value) for value in values]


class OddError(Exception):
    """Stands no pickling."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


@dataclass(frozen=True)
class Failing:
    """Raises."""

    odd: bool

    def __call__(self, values: Iterable[int]) -> list[Tensor]:
        list(values)
        if self.odd:
            raise OddError("something", "odd")
        raise ModelError("no such token", "give another model")


class Prepared(Counting):
    """As `Counting`; what prepares its rows can be pickled alone."""

    def __init__(self, prepare: Any = None) -> None:
        super().__init__()
        self.prepare = prepare or Repeated(tuple(LENGTHS))  # type: ignore[method-assign]


def hang(*arguments: object) -> None:
    """A main function that says nothing."""
    time.sleep(100)


def read_by_others(folder: Path) -> None:
    """A worker's main function: reads rows by processes of its own until one has read some."""
    while {path.name for path in folder.iterdir()} <= {f"read by {os.getpid()}"}:
        reader = Numbered(notes=folder, seconds=0.01)
        run(folder / "store", make_rows(folder), Prepared(), reader, threads=FOUR, processes=True)
        shutil.rmtree(folder / "store")
