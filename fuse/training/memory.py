"""How many members the memory of a device holds, and what is said when it holds not even one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fuse.setting import Setting
from mmsa_cache.errors import DeviceError

_COPIES = 12
"""Of a member's weights while it is trained: Adam's means, the gradients and their temporary
results, the average, the best epoch's. What a batch takes is not known before it has been tried."""


def split_to_fit(places: Sequence[int], size: int, device: torch.device) -> list[list[int]]:
    """Members in parts that should fit on a device.

    Args:
        places: The members.
        size: Bytes of one of them.
        device: Anything but a CUDA device has room for all.
    """
    width = len(places)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        width = max(1, min(width, free // (_COPIES * max(1, size))))
    parts = -(-len(places) // width)
    return [list(places[part::parts]) for part in range(parts)]


def out_of_memory(setting: Setting, members: int, error: BaseException) -> DeviceError:
    """What ends the training of so many members."""
    return DeviceError(
        f"There is not enough memory to train {members} model(s) with batches of "
        f"{setting.batch_size}: {str(error).splitlines()[0][:200]}",
        "Free the device, or lower the batch size: --set batch_size=N.",
    )
