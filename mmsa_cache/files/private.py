"""Folders that nobody but this user can write to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mmsa_cache.errors import MmsaError

from .disk import DISK, make_folders
from .paths import resolve_declared


def private_folder(name: str) -> Path | None:
    """A folder of the user's cache directory, for code that is loaded again later.

    Args:
        name: What it is for.

    Returns:
        The folder; None where it cannot be made, or others can write to it or to those above it.
    """
    try:
        home = resolve_declared(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))
        make_folders(home)
        found = home / "mmsa" / name
        for folder in (home, found.parent, found):
            if folder != home:
                DISK.make_folder(folder, mode=stat.S_IRWXU)
            if not _is_private(folder):  # nor is anything put there, as by sudo in a user's home
                return None
        return found.absolute()
    except (OSError, RuntimeError, MmsaError):  # as of a home that is not there
        return None


def _is_private(folder: Path) -> bool:
    if not hasattr(os, "getuid"):  # as on Windows, where a user's folders are his own
        return True
    found = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid == os.getuid() and not found.st_mode & others
