"""The rows of a split, whatever the layout."""

from __future__ import annotations

import os

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.files import check_encoding
from mmsa_cache.errors import DataError

from .layout import find_layout, pairs_folder, source_of, stems
from .listing import LABELS, UNLABELLED, LabelRow, Listing, raise_problems
from .mvsa import list_mvsa
from .report import list_report
from .tables import list_table, table_records


def list_rows(data: DataSettings, split: str, classes: tuple[str, ...]) -> Listing:
    """Lists the rows of a split in the order of its label file; pairs without one by guid.

    Args:
        data: Folder, and encoding of the texts, hence of a table; other label files are UTF-8.
        split: One of `SPLITS`.
        classes: Class names; a class's code is its place.

    Returns:
        The rows, and in ``problems`` all that is wrong with the label file.

    Raises:
        SettingsError: No data folder is set.
        DataError: The layout, the file of the split or the folder of the pairs is not found.
    """
    root = data.folder
    layout = find_layout(root)
    listing = Listing(source_of(root, layout, split), layout.name, classes, root)
    if layout.name == "tables":
        check_encoding(data.encoding)
        list_table(listing, split, data)
    elif layout.name == "mvsa":
        list_mvsa(listing)
    elif layout.name == "pairs":
        _list_pairs(listing)
    else:
        list_report(listing)
    if not listing.rows and not listing.problems:
        listing.note(0, "no rows after the header" if not listing.dropped else "no row is left")
    if split == "train":
        for row in listing.rows:
            if row.label is None:
                listing.note(row.line, f"guid {row.guid} has the label null in the training file")
    readable = [*listing.rows, *listing.refused]
    if layout.name in ("report", "mvsa") and readable:
        try:
            listing.folder = pairs_folder(root, readable)
        except DataError:
            raise_problems(listing.problems, listing.source)
            raise
    return listing


def classes_of(data: DataSettings) -> tuple[str, ...]:
    """Class names in the order of their codes: those set, or those of the data.

    A table's own labels count only where none of the three sentiments is among them: elsewhere a
    label that is none is a mistake, which reading the rows names.

    Returns:
        The classes set; else a table's labels of ``train`` in alphabetical order, or the three
        sentiments.

    Raises:
        DataError: The folder cannot be read.
    """
    if data.classes is not None or data.root is None:
        return data.classes or LABELS
    root = data.root
    layout = find_layout(root)
    if layout.name != "tables" or not layout.files["train"]:
        return LABELS
    listing = Listing(source_of(root, layout, "train"), layout.name, folder=root)
    check_encoding(data.encoding)
    found = {
        tag
        for _, record in table_records(listing, "train", data)
        if (tag := record.get("label", record.get("tag"))) and tag != UNLABELLED
    }
    usual = {tag.strip().lower() for tag in found} & set(LABELS)
    return LABELS if usual or len(found) < 2 else tuple(sorted(found))


def _list_pairs(listing: Listing) -> None:
    """Half a pair is a row too: reading it says what is missing."""
    listing.folder = listing.source
    texts, images = stems(listing.folder)
    for guid in sorted(texts | images, key=os.fsencode):
        listing.add(LabelRow(guid, None, 0), UNLABELLED)
