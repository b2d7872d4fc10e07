"""Folders that only this user can write to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mmsa_cache.errors import MmsaError

from .disk import DISK, make_folders
from .paths import resolve_declared


def private_folder(name: str) -> Path | None:
    """A folder in the user's cache directory, for compiled code that is loaded again.

    Args:
        name: Name of the folder.

    Returns:
        The folder; None if it cannot be made, or others can write to it or to its parents.
    """
    try:
        home = resolve_declared(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))
        make_folders(home)
        path = home / "mmsa" / name
        for folder in (home, path.parent, path):
            if folder != home:
                DISK.make_folder(folder, mode=stat.S_IRWXU)
            if not _is_private(folder):  # e.g. under sudo in another user's home
                return None
        return path.absolute()
    except (OSError, RuntimeError, MmsaError):  # e.g. there is no home
        return None


def _is_private(folder: Path) -> bool:
    if not hasattr(os, "getuid"):  # on Windows, where a user's folders are private
        return True
    status = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return status.st_uid == os.getuid() and not status.st_mode & others
