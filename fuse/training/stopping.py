"""When a training ends."""

from __future__ import annotations

from fuse.setting import Setting


def is_last_epoch(setting: Setting, epoch: int, best: int) -> bool:
    """Whether an epoch is the last one of a training.

    Args:
        setting: What is trained.
        epoch: Epochs that are done.
        best: The best of them, from 1.
    """
    if epoch == setting.epochs:
        return True
    return setting.keep == "best" and epoch - best >= setting.patience
