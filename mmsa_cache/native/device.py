"""The device that models run on."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mmsa_cache.errors import DeviceError

from .graph_memory import free_memory


def device_kind(name: str) -> str:
    """``cpu`` or ``cuda`` of a setting; the device may belong to another machine."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name).type


def pick_device(name: str) -> torch.device:
    """``auto`` → CUDA where there is one.

    Raises:
        DeviceError: CUDA is asked for and there is none, or none of that number.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError("There is no CUDA device.", "Use --device cpu or auto.")
    device = torch.device(device_kind(name) if name == "auto" else name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceError(
            f"There is no {name}: this machine has {count} CUDA device(s), from 0.",
            "Use --device cuda, or a number that there is.",
        )
    return device


_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",  # of a map
    "ALLOC_FAILED",  # of cuBLAS and cuDNN
    "CUBLAS_STATUS_NOT_INITIALIZED",  # a handle that there was no memory for
    "CUDNN_STATUS_NOT_INITIALIZED",
    "could not create a memory object",  # of oneDNN
    "bad_alloc",
    "can't start new thread",  # whose stack there was no memory for
)
"""Parts of the out-of-memory messages of torch, CUDA and its libraries."""
_NO_KERNEL = "could not create a primitive"
"""What oneDNN says, and nothing more, where there was no memory for the code of a kernel; of shapes
that it does not take it says "could not create a primitive descriptor for …"."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the CPU or a device is out of memory.

    torch has a class of its own for its allocator alone; the CUDA runtime's error is a
    `torch.AcceleratorError`, those of the libraries are plain ones.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        said == _NO_KERNEL or any(word in said for word in _NO_MEMORY)
    )


@contextmanager
def explain_out_of_memory(what: str) -> Iterator[None]:
    """Turns out-of-memory errors into a `DeviceError`.

    Args:
        what: Purpose of the memory, as in "to load the model".

    Raises:
        DeviceError: There was not enough memory.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"There is no memory {what}: {str(error).splitlines()[0][:200]}",
            "End what else runs there, take a smaller model, or --device cpu.",
        ) from error


def is_device_lost(error: BaseException) -> bool:
    """Whether a CUDA device is unusable in this process from now on.

    After most errors of its runtime every later call gives the same error. ``load_state_dict``
    wraps it in a plain one.
    """
    return (
        isinstance(error, torch.AcceleratorError)
        or (isinstance(error, RuntimeError) and "CUDA error" in str(error))
    ) and not is_out_of_memory(error)


_AMPLE = 4
"""A GPU has enough free memory if this fraction (1/4) of it is free."""


def release_spare_memory(device: torch.device) -> None:
    """Frees the GPU memory that torch caches, if little is left for other processes.

    Otherwise the cache stays: allocating anew takes longer than using it.
    """
    free, whole = torch.cuda.mem_get_info(device)
    if free < whole / _AMPLE:
        free_memory(device)


def is_device_error(error: BaseException) -> bool:
    """Whether the device, not the data, caused an error: no memory, or the device is lost."""
    return is_out_of_memory(error) or is_device_lost(error)


def device_name(device: torch.device) -> str:
    """The maker's name of a GPU or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or "cpu"
