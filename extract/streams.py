"""Threads that run models on batches."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from extract.encoders.padding import TOKEN_STEP
from extract.encoders.protocol import Encoded, Encoder
from mmsa_cache.errors import DeviceError
from mmsa_cache.native.cores import usable_cores
from mmsa_cache.native.device import is_out_of_memory
from mmsa_cache.native.threads import one_thread

from .plan import plan_batches

_GPU_STREAMS = 2
"""One waits for results while the other one launches."""
_ROWS, _GPU_ROWS = 32, 256
"""Rows a batch. Launching the 1,400 operations of a batch takes longer than a GPU needs to run them
on few rows."""
_GPU_POSITIONS = 1 << 14
"""Positions of a batch of texts at most, padded ones included."""
_MAX_THREADS = 32


@dataclass(frozen=True, slots=True)
class ThreadCounts:
    """How many threads read and run models."""

    readers: int
    """Threads that read, decode and prepare."""
    streams: int
    """Threads that run the model, on the CPU on one core each, on a GPU with a stream each."""

    @classmethod
    def plan(cls, device: torch.device, cores: int | None = None) -> ThreadCounts:
        """The threads for a device; on the CPU one a core for both, as readers mostly sleep.

        Args:
            device: Where models run.
            cores: Cores to use; default: all that this process may use.
        """
        cores = min(cores or usable_cores(), _MAX_THREADS)
        if device.type == "cpu":
            return cls(cores, cores)
        return cls(cores, _GPU_STREAMS)


def rows_a_batch(setting: int | None, device: torch.device) -> int:
    """Rows a forward pass: the setting, or the default of the device."""
    if setting is not None:
        return setting
    return _ROWS if device.type == "cpu" else _GPU_ROWS


@dataclass(slots=True)
class Timings:
    """Seconds that threads were busy, added up over all of them."""

    read: float = 0.0
    encode: float = 0.0
    write: float = 0.0
    starved: float = 0.0
    """Of the extraction: streams had no batch, since rows were still being read."""


class HalvingEncoder:
    """Runs a model on batches; halves them when the device is out of memory.

    All threads that run the model share this object, and thus the limit.

    Args:
        encoder: The frozen model.

    Attributes:
        max_rows: Rows that are run at once; None until a batch did not fit.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.max_rows: int | None = None

    def run(self, batch: Sequence[Tensor]) -> list[Encoded]:
        """Encodes a batch, whole or in parts.

        Raises:
            DeviceError: There is no memory for one row.
        """
        encoded: list[Encoded] = []
        done = 0
        while done < len(batch):
            part = batch[done : done + (self.max_rows or len(batch))]
            try:
                encoded.append(self.encoder.encode(part))
                done += len(part)
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise DeviceError(
                        "The device has no memory for one row at a time.",
                        "End what else runs there, take a smaller model, or --device cpu.",
                    ) from error
            # Outside the handler, whose traceback keeps tensors alive.
            self.max_rows = min(self.max_rows or len(part), (len(part) + 1) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return encoded


@functools.cache
def _cuda_stream(device: torch.device, number: int) -> torch.cuda.Stream:
    """The stream of a thread; they are reused, as torch keeps freed memory for each stream."""
    return torch.cuda.Stream(device)


class Streams:
    """Threads that run models on batches.

    Args:
        device: Where they run.
        count: Number of threads.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        self._device = device
        self._numbers = itertools.count()
        self._threads = ThreadPoolExecutor(count, "encode", self._start)
        self._last: Future[tuple[list[Encoded], float]] | None = None

    def _start(self) -> None:
        one_thread()
        if self._device.type == "cuda":
            stream = _cuda_stream(self._device, next(self._numbers))
            stream.wait_stream(torch.cuda.default_stream(self._device))  # models were loaded there
            torch.cuda.set_stream(stream)

    @property
    def idle(self) -> bool:
        """Whether no batch is left; they end nearly in the order in which they were queued."""
        return self._last is None or self._last.done()

    def submit(
        self, model: HalvingEncoder, inputs: Sequence[Tensor], batch_size: int, first: int = 0
    ) -> list[QueuedBatch]:
        """Queues batches of one window.

        Args:
            model: The frozen model.
            inputs: Of consecutive rows.
            batch_size: Rows a forward pass.
            first: Index of the first of these rows in the window.
        """
        batches = []
        bounded = self._device.type != "cpu" and not model.encoder.equal_inputs
        positions = _GPU_POSITIONS if bounded else None
        for indices in plan_batches(inputs, batch_size, positions, TOKEN_STEP):
            self._last = self._threads.submit(_encode, model, [inputs[i] for i in indices])
            batches.append(QueuedBatch([first + i for i in indices], self._last))
        return batches

    def close(self) -> None:
        """Waits for running batches; drops queued ones."""
        self._threads.shutdown(cancel_futures=True)


def _encode(model: HalvingEncoder, batch: list[Tensor]) -> tuple[list[Encoded], float]:
    started = time.perf_counter()
    return model.run(batch), time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class QueuedBatch:
    """A batch of a window that is encoded sooner or later."""

    rows: list[int]
    """Indices in the window."""
    future: Future[tuple[list[Encoded], float]]
    """Its features, and the seconds that they took."""
