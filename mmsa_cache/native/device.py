"""The device that models run on."""

from __future__ import annotations

import platform

import torch

from mmsa_cache.errors import DeviceError


def pick_device(name: str) -> torch.device:
    """``auto`` → CUDA where there is one.

    Raises:
        DeviceError: CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name.startswith("cuda") and not available:
        raise DeviceError("There is no CUDA device.", "Use --device cpu or auto.")
    return torch.device(("cuda" if available else "cpu") if name == "auto" else name)


def device_name(device: torch.device) -> str:
    """What the maker calls a GPU or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or "cpu"
