"""Precision of a forward pass, and transfers to a device and back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mmsa_cache.native.float32 import WITHOUT_TF32

from .linear import LinearByOneDnn
from .protocol import Encoded

HALF = "half"
"""Weights and everything between them in float16, without autocast."""
COMPUTE = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    HALF: torch.float16,
}
_CAST_LAYERS = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
"""Layers whose inputs and weights autocast casts, and which do nothing else with their weights."""
_FREQUENCIES = "inv_freq"
"""Name of the buffers of rotary positions: from 1 down to 1e-4, multiplied by the position."""
_LAUNCH_LOCK = threading.Lock()


def precision(device: torch.device, compute: str) -> Any:
    """The context of a forward pass; float32 means no autocast and no TF32."""
    dtype = COMPUTE[compute]
    if dtype == torch.float32:
        return LinearByOneDnn() if device.type == "cpu" else WITHOUT_TF32
    if compute == HALF:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def cast_weights(model: object, compute: str) -> None:
    """Casts the weights that autocast would cast again in every pass. Does not change the features.

    Norms, embeddings and single parameters stay in float32. So do weights that another kind of
    layer shares, and those of subclasses, which may compute with them first. For `HALF` all are
    cast: kernels of norms and softmax accumulate in float32 whatever their input is.

    Args:
        model: A module; anything else is left as it is.
        compute: Key of `COMPUTE`.
    """
    if COMPUTE[compute] == torch.float32 or not isinstance(model, torch.nn.Module):
        return
    modules = list(model.modules())
    if compute == HALF:
        frequencies = [(module, module._buffers.get(_FREQUENCIES)) for module in modules]
        model.to(COMPUTE[compute])
        for module, buffer in frequencies:
            if buffer is not None:
                module._buffers[_FREQUENCIES] = buffer
        return
    to_cast = [module for module in modules if type(module) in _CAST_LAYERS]
    kept_ids = {
        id(weight)
        for module in modules
        if type(module) not in _CAST_LAYERS
        for weight in module.parameters(recurse=False)
    }
    for module in to_cast:
        if not any(id(weight) in kept_ids for weight in module.parameters(recurse=False)):
            module.to(COMPUTE[compute])


@contextlib.contextmanager
def launching(device: torch.device) -> Iterator[None]:
    """Launches the work inside; on a GPU, waits at the end until its results have arrived.

    One thread launches at a time: torch releases Python's lock at every operation, and two
    launching threads would pass it back and forth. While one waits, the next one launches.
    """
    if device.type != "cuda":
        yield
        return
    with _LAUNCH_LOCK:
        yield
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(device))
    done.synchronize()


def stack_inputs(batch: Sequence[Tensor], device: torch.device) -> Tensor:
    """Stacks inputs of one shape, (batch, …), in memory that the device can copy from."""
    stacked = _empty_on_host((len(batch), *batch[0].shape), batch[0].dtype, device)
    return torch.stack(list(batch), out=stacked)


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """Moves an input to a device. A GPU copies from pinned memory, so nothing waits for it."""
    if device.type != "cuda":
        return value.to(device)
    pinned = value if value.is_pinned() else value.pin_memory()
    return pinned.to(device, non_blocking=True)


def collect_features(
    tokens: Tensor, lengths: list[int], pools: Iterable[Tensor], shared: Tensor | None
) -> Encoded:
    """Converts features to what is stored. On a GPU they have arrived when `launching` ends.

    Args:
        tokens: (positions, dim)
        lengths: Positions kept of each row.
        pools: (batch, dim) each.
        shared: (batch, shared_dim), or None.
    """
    return Encoded(
        to_storage(tokens),
        lengths,
        to_storage(torch.stack([pool.float() for pool in pools], 1)),
        None if shared is None else to_storage(shared),
    )


def to_storage(value: Tensor) -> Tensor:
    """Copies a tensor to the CPU as float16. It is converted first: half the bytes are copied."""
    half = value.to(torch.float16)
    if half.device.type != "cuda":
        return half.cpu()
    return _empty_on_host(half.shape, half.dtype, half.device).copy_(half, non_blocking=True)


def _empty_on_host(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor on the CPU, pinned where the device is a GPU."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=device.type == "cuda")
