"""Rows of tables, and of label files, which are tables of guids and labels.

A table has columns of texts, pictures, labels and guids (see `tables.columns`). Without a column of
texts or of pictures, these are the files ``GUID.txt`` and ``GUID.jpg``. Without guids, rows are
named by their pictures' stems, which do not change when rows move.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.files import EMPTY_TEXT, IMAGE_SUFFIXES, MAX_TEXT_BYTES, is_unicode, strip_text
from mmsa_cache.data.picture_paths import MEMBER_SEPARATOR
from mmsa_cache.data.tables import Cell, cell_text, open_table
from mmsa_cache.data.tables.columns import find_columns

from .folders import PICTURE_FOLDERS, candidate_folders, find_folder
from .listing import LabelRow, Listing, RowSource
from .split_files import are_numbered_parts, table_name

HEADER = "guid,tag"
"""Header of a label file."""
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://([^?#]*)", re.IGNORECASE)
"""A URL; a file named like its last part may lie beside the table."""
_FLOAT = re.compile(r"(\d+)\.0")
_LOOK = 100
"""First rows whose pictures decide on the folder."""
_SHOWN = 10
"""Unread columns that are named."""


def table_rows(files: Sequence[Path], data: DataSettings) -> RowSource:
    """The rows of one split's tables, in the order of the files."""

    def read(listing: Listing) -> Iterator[LabelRow]:
        hash_of_guid: dict[str, int] = {}
        overlapping = len(files) > 1 and not are_numbered_parts(files)
        for path in files:
            listing.findings.file = path.name
            for row in _Table(listing, path, data, several=len(files) > 1).rows():
                content = hash((row.text, row.image, row.label)) if overlapping else 0
                if overlapping and hash_of_guid.get(row.guid) == content:
                    listing.remark("rows in two tables, read once", row.guid)
                    continue
                if overlapping:
                    hash_of_guid[row.guid] = content
                yield row

    return read


def read_tags(files: Sequence[Path], data: DataSettings) -> Iterator[str]:
    """Yields the labels of one split's tables; problems are reported when the rows are read."""
    for path in files:
        table = open_table(path, data.folder, data, lambda *_: None)
        columns = find_columns(table.columns, data.columns)
        if columns.label is not None:
            names = table.names.get(columns.label, ())
            for _, cells in table.records():
                yield _label_text(cells.get(columns.label), names)


class _Table:
    """One table of a listing.

    Args:
        listing: Collects problems and remarks.
        path: The table.
        data: Columns, encoding and data folder.
        several: Whether the split has other tables.
    """

    def __init__(self, listing: Listing, path: Path, data: DataSettings, *, several: bool) -> None:
        self._listing = listing
        self._path = path
        self._several = several
        self._file = open_table(path, data.folder, data, listing.note)
        self._preview = open_table(path, data.folder, data, lambda *_: None)
        """For looking ahead without noting problems."""
        self._chosen = data.columns
        self._columns = find_columns(self._file.columns, data.columns)
        self._pictures = _PictureFinder(
            data.folder.resolve(), path, self._preview_cells(self._columns.image)
        )
        self._guids_are_floats = self._has_float_guids()

    def rows(self) -> Iterator[LabelRow]:
        """Yields the rows; guids may repeat."""
        columns, listing = self._columns, self._listing
        if not self._has_needed_columns():
            return
        if columns.left_out:
            names = ", ".join(repr(name) for name in columns.left_out[:_SHOWN])
            ellipsis = ", …" if len(columns.left_out) > _SHOWN else ""
            tables = f"{listing.path.name}{' and the others' * self._several}"
            listing.remark(f"columns of {tables} that are not read: {names}{ellipsis}")
        classes = () if columns.label is None else self._file.names.get(columns.label, ())
        plain = columns.text is None and columns.image is None
        table = "" if plain else self._path.name
        for line, cells in self._file.records():
            row = LabelRow("", None, line, table=table)
            if columns.text is not None:
                row.text = strip_text(cell_text(cells.get(columns.text)))
                row.flaw = _flaw(row.text)
            if columns.image and not self._locate_picture(row, cell_text(cells.get(columns.image))):
                continue
            row.guid = self._guid(row, cells)
            tag = "" if columns.label is None else _label_text(cells.get(columns.label), classes)
            row.label = listing.code_of(tag, row.guid, line)
            yield row

    def _has_needed_columns(self) -> bool:
        """Whether the table has the columns that it needs; notes which are missing."""
        columns, listing = self._columns, self._listing
        names = list(self._file.columns)
        required = ("text", "image") if listing.split else ("image",)  # guids can be made from it
        missing = [] if columns.guid else [r for r in required if not getattr(columns, r)]
        missing = [role for role in missing if getattr(self._chosen, role) is None]
        if listing.labelled and listing.split == "train" and columns.label is None:
            missing.append("label")
        if listing.layout == "report" and not (columns.guid and columns.label):
            received = repr(",".join(names)) if any(names) else "an empty file"
            listing.note(1, f"expected the header '{HEADER}', received {received}")
            return False
        if not any(names):
            for _ in self._file.records():  # notes the problem of each line
                pass
            return False
        for problem in columns.problems:
            listing.note(1, f"{problem}: {names}")
        if missing:
            listing.note(
                1,
                f"no column {', '.join(missing)}; received {names} "
                f"(name one with --column {missing[0]}=NAME)",
            )
        return not missing and not columns.problems

    def _locate_picture(self, row: LabelRow, cell: str) -> bool:
        """Sets a row's picture path; False, with a problem noted, if it cannot be used."""
        location = self._pictures.find(cell)
        if location is None:
            cause = f"is not a path relative to the folder of {self._path.name}"
            if _URL.match(cell):
                cause = f"is a URL: download the pictures beside {self._path.name} first"
            self._listing.note(row.line, f"the image {cause}", f"image {cell!r} {cause}")
            return False
        row.image, row.file_stem = location
        return True

    def _guid(self, row: LabelRow, cells: Mapping[str, Cell]) -> str:
        column, listing = self._columns.guid, self._listing
        guid = "" if column is None else cell_text(cells.get(column))
        if listing.layout == "report":
            guid = guid.strip()
        if guid and self._guids_are_floats:
            integer = guid.removesuffix(".0")
            listing.remark("guids of a column of floats, read as integers", f"{guid}→{integer}")
            return integer
        if guid or (column is not None and row.image is None):
            return guid
        stem = PurePosixPath(row.image).stem if row.image else row.file_stem.rpartition("/")[2]
        return listing.make_guid(stem, self._path.stem if self._several else stem, row.line)

    def _preview_cells(self, column: str | None) -> Iterator[str]:
        """Yields the cells of a column, noting no problems."""
        if column is not None:
            for _, cells in self._preview.records():
                yield cell_text(cells.get(column))

    def _has_float_guids(self) -> bool:
        """Whether all guids are like ``1.0``, as pandas writes integers of a column with gaps."""
        guids = filter(None, self._preview_cells(self._columns.guid))
        first = next(guids, "")
        if not _FLOAT.fullmatch(first):
            return False
        base = self._path.parent
        if self._columns.text is None and find_folder(
            base, candidate_folders(base), [[f"{first}.txt"]]
        ):
            return False
        return all(map(_FLOAT.fullmatch, guids))


class _PictureFinder:
    """Resolves the picture paths of a table.

    Args:
        root: The data folder, resolved.
        table: The table.
        cells: Cells of its column of pictures.
    """

    def __init__(self, root: Path, table: Path, cells: Iterable[str]) -> None:
        self._root = root
        base = table.parent.resolve()
        start = base.relative_to(root).as_posix() if base.is_relative_to(root) else "."
        self._start = "" if start == "." else f"{start}/"
        self._own = f"{self._start}{table.name}{MEMBER_SEPARATOR}"
        names = [
            [plain, *[plain + suffix for suffix in _missing_suffixes(plain)]]
            for cell in itertools.islice(cells, _LOOK)
            if (plain := self._plain(cell))
        ]
        folders = candidate_folders(base, ("", *PICTURE_FOLDERS, "pairs", "data"))
        stem = table_name(table)
        folders += [stem, f"{stem}_images", *(f"{name}/{stem}" for name in folders if name)]
        folder = find_folder(base, folders, names) if names else None
        self._start += f"{folder}/" if folder else ""

    def find(self, cell: str) -> tuple[str | None, str] | None:
        """Resolves a cell.

        Returns:
            Path of the picture and an empty stem; or, if the suffix is missing, None and the stem.
            None if it is no path in the data folder.
        """
        if not cell.strip() or cell.startswith(self._own):
            return cell.strip(), ""
        name = self._plain(cell)
        if name is None:
            return None
        path = name.removeprefix("/") if name.startswith("/") else self._start + name
        candidates = [path, *(path + suffix for suffix in _missing_suffixes(path))]
        if _URL.match(cell) and not any(map(self._exists, candidates)):
            return None
        if _missing_suffixes(path) and not self._exists(path):
            return None, path
        return path, ""

    def _plain(self, cell: str) -> str | None:
        """Normalizes a cell to a relative path; one with a leading slash is in the data folder."""
        if "\0" in cell or not is_unicode(cell):
            return None
        if url := _URL.match(cell):
            last = PurePosixPath(unquote(url[1])).name
            return last if last not in ("", "..") else None
        name = cell
        if "\\" in cell and not self._exists(self._start + name):
            name = cell.replace("\\", "/")
        if name != name.strip() and not self._exists(self._start + name):
            name = name.strip()
        if ":" in name and PureWindowsPath(name).drive:
            return None
        if name.startswith("/"):
            path = Path(name)
            return f"/{path.relative_to(self._root)}" if path.is_relative_to(self._root) else None
        return name

    def _exists(self, name: str) -> bool:
        return os.path.lexists(self._root / name)


def _missing_suffixes(path: str) -> Sequence[str]:
    """Suffixes that a picture's path may lack."""
    return () if path.lower().endswith(IMAGE_SUFFIXES) else IMAGE_SUFFIXES


def _label_text(cell: Cell, classes: Sequence[str]) -> str:
    """A label as text: a code becomes the name of its class, or empty if it is no code."""
    if classes and isinstance(cell, int) and not isinstance(cell, bool):
        return classes[cell] if 0 <= cell < len(classes) else ""
    return cell_text(cell)


def _flaw(text: str) -> str:
    """Reason why a table's text cannot be used; empty if it can."""
    if not text:
        return EMPTY_TEXT
    if "\0" in text or not is_unicode(text):
        return "text holds a NUL or half a surrogate pair"
    if len(text) * 4 > MAX_TEXT_BYTES < len(text.encode()):
        return f"text is longer than {MAX_TEXT_BYTES} bytes"
    return ""
