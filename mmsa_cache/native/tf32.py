"""float32 products and convolutions on a GPU, without TF32.

TF32 keeps 10 of float32's 23 bits. torch uses it for convolutions unless told otherwise.
"""

from __future__ import annotations

import threading
from typing import Any

import torch

_CUDNN: Any = torch.backends.cudnn
_OPERATIONS = torch.backends.cuda.matmul, _CUDNN.conv


class _WithoutTf32:
    """A context; the switches are the process's, so the last thread that leaves puts them back."""

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
"""While any thread is inside, float32 means float32."""
