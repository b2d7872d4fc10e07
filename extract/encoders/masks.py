"""Attention masks that are built without reading them back from a device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


def build_masks_on_device() -> None:
    """Makes transformers build attention masks without waiting for the device.

    It skips the mask of a batch without padding. To see whether there is padding it reads a value
    of the mask, and on a GPU that waits for all work before it, once or more a batch. On devices
    other than the CPU the mask is always built; the CPU keeps the shorter way.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask

    for name, build in (("sdpa", sdpa_mask), ("eager", eager_mask)):
        ALL_MASK_ATTENTION_FUNCTIONS[name] = functools.partial(build_mask, build)


def build_mask(build: Callable[..., Any], *, device: torch.device | str, **arguments: Any) -> Any:
    """Builds one mask, always a whole one where the device is not the CPU.

    Args:
        build: transformers' function for one kind of attention.
        device: Where the mask is to lie.
        arguments: Of `build`.
    """
    if torch.device(device).type != "cpu":
        arguments |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return build(device=device, **arguments)
