"""Names of temporary files, which tell whether their process has ended."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

TEMPORARY = ".tmp-"
"""Prefix of unfinished files."""
_OLD = 24 * 3600.0
"""Seconds after which a temporary file of another machine counts as abandoned."""
_LIFE = os.urandom(4).hex()
"""Distinguishes this process from earlier ones with the same number."""


def process_mark() -> str:
    """``MACHINE-PROCESS-LIFE``, for names of temporary files of this process."""
    return f"{platform.node()}-{os.getpid()}-{_LIFE}"


def is_abandoned(mark: str) -> bool:
    """Whether a mark (up to a dot) names an ended process of this machine."""
    own = re.match(rf"{re.escape(platform.node())}-(\d+)-([0-9a-f]+)(\.|$)", mark)
    if own is None:  # another machine; its name may begin like this one's
        return False
    number, life = int(own[1]), own[2]
    if number == os.getpid():  # in containers every run may have the same number
        return life != _LIFE
    import psutil  # on Windows, os.kill would end the process

    try:
        return not psutil.pid_exists(number)
    except OverflowError:
        return False


def is_abandoned_file(path: Path) -> bool:
    """Whether a temporary file's process has ended or, on another machine, the file is old."""
    mark = re.search(rf"\.({re.escape(platform.node())}-\d+-\w+)\.\d+$", path.name)
    if mark is not None:
        return is_abandoned(mark[1])
    try:
        return time.time() - path.lstat().st_mtime > _OLD
    except OSError:
        return False
