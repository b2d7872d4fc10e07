"""Attention masks that are built without waiting for a device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


def build_masks_on_device() -> None:
    """Makes transformers build attention masks without waiting for the device.

    transformers skips the mask of a batch without padding. To know whether there is padding it
    reads a value of the mask, and on a GPU each such read waits for all work before it. Here the
    mask is always built, except on the CPU.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask

    for name, build in (("sdpa", sdpa_mask), ("eager", eager_mask)):
        ALL_MASK_ATTENTION_FUNCTIONS[name] = functools.partial(build_mask, build)


def build_mask(build: Callable[..., Any], **arguments: Any) -> Any:
    """Builds one mask; it is never skipped on devices other than the CPU.

    Args:
        build: transformers' function for one kind of attention.
        arguments: Arguments of that function; ``device`` is where the mask is built.
    """
    if torch.device(arguments.get("device", "cpu")).type != "cpu":
        arguments |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return build(**arguments)
