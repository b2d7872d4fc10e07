"""Files that the user names for results: ``--out``, ``--html``."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.errors import SettingsError

from .disk import make_folders, write_atomically
from .paths import check_target, resolve_declared


def check_outputs(*paths: Path | None, force: bool) -> None:
    """Checks, before any work, that results may be written.

    Args:
        paths: The files; None is skipped.
        force: Whether existing files may be replaced.

    Raises:
        SettingsError: A file exists already, or is no regular file.
        LinkError: A path is a link, or lies behind one.
    """
    for path in filter(None, paths):
        target = resolve_declared(path)
        check_target(target, replaced=True)
        if target.exists() and not force:
            raise SettingsError(
                f"{path} exists already.", "Give another name, or --force to replace it."
            )


def write_result(path: Path, content: str) -> None:
    """Writes a file atomically, and makes its folder; see `check_outputs`.

    Raises:
        DiskError: A write failed; the file is unchanged.
    """
    target = resolve_declared(path)
    make_folders(target.parent)
    write_atomically(target, content.encode())
