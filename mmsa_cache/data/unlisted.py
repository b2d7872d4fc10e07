"""Texts and pictures that no label file names."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from mmsa_cache.data.layouts.layout import Layout
from mmsa_cache.data.layouts.listing import Listing

from .files import IMAGE_SUFFIXES

nfc = functools.partial(unicodedata.normalize, "NFC")


def find_unlisted(layout: Layout, listings: Sequence[Listing], pictures: set[Path]) -> list[str]:
    """Names of texts and pictures in the folders of the listed ones, without dotfiles.

    Args:
        layout: Layout of the data folder.
        listings: Its splits, read to their ends.
        pictures: Paths of the listed pictures.
    """
    label_files = {path for files in layout.files.values() for path in files}
    listed = {nfc(guid) for listing in listings for guid in listing.first_line}
    if layout.name == "classes":
        return []
    if layout.name == "tables":
        folders = {path.parent for path in pictures if path.parent.is_dir()}
        suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    else:
        folders = {listing.folder.resolve() for listing in listings if listing.first_line}
        suffixes = (".txt", *IMAGE_SUFFIXES)
    resolved = {path.resolve() for path in label_files}
    paths = [
        path
        for folder in folders
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes
        and not path.name.startswith(".")
        and path not in resolved
        and (path not in pictures if layout.name == "tables" else nfc(path.stem) not in listed)
    ]
    return sorted(os.fsencode(path.name).decode("utf-8", "backslashreplace") for path in paths)
