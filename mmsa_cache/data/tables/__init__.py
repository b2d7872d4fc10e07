"""Tables: files of records that are streamed.

Each kind has a module with a function ``open_table``, which has the arguments of the one here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, cast

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.errors import DataError

Cell = str | int | float | bool | None
Note = Callable[[int, str, str], None]
"""``note(line, cause, detail)``: the cause is equal for all rows with the same problem; the detail
describes it for this row, and may be empty. Line 0 means the whole file."""

_MODULES = {
    ".csv": "csv_file",
    ".tsv": "csv_file",
    ".txt": "csv_file",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".parquet": "parquet_file",
    ".arrow": "arrow_file",
    ".tar": "tar_file",
}
SUFFIXES = tuple(suffix for suffix in _MODULES if suffix != ".txt")
"""Suffixes of tables in lower case, without ``.txt``, which may be a label file or a text."""
_COMPRESSED = {
    ".gz": "gunzip",
    ".tgz": "gunzip",
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".zst": "unzstd",
}
"""Suffix → command to unpack; compressed files are refused, since pictures are read by offset."""


class TableFile(Protocol):
    """An open table, of which only the beginning was read."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns in the order of the file."""

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Column of class codes → class names in the order of their codes."""

    def records(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """Streams line or row, counted from 1, and cells by column; each call starts anew.

        A picture inside the file is ``FILE!/MEMBER`` and stays unread. Cells may be missing.

        Raises:
            DataError: The rest of the file cannot be read.
        """


def is_table(path: Path) -> bool:
    """Whether a file has a table's suffix, compressed or not; compressed ones cannot be opened."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (suffix in _COMPRESSED and _plain(path).suffix in SUFFIXES)


def _plain(path: Path) -> Path:
    """Path of a compressed file's content."""
    return path.with_suffix(".tar" if path.suffix.lower() == ".tgz" else "")


def open_table(path: Path, root: Path, data: DataSettings, note: Note) -> TableFile:
    """Opens a table.

    Args:
        path: The table.
        root: The data folder, which must contain the table; paths of pictures start there.
        data: Encoding, links, names of columns.
        note: Collects the problems of rows.

    Raises:
        DataError: It is not a table, or outside of the data folder.
    """
    suffix = path.suffix.lower()
    if suffix in _COMPRESSED:
        unpack = f"{_COMPRESSED[suffix]} -c {path.name} > {_plain(path).name}"
        raise DataError(f"{path.name} is compressed.", f"Unpack it: {unpack}")
    if suffix not in _MODULES:
        raise DataError(
            f"{path.name} is no table that can be read.", f"Give one of {', '.join(SUFFIXES)}."
        )
    module = importlib.import_module(f".{_MODULES[suffix]}", __name__)
    return cast(TableFile, module.open_table(path, root, data, note))


def cell_text(cell: Cell) -> str:
    """A cell as text: the float ``1.0`` becomes ``1``; None and NaN become empty."""
    if isinstance(cell, str):
        return cell
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
