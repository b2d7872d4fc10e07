"""Threads that run models on batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from extract.encoders.protocol import Encoded, Encoder
from mmsa_cache.errors import DeviceError
from mmsa_cache.native.cores import usable_cores
from mmsa_cache.native.threads import one_thread

from .plan import plan_batches

_GPU_STREAMS = 2
"""One stream's results are fetched while the other one's kernels run."""
_MAX_THREADS = 32


@dataclass(frozen=True, slots=True)
class Workers:
    """How a machine's cores are shared out."""

    readers: int
    """Threads that read, decode and prepare."""
    streams: int
    """Threads that run the model; on the CPU each computes with one core."""

    @classmethod
    def plan(cls, device: torch.device) -> Workers:
        """A thread a core for both: on the CPU readers are mostly ahead and asleep."""
        cores = min(usable_cores(), _MAX_THREADS)
        if device.type == "cpu":
            return cls(cores, cores)
        return cls(cores, _GPU_STREAMS)


@dataclass(slots=True)
class Timings:
    """Seconds that threads were busy, added up over all of them."""

    read: float = 0.0
    encode: float = 0.0
    write: float = 0.0


class Halving:
    """Runs a model; halves batches once the device had no memory for one, and remembers it.

    Args:
        encoder: The frozen model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.halved = False
        """Whether batches are run in halves from now on."""

    def run(self, batch: Sequence[Tensor]) -> list[Encoded]:
        """Encodes a batch, whole or in two halves.

        Raises:
            torch.OutOfMemoryError: Half a batch is too much as well.
        """
        if not self.halved:
            try:
                return [self.encoder.encode(batch)]
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self.halved = True
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        middle = (len(batch) + 1) // 2
        return [self.encoder.encode(part) for part in (batch[:middle], batch[middle:]) if part]


class Streams:
    """Threads that run models on batches.

    Args:
        device: Where they run.
        count: Number of threads.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        start = one_thread if device.type == "cpu" else None
        self._pool = ThreadPoolExecutor(count, "encode", start)

    def submit(
        self, model: Halving, inputs: Sequence[Tensor], batch_size: int, first: int = 0
    ) -> list[Batch]:
        """Queues batches of one window.

        Args:
            model: The frozen model.
            inputs: Of consecutive rows.
            batch_size: Rows a forward pass.
            first: Place of the first of these rows in the window.
        """
        batches = []
        for places in plan_batches(inputs, batch_size):
            task = self._pool.submit(_encode, model, [inputs[place] for place in places])
            batches.append(Batch([first + place for place in places], task))
        return batches

    def close(self) -> None:
        """Waits for what runs; drops what is queued."""
        self._pool.shutdown(cancel_futures=True)


def _encode(model: Halving, batch: list[Tensor]) -> tuple[list[Encoded], float]:
    started = time.perf_counter()
    try:
        return model.run(batch), time.perf_counter() - started
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"The device has no memory for {(len(batch) + 1) // 2} rows at once.",
            "Lower batch_size in [extract], or --device cpu.",
        ) from error


@dataclass(frozen=True, slots=True)
class Batch:
    """A queued batch: the places of its rows in the window, and its future features."""

    places: list[int]
    task: Future[tuple[list[Encoded], float]]
