"""The project of a folder: the nearest folder upwards that holds ``mmsa.toml``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from mmsa_cache.console import say

from .settings import CONFIG_NAME

_SYSTEM = 0
"""User id of the system's files."""
_called_from: ContextVar[Path | None] = ContextVar("called_from", default=None)


def find_project(folder: Path) -> Path:
    """The nearest folder that holds ``mmsa.toml``; the folder itself if there is none.

    A file above the folder counts only if the user or the system owns it: anybody could write one
    into a folder such as ``/tmp``, to have the data and models read that it names.

    Args:
        folder: An absolute path.
    """
    for candidate in (folder, *folder.parents):
        path = candidate / CONFIG_NAME
        if not path.is_file():
            continue
        if candidate == folder or _is_own(path):
            return candidate
        say(f"Note: {path} belongs to another user: it is not used.")
    return folder


@contextlib.contextmanager
def work_in(project: Path) -> Iterator[None]:
    """Works in a project's folder; the user's relative paths are those of `caller_folder`."""
    before = _called_from.set(caller_folder())
    try:
        with contextlib.chdir(project):
            yield
    finally:
        _called_from.reset(before)


def caller_folder() -> Path:
    """The folder that the command was called in."""
    return _called_from.get() or Path.cwd()


def _is_own(path: Path) -> bool:
    user = getattr(os, "getuid", None)  # not on every system
    return user is None or path.stat().st_uid in (_SYSTEM, user())
