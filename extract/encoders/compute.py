"""Precision of a forward pass, and the way to a device and back."""

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
_CAST = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
"""Layers whose inputs and weights autocast casts, and which do nothing else with their weights."""
_FREQUENCIES = "inv_freq"
"""Buffers of rotary positions, which go from 1 down to 1e-4 and are multiplied by the position."""
_LAUNCHING = threading.Lock()


def precision(device: torch.device, compute: str) -> Any:
    """The context that a forward pass runs in; float32 means no autocast and no TF32."""
    dtype = COMPUTE[compute]
    if dtype == torch.float32:
        return LinearByOneDnn() if device.type == "cpu" else WITHOUT_TF32
    if compute == HALF:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def cast_weights(model: object, compute: str) -> None:
    """Casts the weights that autocast would cast again in every pass; the features stay the same.

    Norms, embeddings and single parameters stay in float32. So do weights that another kind of
    layer has too, and those of subclasses, which may compute with them first. For `HALF` all are
    cast: the kernels of norms and of softmax add up in float32 whatever they are given.

    Args:
        model: A module; anything else is left as it is.
        compute: Key of `COMPUTE`.
    """
    if COMPUTE[compute] == torch.float32 or not isinstance(model, torch.nn.Module):
        return
    parts = list(model.modules())
    if compute == HALF:
        exact = [(part, part._buffers.get(_FREQUENCIES)) for part in parts]
        model.to(COMPUTE[compute])
        for part, frequencies in exact:
            if frequencies is not None:
                part._buffers[_FREQUENCIES] = frequencies
        return
    shared = {
        id(own) for part in parts if type(part) not in _CAST for own in part.parameters(False)
    }
    for part in parts:
        if type(part) in _CAST and not any(id(own) in shared for own in part.parameters(False)):
            part.to(COMPUTE[compute])


@contextlib.contextmanager
def launching(device: torch.device) -> Iterator[None]:
    """Work is launched inside; on a GPU the way out waits until its results have arrived.

    One thread launches at a time: torch gives Python's lock away at every operation, and two
    threads that launch would hand it to and fro. While one waits, the next one launches.
    """
    if device.type != "cuda":
        yield
        return
    with _LAUNCHING:
        yield
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(device))
    done.synchronize()


def stack_inputs(batch: Sequence[Tensor], device: torch.device) -> Tensor:
    """Equal inputs as one tensor, (batch, …), where the device can fetch it."""
    whole = _host((len(batch), *batch[0].shape), batch[0].dtype, device)
    return torch.stack(list(batch), out=whole)


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """Moves an input; to a GPU from pinned memory, so that nothing waits for the copy."""
    if device.type != "cuda":
        return value.to(device)
    pinned = value if value.is_pinned() else value.pin_memory()
    return pinned.to(device, non_blocking=True)


def collect_features(
    tokens: Tensor, lengths: list[int], pools: Iterable[Tensor], shared: Tensor | None
) -> Encoded:
    """Features as they are stored; see `Encoded` for the shapes, pools are (batch, dim) each.

    On a GPU they have arrived once `launching` is left.
    """
    return Encoded(
        to_storage(tokens),
        lengths,
        to_storage(torch.stack([pool.float() for pool in pools], 1)),
        None if shared is None else to_storage(shared),
    )


def to_storage(value: Tensor) -> Tensor:
    """float16 on the CPU; converted where it was computed, so that half the bytes travel."""
    half = value.to(torch.float16)
    if half.device.type != "cuda":
        return half.cpu()
    return _host(half.shape, half.dtype, half.device).copy_(half, non_blocking=True)


def _host(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of the CPU, pinned for a GPU."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=device.type == "cuda")
