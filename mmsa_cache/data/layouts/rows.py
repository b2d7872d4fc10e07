"""The rows of a split, whatever the layout."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.files import FileNames, check_encoding
from mmsa_cache.data.tables.text_lines import with_utf8
from mmsa_cache.errors import DataError, SettingsError

from .class_folders import class_rows
from .classes import LABELS, ClassNames, infer_classes
from .folders import candidate_folders, ensure_inside, find_folder, picture_file_names
from .layout import Layout, find_layout, split_paths
from .listing import LabelRow, Listing, RowSource, raise_problems
from .mvsa import mvsa_rows
from .split_files import check_complete
from .tables import read_tags, table_rows

_LOOK = 100
"""Rows whose files say where all are."""
_MOST_LABELS = 1000


def list_rows(
    data: DataSettings,
    split: str,
    classes: tuple[str, ...],
    *,
    files: bool = True,
    labelled: bool = True,
) -> Listing:
    """Lists the rows of a split in the order of its label file; pairs without one by guid.

    Args:
        data: Folder, and encoding of the texts, hence of a table; other label files are UTF-8.
        split: One of `SPLITS`.
        classes: Class names; a class's code is its place.
        files: Whether the texts and pictures are looked for.
        labelled: Whether labels are looked at.

    Returns:
        The rows as a stream; once it has ended, ``problems`` are all that is wrong.

    Raises:
        SettingsError: No data folder is set, or agreeing rows of something else than raw MVSA.
        DataError: The layout, the file of the split or the folder of the pairs is not found.
    """
    root = data.folder
    check_encoding(data.encoding)
    layout = find_layout(data)
    if data.rows == "agreeing" and layout.name != "mvsa":
        raise SettingsError(
            "rows = 'agreeing' is set, but only raw MVSA has labels of texts and of pictures.",
            "Take rows out of [data].",
        )
    sources = split_paths(root, layout, split)
    if data.root == root:  # no table was given by its name
        check_complete(root, sources)
    listing = Listing(sources[0], layout.name, split, ClassNames(classes), root, labelled)
    listing.read = _source(layout, sources, data)
    if layout.name == "pairs":
        listing.folder = sources[0]
    few = len(classes) < 2 or {*classes} < {*LABELS}
    if data.classes is None and few and split == "train":
        listing.always += (
            f"classes that occur: {', '.join(classes)}; others only if listed under [data] classes",
        )
    if layout.beside:
        names = ", ".join(path.name for path in layout.beside[:5])
        listing.always += (f"tables that are not read: {names} (give one with --data FILE)",)
    if files and layout.name in ("report", "mvsa", "tables"):
        _find_folder(listing, data)
    return listing


def classes_of(data: DataSettings) -> tuple[str, ...]:
    """Class names in the order of their codes: those set, or those that occur in the data.

    The three sentiments count only where they occur, in any split. Where some label is none of
    them it is a mistake if others are, which reading the rows names.

    Returns:
        The classes set; else those of the labels of ``train``, see `classes.infer_classes`.

    Raises:
        DataError: The folder cannot be read.
    """
    if data.classes is not None or data.root is None:
        return data.classes or LABELS
    layout = find_layout(data)
    if layout.name == "classes":
        folders = [files for files in layout.files.values() if len(files) > 1]
        return infer_classes(path.name for files in folders for path in files) or LABELS
    if layout.name not in ("report", "tables"):
        return LABELS
    if layout.name == "report":
        data = with_utf8(data)
    classes: tuple[str, ...] = ()
    for split in layout.splits:
        if classes and not {*classes} < {*LABELS}:
            break
        try:
            of_split = infer_classes(_count(split_paths(data.folder, layout, split), data))
        except DataError:  # reading another split says what is wrong with it
            if not classes:
                raise
            continue
        if not classes or {*of_split} <= {*LABELS}:
            classes = tuple(name for name in LABELS if name in {*classes, *of_split}) or of_split
    return classes or LABELS


def _count(files: Sequence[Path], data: DataSettings) -> Counter[str]:
    """How often each label occurs.

    Raises:
        DataError: There are too many for a column of labels.
    """
    count: Counter[str] = Counter()
    for tag in read_tags(files, data):
        count[tag] += 1
        if len(count) > _MOST_LABELS:
            raise DataError(
                f"{files[0].name} has more than {_MOST_LABELS} different labels.",
                "Name the column of labels with --column label=NAME.",
            )
    return count


def _source(layout: Layout, files: Sequence[Path], data: DataSettings) -> RowSource:
    if layout.name == "report":
        return table_rows(files, with_utf8(data))
    if layout.name == "tables":
        return table_rows(files, data)
    if layout.name == "mvsa":
        return mvsa_rows(files[0], data)
    return class_rows(files, files[0] if layout.name == "pairs" else data.folder)


def _find_folder(listing: Listing, data: DataSettings) -> None:
    """Finds the folders of the texts and pictures that rows name by their guids.

    Raises:
        DataError: No row has a text.
    """
    rows, base = listing.rows(), listing.source.parent
    first = list(itertools.islice(rows, _LOOK))
    lacking = [row for row in first if row.image is None and not row.files]
    texts = pictures = None
    folders = candidate_folders(base)
    if first and first[0].text is None:
        all_rows = itertools.chain(first, rows)
        texts = find_folder(base, folders, ([f"{row.stem}.txt"] for row in all_rows))
        folders = [texts or "", *folders]
    if lacking:
        pictures = find_folder(base, folders, [picture_file_names(row.stem) for row in lacking])
    if first and first[0].text is None and texts is None:
        if pictures is None or data.missing == "refuse":
            raise_problems(listing.problems, listing.source)
            raise DataError(
                f"None of the guids in the label file has a text in {base}/pairs, {base}/data or "
                f"{base}.",
                "Put GUID.txt and GUID.jpg of every row into one of these folders.",
            )
        texts = pictures
    pictures = texts if pictures is None else pictures
    for folder in filter(None, (texts, pictures)):
        ensure_inside(data.folder, base / folder, follow_links=data.follow_links)
    if texts == pictures and listing.layout != "tables":
        listing.folder = base / (texts or "")
    elif texts or pictures or base != data.folder:
        listing.read = _placed(listing.read, base, data, texts or "", pictures or "")


def _placed(
    read: RowSource, base: Path, data: DataSettings, texts: str, pictures: str
) -> RowSource:
    """The rows of a label file with the folders of their texts and pictures."""
    start = base.relative_to(data.folder)
    names = FileNames(data.folder.resolve())

    def placed(listing: Listing) -> Iterator[LabelRow]:
        for row in read(listing):
            stem = row.stem
            picture = (start / pictures / stem).as_posix()
            if row.text is None:
                row.files = (start / texts / stem).as_posix()
                if row.image is None and texts != pictures:
                    absent = "" if data.missing == "allow" else f"{picture}.jpg"
                    row.image = names.first(picture_file_names(picture)) or absent
            elif row.image is None and not row.files:
                row.files = picture
            yield row

    return placed
