"""Operations of torch of which one fails, as on a device that has no memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Scarce(TorchDispatchMode):
    """Operations of this thread, of which one fails.

    Args:
        at: The one, from 1; 0 only counts.
        error: What it raises.
    """

    def __init__(self, at: int = 0, error: Exception = NO_MEMORY) -> None:
        super().__init__()
        self._at, self._error = at, error
        self.done = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.done += 1
        if self.done == self._at:
            raise self._error
        return func(*args, **(kwargs or {}))
