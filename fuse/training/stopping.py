"""When training ends."""

from __future__ import annotations

from fuse.setting import Setting


def is_last_epoch(setting: Setting, epoch: int, best: int) -> bool:
    """Whether training ends after an epoch.

    Args:
        setting: What is trained.
        epoch: Number of the epoch, from 1.
        best: Number of the best epoch so far.
    """
    if epoch == setting.epochs:
        return True
    return setting.keep == "best" and epoch - best >= setting.patience
