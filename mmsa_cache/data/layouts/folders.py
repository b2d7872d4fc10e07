"""Finds the folders of the texts and pictures that a label file names."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmsa_cache.data.files import FOLLOW_HINT, IMAGE_SUFFIXES, LEADS_OUT, FileNames
from mmsa_cache.errors import DataError

PAIR_FOLDERS = ("pairs", "data", "")
"""Folders of pairs beside their label file; the empty name is the label file's own folder."""
PICTURE_FOLDERS = ("images", "image", "img", "imgs", "pictures", "photos")
_TEXT_FOLDERS = ("texts", "text")
_LOOK = 100
"""First rows whose files decide on the folder."""


def candidate_folders(base: Path, first: Sequence[str] = PAIR_FOLDERS) -> list[str]:
    """Existing folders beside a label file that may hold its files, as spelled on disk.

    Args:
        base: Folder of the label file.
        first: Names of preferred folders.
    """
    existing = {"": "", **{name.lower(): name for name in list_names(base, folders=True)}}
    names = dict.fromkeys((*first, *PICTURE_FOLDERS, *_TEXT_FOLDERS))
    return [existing[name] for name in names if name in existing]


def list_names(folder: Path, *, folders: bool) -> list[str]:
    """Sorted names of the files, or of the folders, in a folder."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a loop of links
                if entry.is_dir() if folders else entry.is_file():
                    names.append(entry.name)
    return sorted(names)


def find_folder(base: Path, folders: Sequence[str], rows: Iterable[Sequence[str]]) -> str | None:
    """The first folder that holds a file of the first rows, or else of any row.

    Args:
        base: Folder that contains the folders.
        folders: Names of folders.
        rows: Possible names of each row's file.

    Returns:
        Name of the folder; None if none holds a file.
    """
    names, remaining = FileNames(base), iter(rows)

    def holds(folder: str, candidates: Iterable[Sequence[str]]) -> bool:
        start = f"{folder}/" if folder else ""
        return any(names.find_first([start + name for name in row]) for row in candidates)

    first = list(itertools.islice(remaining, _LOOK))
    by_first = (folder for folder in folders if holds(folder, first))
    by_row = (folder for row in remaining for folder in folders if holds(folder, [row]))
    return next(itertools.chain(by_first, by_row), None)


def picture_file_names(stem: str) -> list[str]:
    """Possible names of the picture of a stem."""
    return [stem + suffix for suffix in IMAGE_SUFFIXES]


def ensure_inside(root: Path, path: Path, *, follow_links: bool = False) -> Path:
    """Returns a path in the data folder after checking it.

    Raises:
        DataError: It is a link that leads out of the folder, and links are not followed.
    """
    if not follow_links and path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{path}: {LEADS_OUT},{FOLLOW_HINT}.",
            "Put what it leads to into the data folder, or give --data the folder it leads to.",
        )
    return path
