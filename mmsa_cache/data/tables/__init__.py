"""Tables: files of records, read as a stream.

Each kind has a module with a function ``open_table`` of the arguments of the one here, which
chooses by the file's ending.
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
"""``note(line, cause, detail)``: the cause is the same for all rows with this problem; the detail
says the same of this row, and may be empty. Line 0 is the file."""

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
"""Endings of tables, in lower case; a ``.txt`` is one only where it is a label file."""


_COMPRESSED = {
    ".gz": "gunzip",
    ".tgz": "gunzip",
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".zst": "unzstd",
}
"""Endings, and what unpacks it; pictures are read where they lie, which compression rules out."""


class TableFile(Protocol):
    """A table that was opened; nothing but its beginning was read."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns as they stand in the file, in order."""

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Class names by code of the columns that hold codes; empty where none does."""

    def records(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """Line or row, counted from 1, and cells; one pass a call, never the whole file in memory.

        A picture that lies inside is given as ``FILE!/MEMBER``, without being read. Cells may be
        missing.

        Raises:
            DataError: The file cannot be read on.
        """


def is_table(path: Path) -> bool:
    """Whether a file's ending is a table's; one that is compressed is refused when it is opened."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (suffix in _COMPRESSED and _plain(path).suffix in SUFFIXES)


def _plain(path: Path) -> Path:
    """A compressed file's path without compression."""
    return path.with_suffix(".tar" if path.suffix.lower() == ".tgz" else "")


def open_table(path: Path, root: Path, data: DataSettings, note: Note) -> TableFile:
    """Opens a table.

    Args:
        path: The table.
        root: The data folder: the table must be inside, and pictures inside are named from there.
        data: Encoding, links.
        note: Collects problems of single rows.

    Raises:
        DataError: It is no such table, or it leads out of the data folder.
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
    """A cell as a label, a guid or a text: ``1.0`` of a number is ``1``, none and NaN are empty."""
    if isinstance(cell, str):
        return cell
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
