"""Precision of a forward pass, and the way to a device and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mmsa_cache.native.tf32 import WITHOUT_TF32

from .linear import LinearByOneDnn
from .protocol import Encoded

COMPUTE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def precision(device: torch.device, compute: str) -> Any:
    """The context that a forward pass runs in; float32 means no autocast and no TF32."""
    dtype = COMPUTE[compute]
    if dtype == torch.float32:
        return LinearByOneDnn() if device.type == "cpu" else WITHOUT_TF32
    return torch.autocast(device.type, dtype)


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """Moves an input; to a GPU from pinned memory, so that the copy runs beside the model."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def encoded(
    tokens: Tensor, lengths: list[int], pools: Iterable[Tensor], shared: Tensor | None
) -> Encoded:
    """Features as they are stored; see `Encoded` for the shapes, pools are (batch, dim) each."""
    return Encoded(
        to_storage(tokens),
        lengths,
        to_storage(torch.stack([pool.float() for pool in pools], 1)),
        None if shared is None else to_storage(shared),
    )


def to_storage(value: Tensor) -> Tensor:
    """float16 on the CPU; converted where it was computed, so that half the bytes travel."""
    return value.to(torch.float16).cpu()
