"""Batches in halves where the device has no memory for whole ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from extract.encoders.protocol import Encoded, Encoder


class Halving:
    """Runs a model; halves batches once the device had no memory for one, and remembers it.

    Args:
        encoder: The frozen model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._halved = False
        self._lock = threading.Lock()

    @property
    def halved(self) -> bool:
        """Whether batches are run in halves from now on."""
        return self._halved

    def run(self, batch: Sequence[Tensor]) -> list[Encoded]:
        """Encodes a batch, whole or in two halves.

        Raises:
            torch.OutOfMemoryError: Half a batch is too much as well.
        """
        if not self._halved:
            try:
                return [self.encoder.encode(batch)]
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                with self._lock:
                    self._halved = True
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        middle = (len(batch) + 1) // 2
        return [self.encoder.encode(part) for part in (batch[:middle], batch[middle:]) if part]
