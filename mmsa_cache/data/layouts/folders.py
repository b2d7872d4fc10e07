"""In which folder the texts and pictures are that a label file names."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmsa_cache.data.files import FOLLOW_HINT, IMAGE_SUFFIXES, LEADS_OUT, FileNames
from mmsa_cache.errors import DataError

PAIR_FOLDERS = ("pairs", "data", "")
"""Folders that hold pairs, beside their label file; the empty name is the label file's own."""
PICTURE_FOLDERS = ("images", "image", "img", "imgs", "pictures", "photos")
_TEXT_FOLDERS = ("texts", "text")
_LOOK = 100
"""Rows whose files decide."""


def candidate_folders(base: Path, first: Sequence[str] = PAIR_FOLDERS) -> list[str]:
    """The folders beside a label file that may hold its files, as they are called there.

    Args:
        base: Where the label file is.
        first: Those that come first.
    """
    existing = {"": "", **{name.lower(): name for name in list_names(base, folders=True)}}
    names = dict.fromkeys((*first, *PICTURE_FOLDERS, *_TEXT_FOLDERS))
    return [existing[name] for name in names if name in existing]


def list_names(folder: Path, *, folders: bool) -> list[str]:
    """Names of the files of a folder, or of its folders, in order."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a loop of links
                if entry.is_dir() if folders else entry.is_file():
                    names.append(entry.name)
    return sorted(names)


def find_folder(base: Path, folders: Sequence[str], rows: Iterable[Sequence[str]]) -> str | None:
    """The first folder that holds a file of the first rows, else of any row.

    Args:
        base: Where the folders are.
        folders: Their names.
        rows: Of each row, what its file may be called.

    Returns:
        The folder's name; None where none holds any.
    """
    names, remaining = FileNames(base), iter(rows)

    def holds(folder: str, candidates: Iterable[Sequence[str]]) -> bool:
        start = f"{folder}/" if folder else ""
        return any(names.first([start + name for name in row]) for row in candidates)

    first = list(itertools.islice(remaining, _LOOK))
    folder_name = next((folder for folder in folders if holds(folder, first)), None)
    if folder_name is None:
        folder_name = next(
            (folder for row in remaining for folder in folders if holds(folder, [row])), None
        )
    return folder_name


def picture_file_names(stem: str) -> list[str]:
    """What the picture of a stem may be called."""
    return [stem + suffix for suffix in IMAGE_SUFFIXES]


def ensure_inside(root: Path, path: Path, *, follow_links: bool = False) -> Path:
    """A path in the data folder.

    Raises:
        DataError: It is a link that leads out of it, and links are not followed.
    """
    if not follow_links and path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{path}: {LEADS_OUT},{FOLLOW_HINT}.",
            "Put what it leads to into the data folder, or give --data the folder it leads to.",
        )
    return path
