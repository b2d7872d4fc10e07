"""Encoders for workers of any crew: they can be pickled, and their rows tell their batch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extract.encoders.options import Options
from extract.encoders.protocol import Encoded, Size
from extract.engine import extract
from extract.plan import EncodingJob, Reader, Row, RowPlan, plan_rows
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import DataError, ModelError
from tests.support.rows import Rows, claimed, row_bytes

CPU = torch.device("cpu")


class InCompany:
    """Features that say which rows were in the batch."""

    label = "in company"
    options = Options()
    pools = ("mean",)
    size = Size(1, False, 2, 2)
    equal_inputs = False

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.seen: list[int] = []

    def prepare(self, values: Any) -> list[Tensor]:
        return [torch.full((1 + value % 5,), value) for value in values]

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        time.sleep(self.seconds * len(batch))
        rows = [int(row[0]) for row in batch]
        self.seen += rows
        pooled = torch.tensor([[[row, sum(rows) % 2000]] for row in rows])
        return Encoded(pooled[:, 0].half(), [1] * len(rows), pooled.half(), None)


@dataclass(frozen=True)
class CompanySource:
    """Rows are numbers.

    Args:
        seconds: That a row takes.
        killing: Rows whose worker is killed.
        bad: Rows that cannot be read.
        fails: The encoder cannot be loaded, and why.
        notes: Takes a file for every process that loaded an encoder.
    """

    seconds: float = 0.0
    killing: tuple[int, ...] = ()
    bad: tuple[int, ...] = ()
    fails: str = ""
    notes: Path | None = None

    def load(self, job: int, device: torch.device) -> tuple[InCompany, Reader]:
        if self.fails:
            raise ModelError(self.fails)
        if self.notes is not None:
            (self.notes / str(os.getpid())).touch()
        return InCompany(self.seconds), self._read

    def _read(self, row: Row) -> tuple[int, str]:
        number = int(row.sample.text or "")
        if number in self.killing:
            time.sleep(0.5)  # as no memory does it: what was answered before has been sent
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.bad:
            raise DataError(f"{row.sample.guid}: cannot be read")
        return number, f"variant {row.variant}"


def content(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def posts(numbers: Sequence[int], name: str = "p{}", label: int = 0) -> list[Sample]:
    """Samples whose texts are numbers."""
    return [
        Sample(name.format(i), label, str(n), None, content(n), "") for i, n in enumerate(numbers)
    ]


def plan_of(count: int) -> RowPlan:
    """A row for each number."""
    return plan_rows(posts(range(count)), {}, "none", "text")


def plain_rows(root: Path, count: int, shard_rows: int, batch_size: int) -> Rows:
    """The rows of one process that nothing happens to."""
    encoder, reader = CompanySource().load(0, CPU)
    with claimed(root) as writer:
        job = EncodingJob(plan_of(count), writer, reader=reader, encoder=encoder)
        extract([job], CPU, shard_rows=shard_rows, batch_size=batch_size)
    return row_bytes(root)
