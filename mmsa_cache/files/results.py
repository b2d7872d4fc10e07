"""Files that the user asks for by their names: ``--out``, ``--html``."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.errors import SettingsError

from .disk import make_folders, write_atomically
from .paths import check_target, resolve_declared


def check_outputs(*paths: Path | None, force: bool) -> None:
    """Checks, before any work, that results may be written.

    Args:
        paths: The files; None: nothing is written.
        force: Whether files that are there are replaced.

    Raises:
        SettingsError: One is there already, or is no regular file.
        LinkError: One is a link, or lies behind one.
    """
    for path in filter(None, paths):
        place = resolve_declared(path)
        check_target(place, replaced=True)
        if place.exists() and not force:
            raise SettingsError(
                f"{path} exists already.", "Give another name, or --force to replace it."
            )


def write_result(path: Path, content: str) -> None:
    """Writes a file that was claimed, whole or not at all; makes its folder.

    Raises:
        DiskError: It stays as it was.
    """
    place = resolve_declared(path)
    make_folders(place.parent)
    write_atomically(place, content.encode())
