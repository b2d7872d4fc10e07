"""Names of temporary files, and whether the process that made one has ended."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

TEMPORARY = ".tmp-"
"""Start of the names of unfinished files."""
_OLD = 24 * 3600.0
"""Seconds after which a temporary file of another machine is left over."""
_LIFE = os.urandom(4).hex()
"""Tells this process from earlier ones of the same number."""


def process_mark() -> str:
    """``MACHINE-PROCESS-LIFE``, for names of temporary files of this process."""
    return f"{platform.node()}-{os.getpid()}-{_LIFE}"


def is_abandoned(mark: str) -> bool:
    """Whether a mark (up to a dot) names an ended process of this machine."""
    own = re.match(rf"{re.escape(platform.node())}-(\d+)-([0-9a-f]+)(\.|$)", mark)
    if own is None:  # of another machine, whose name may begin like this one's
        return False
    number, life = int(own[1]), own[2]
    if number == os.getpid():  # in a container every run may have the same number
        return life != _LIFE
    import psutil  # os.kill would end a process of Windows

    try:
        return not psutil.pid_exists(number)
    except OverflowError:
        return False


def is_abandoned_file(path: Path) -> bool:
    """Whether a temporary file belongs to no process any more: none of this machine, or too old."""
    mark = re.search(rf"\.({re.escape(platform.node())}-\d+-\w+)\.\d+$", path.name)
    if mark is not None:
        return is_abandoned(mark[1])
    try:
        return time.time() - path.lstat().st_mtime > _OLD
    except OSError:
        return False
