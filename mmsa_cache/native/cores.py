"""The cores that this process may use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mmsa_cache.untrusted import open_plain


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and a container's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):
        with open_plain(Path("/sys/fs/cgroup/cpu.max")) as file:
            quota, period = file.read(100).split()
        return max(1, min(cores or 1, int(quota) // int(period)))
    return cores or 1
