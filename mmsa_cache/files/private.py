"""Folders that nobody but this user can write to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mmsa_cache.errors import MmsaError

from .disk import DISK, make_folders
from .paths import declared


def private_folder(name: str) -> Path | None:
    """A folder of the user's cache directory, for code that is loaded again later.

    Args:
        name: What it is for.

    Returns:
        The folder; None where it cannot be made, or others can write to it or to those above it.
    """
    try:
        home = declared(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))
        make_folders(home)
        folders = home, home / "mmsa", home / "mmsa" / name
        for folder in folders[1:]:
            DISK.make_folder(folder, mode=stat.S_IRWXU)
        return folders[-1].absolute() if all(map(_is_private, folders)) else None
    except (OSError, RuntimeError, MmsaError):  # as of a home that is not there
        return None


def _is_private(folder: Path) -> bool:
    if not hasattr(os, "getuid"):  # as on Windows, where a user's folders are his own
        return True
    found = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid == os.getuid() and not found.st_mode & others
