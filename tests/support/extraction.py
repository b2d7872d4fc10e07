"""Extractions of made-up rows by an encoder that counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extract.encoders.options import Options
from extract.encoders.protocol import Encoded, Size
from extract.engine import extract
from extract.plan import EncodingJob, Row, RowPlan, plan_rows
from mmsa_cache.data.pairs import Sample
from tests.support.rows import claimed

CPU = torch.device("cpu")
LENGTHS = [1 + (7 * i) % 9 for i in range(50)]
NO_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.AcceleratorError("CUDA error: out of memory", 2),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
)


class Counting:
    """Features that say which row they are of: every position of row i is (i, length)."""

    label = "counting"
    options = Options()
    pools = ("mean",)
    size = Size(9, True, 2, 2)
    equal_inputs = False

    def __init__(self, memory: int = 1000, error: Exception = NO_MEMORY[0]) -> None:
        self.memory, self.error = memory, error
        self.tried: list[int] = []
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.intra_op: set[int] = set()

    def prepare(self, values: Iterable[int]) -> list[Tensor]:
        return [torch.full((LENGTHS[value],), value) for value in values]

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        self.tried.append(len(batch))
        if len(batch) > self.memory:
            raise self.error
        self.batches.append([int(row[0]) for row in batch])
        self.threads.add(threading.current_thread().name)
        self.intra_op.add(torch.get_num_threads())
        time.sleep(0.001 * (int(batch[0][0]) % 3))  # batches end in another order than they began
        lengths = [len(row) for row in batch]
        rows = torch.stack([torch.tensor([float(r[0]), float(len(r))]) for r in batch])
        tokens = torch.repeat_interleave(rows, torch.tensor(lengths), 0)
        return Encoded(tokens.half(), lengths, rows[:, None].half(), None)


def make_samples(count: int, folder: Path = Path()) -> list[Sample]:
    """Samples whose texts and pictures all differ."""
    hashes = [sha256(str(i).encode()).hexdigest() for i in range(count)]
    return [Sample(str(i), 0, "", folder / f"{i}.jpg", h, h) for i, h in enumerate(hashes)]


def make_rows(tmp_path: Path, count: int = len(LENGTHS)) -> RowPlan:
    return plan_rows(make_samples(count, tmp_path), {}, "none", "text")


def read(row: Row) -> tuple[int, str]:
    return int(row.sample.guid), f"made {row.variant}"


def run(
    root: Path,
    rows: RowPlan,
    encoder: Any,
    reader: Any = read,
    notice: Callable[[str], None] = lambda text: None,
    sealed: list[int] | None = None,
    device: torch.device = CPU,
    **changes: Any,
) -> list[int]:
    """Extracts into a store; returns the rows that were encoded, step by step."""
    sealed = [] if sealed is None else sealed
    with claimed(root) as writer:
        watch = lambda: nullcontext(sealed.append)  # noqa: E731
        job = EncodingJob(rows, writer, watch=watch, notice=notice, reader=reader, encoder=encoder)
        extract([job], device, **({"shard_rows": 8, "batch_size": 4} | changes))
    return sealed
