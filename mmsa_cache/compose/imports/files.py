"""Opens the files of an import, and reads their rows one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.console import say
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError
from mmsa_cache.files.untrusted import read_regular

from .arrays import open_npy, open_npz
from .matching import guids_by_order
from .source import FeatureFile, RefusedError, Rows
from .tables import open_clip_retrieval, open_parquet

HINT = "Nothing was imported."
_MAX_GUIDS_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """The options of ``mmsa cache import``."""

    modality: str
    name: str
    """Name of the encoder that computed the features."""
    files: Sequence[Path]
    split: str = "all"
    """The rows belong to samples of this split."""
    guids: Path | None = None
    """Names of the rows without names in the files, one a line."""
    guid_column: str | None = None
    """Column of names in Parquet files; default: see `open_parquet`."""
    weights: str | None = None
    """Name of the encoder's weights; default: a hash of the files and the names."""


def open_files(request: ImportRequest, limit: int) -> list[FeatureFile]:
    """Opens the files.

    Args:
        request: Names them.
        limit: Most rows in all.

    Raises:
        DataError: Lists all files that cannot be imported.
    """
    files: list[FeatureFile] = []
    problems = []
    for path in request.files:
        try:
            files += _open(path, request, limit)
        except RefusedError as error:
            problems.append(f"{path}: {error}")
    rows = sum(file.rows for file in files)
    if rows > limit:
        problems.append(f"the files have {rows} rows, the splits of the store {limit}")
    if problems:
        raise DataError(f"{len(problems)} problem(s) with the files to import.", HINT, problems)
    return files


def _open(path: Path, request: ImportRequest, limit: int) -> list[FeatureFile]:
    column = request.guid_column
    if path.is_dir():
        return open_clip_retrieval(path, request.modality, limit, column)
    if path.suffix == ".npy":
        return [open_npy(path)]
    if path.suffix == ".npz":
        return [open_npz(path, limit)]
    if path.suffix == ".parquet":
        return [open_parquet(path, limit, column)]
    raise RefusedError("expected is .npy, .npz, .parquet or a folder of clip-retrieval")


def list_guids(
    request: ImportRequest, files: Sequence[FeatureFile], splits: Mapping[str, SampleTable]
) -> list[str]:
    """The names of all rows.

    Raises:
        DataError: The number of names differs from that of the rows without names.
    """
    unnamed = sum(file.rows for file in files if file.guids is None)
    names: list[str] = []
    if request.guids is not None:
        names = _read_lines(request.guids)
        if len(names) != unnamed:
            raise DataError(
                f"{request.guids} has {len(names)} names, the files have {unnamed} rows "
                "without names.",
                "Write one name a line, in the order of the rows.",
            )
    elif unnamed:
        split, names = guids_by_order(splits, unnamed)
        say(f"The {unnamed} rows have no names: taken to be in the order of the split {split}.")
    guids: list[str] = []
    remaining = iter(names)
    for file in files:
        own = itertools.islice(remaining, file.rows) if file.guids is None else file.guids
        guids += own
    return guids


def _read_lines(path: Path) -> list[str]:
    try:
        return read_regular(path, _MAX_GUIDS_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", "Write one name a line.") from error


def describe_differences(files: Sequence[FeatureFile]) -> list[str]:
    """How the form of files differs from that of the first one."""
    first = files[0]
    return [
        f"{file.path}: {field} {getattr(file, field)}, {first.path} has {getattr(first, field)}"
        for file in files[1:]
        for field in ("dim", "tokens", "dtype")
        if getattr(file, field) != getattr(first, field)
    ]


def read_pieces(files: Sequence[FeatureFile]) -> Iterator[tuple[int, FeatureFile, Rows]]:
    """Reads all rows piece by piece; yields the number of the first row of each piece too."""
    start = 0
    for file in files:
        end = start + file.rows
        try:
            for rows in file.pieces():
                yield start, file, rows
                start += len(rows)
        except RefusedError as error:
            raise DataError(f"{file.path}: {error}", HINT) from error
        if start != end:
            raise DataError(f"{file.path}: it has other rows than it says.", HINT)
