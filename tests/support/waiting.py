"""Operations that wait for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):
    """Fails on what makes the host wait for the device: reading a value, or a size from values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        kind = func.overloadpacket
        waits = kind in (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal)
        if kind in (aten.index, aten.index_put, aten.index_put_):
            waits = any(index is not None and index.dtype == torch.bool for index in args[1])
        assert not waits, f"{func} waits"
        return func(*args, **(kwargs or {}))
