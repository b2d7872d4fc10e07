"""How many members fit into the memory of a device, and the error if not even one does."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fuse.setting import Setting
from mmsa_cache.errors import DeviceError

_COPIES = 12
"""Copies of a member's weights during training: Adam's means, gradients and temporary results, the
average, the best epoch. The memory of a batch is only known once it has been tried."""


def split_to_fit(members: Sequence[int], size: int, device: torch.device) -> list[list[int]]:
    """Splits members into parts that should fit on a device.

    Args:
        members: Indices of the members.
        size: Bytes of one member.
        device: Only a CUDA device is taken to have limited memory.
    """
    width = len(members)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        width = max(1, min(width, free // (_COPIES * max(1, size))))
    parts = -(-len(members) // width)
    return [list(members[part::parts]) for part in range(parts)]


def out_of_memory(setting: Setting, members: int, error: BaseException) -> DeviceError:
    """The error of a training of so many members."""
    return DeviceError(
        f"There is not enough memory to train {members} model(s) with batches of "
        f"{setting.batch_size}: {str(error).splitlines()[0][:200]}",
        "Free the device, or lower the batch size: --set batch_size=N.",
    )
