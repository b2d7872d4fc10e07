"""A folder per class: ``DATA/positive/1.jpg`` with its text ``1.txt`` beside it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from mmsa_cache.data.files import IMAGE_SUFFIXES

from .folders import PAIR_FOLDERS, PICTURE_FOLDERS, ensure_inside
from .listing import LabelRow, Listing, RowSource


def pair_stems(folder: Path) -> tuple[set[str], set[str]]:
    """Stems of the text files and of the pictures in a folder, without dotfiles."""
    files = [PurePath(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    files = [file for file in files if not file.name.startswith(".")]
    texts = {file.stem for file in files if file.suffix == ".txt"}
    return texts, {file.stem for file in files if file.suffix.lower() in IMAGE_SUFFIXES}


def class_folders(root: Path) -> list[Path]:
    """The class folders in a folder, sorted: those that hold pictures, if there are several.

    Args:
        root: The data folder, or a split's.
    """
    no_classes = {*PAIR_FOLDERS, *PICTURE_FOLDERS, "texts", "text"}
    folders = [
        path
        for path in sorted(root.iterdir())
        if path.name.lower() not in no_classes
        and not path.name.startswith(".")
        and path.is_dir()
        and pair_stems(ensure_inside(root, path))[1]
    ]
    return folders if len(folders) > 1 else []


def class_rows(folders: Sequence[Path], root: Path) -> RowSource:
    """The rows of class folders, or unlabelled rows of one folder of pairs.

    Args:
        folders: One per class and named by it, or one folder of pairs.
        root: Where the paths of their files start.
    """

    def read(listing: Listing) -> Iterator[LabelRow]:
        names = {folder: set.union(*pair_stems(folder)) for folder in folders}
        count = Counter(stem for stems in names.values() for stem in stems)
        for folder, stems in names.items():
            tag = folder.name if len(folders) > 1 else ""
            start = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
            for stem in sorted(stems, key=os.fsencode):
                # Half a pair is a row too: reading it reports what is missing.
                guid = stem if count[stem] == 1 else f"{folder.name}-{stem}"
                label = listing.code_of(tag, guid, 0)
                yield LabelRow(guid, label, 0, file_stem=f"{start}{stem}" if start else "")

    return read
