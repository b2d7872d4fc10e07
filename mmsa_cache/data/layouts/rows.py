"""Lists the rows of a split in any layout."""

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
"""First rows whose files decide on the folders."""
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
        data: Data folder, and the encoding of texts and tables; other label files are UTF-8.
        split: One of `SPLITS`.
        classes: Class names; a class's code is its index.
        files: Whether to find the folders of texts and pictures.
        labelled: Whether labels are read.

    Returns:
        The listing; its problems are complete once its rows were read.

    Raises:
        SettingsError: No data folder is set, or ``rows = "agreeing"`` of other data than raw MVSA.
        DataError: The layout, the split's file or the pairs' folder is not found.
    """
    root = data.folder
    check_encoding(data.encoding)
    layout = find_layout(data)
    if data.rows == "agreeing" and layout.name != "mvsa":
        raise SettingsError(
            "rows = 'agreeing' is set, but only raw MVSA has labels of texts and of pictures.",
            "Take rows out of [data].",
        )
    paths = split_paths(root, layout, split)
    if data.root == root:  # a folder, not a table
        check_complete(root, paths)
    listing = Listing(paths[0], layout.name, split, ClassNames(classes), root, labelled)
    listing.read = _row_source(layout, paths, data)
    if layout.name == "pairs":
        listing.folder = paths[0]
    few = len(classes) < 2 or {*classes} < {*LABELS}
    if data.classes is None and few and split == "train":
        listing.fixed_notes += (
            f"classes that occur: {', '.join(classes)}; others only if listed under [data] classes",
        )
    if layout.unread:
        names = ", ".join(path.name for path in layout.unread[:5])
        listing.fixed_notes += (f"tables that are not read: {names} (give one with --data FILE)",)
    if files and layout.name in ("report", "mvsa", "tables"):
        _find_pair_folders(listing, data)
    return listing


def classes_of(data: DataSettings) -> tuple[str, ...]:
    """Class names in the order of their codes: those that are set, else those of the data.

    They are inferred from the first split, usually ``train``, see `classes.infer_classes`. Of the
    three sentiments those that occur in any split count; any other label beside them is a mistake,
    which reading the rows reports.

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
            of_split = infer_classes(_count_labels(split_paths(data.folder, layout, split), data))
        except DataError:  # reading that split reports the error
            if not classes:
                raise
            continue
        if not classes or {*of_split} <= {*LABELS}:
            classes = tuple(name for name in LABELS if name in {*classes, *of_split}) or of_split
    return classes or LABELS


def read_labels(
    path: Path, classes: tuple[str, ...] = LABELS, data: DataSettings | None = None
) -> list[LabelRow]:
    """Reads the guids and labels of a ``guid,tag`` file (UTF-8) or of any table.

    Args:
        path: The label file.
        classes: Class names; a class's code is its index.
        data: Columns and encoding of a table.

    Raises:
        DataError: Lists all problems, one line per cause.
    """
    if not path.is_file():
        raise DataError(f"There is no label file {path}.", "Give an existing one with --labels.")
    settings = (data or DataSettings()).model_copy(update={"root": path})
    plain = path.suffix.lower() == ".txt"
    listing = Listing(path, "report" if plain else "tables", "", ClassNames(classes))
    listing.read = table_rows([path], with_utf8(settings) if plain else settings)
    rows = list(listing.rows())
    raise_problems(listing.problems, path)
    return rows


def _count_labels(files: Sequence[Path], data: DataSettings) -> Counter[str]:
    """Counts the labels.

    Raises:
        DataError: There are too many distinct ones for a column of labels.
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


def _row_source(layout: Layout, files: Sequence[Path], data: DataSettings) -> RowSource:
    if layout.name == "report":
        return table_rows(files, with_utf8(data))
    if layout.name == "tables":
        return table_rows(files, data)
    if layout.name == "mvsa":
        return mvsa_rows(files[0], data)
    return class_rows(files, files[0] if layout.name == "pairs" else data.folder)


def _find_pair_folders(listing: Listing, data: DataSettings) -> None:
    """Finds the folders of texts and pictures that are named by guid, and sets them in a listing.

    Raises:
        DataError: No row has a text.
    """
    rows, base = listing.rows(), listing.path.parent
    first = list(itertools.islice(rows, _LOOK))
    lacking = [row for row in first if row.image is None and not row.file_stem]
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
            raise_problems(listing.problems, listing.path)
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
        listing.read = _with_folders(listing.read, base, data, texts or "", pictures or "")


def _with_folders(
    read: RowSource, base: Path, data: DataSettings, texts: str, pictures: str
) -> RowSource:
    """Adds the folders of texts and pictures to the rows of a source."""
    start = base.relative_to(data.folder)
    names = FileNames(data.folder.resolve())

    def placed(listing: Listing) -> Iterator[LabelRow]:
        for row in read(listing):
            stem = row.stem
            picture = (start / pictures / stem).as_posix()
            if row.text is None:
                row.file_stem = (start / texts / stem).as_posix()
                if row.image is None and texts != pictures:
                    absent = "" if data.missing == "allow" else f"{picture}.jpg"
                    row.image = names.find_first(picture_file_names(picture)) or absent
            elif row.image is None and not row.file_stem:
                row.file_stem = picture
            yield row

    return placed
