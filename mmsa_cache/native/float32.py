"""Precision to which float32 products and convolutions round their factors.

TF32 keeps 10 of float32's 23 bits, bf16 7. torch uses TF32 for convolutions on a GPU unless told
otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_BACKENDS: Any = torch.backends
_CPU, _GPU = _BACKENDS.mkldnn.matmul, _BACKENDS.cuda.matmul
_OPERATIONS = _GPU, _BACKENDS.cudnn.conv


class _WithoutTf32:
    """A context of several threads: the last one to leave restores the process's switches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[str] = []

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = [operation.fp32_precision for operation in _OPERATIONS]
                for operation in _OPERATIONS:
                    operation.fp32_precision = "ieee"

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for operation, before in zip(_OPERATIONS, self._before, strict=True):
                    operation.fp32_precision = before


WITHOUT_TF32 = _WithoutTf32()
"""Inside this context, of any thread, TF32 is off."""


@contextmanager
def matmul_precision(cpu: str, gpu: str) -> Iterator[None]:
    """Sets the precision of products inside the block, for all threads.

    Args:
        cpu: ``ieee`` or ``bf16``.
        gpu: ``ieee`` or ``tf32``.
    """
    before = _CPU.fp32_precision, _GPU.fp32_precision
    _CPU.fp32_precision, _GPU.fp32_precision = cpu, gpu
    try:
        yield
    finally:
        _CPU.fp32_precision, _GPU.fp32_precision = before


def cpu_matmul_precision() -> str:
    """The current precision of products on the CPU."""
    precision: str = _CPU.fp32_precision
    return precision
