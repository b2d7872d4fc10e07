"""The files of an import, opened and put in a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.console import say
from mmsa_cache.data.table import SampleTable
from mmsa_cache.errors import DataError
from mmsa_cache.files.untrusted import read_regular

from .arrays import npy_source, npz_source
from .place import in_order
from .source import FeatureFile, RefusedError, Rows
from .tables import clip_retrieval_sources, parquet_source

HINT = "Nothing was imported."
_MAX_GUIDS_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is to be imported."""

    modality: str
    name: str
    """Of the encoder that computed it."""
    files: Sequence[Path]
    split: str = "all"
    """Whose samples the rows are."""
    guids: Path | None = None
    """Names of rows that the files do not name, one a line."""
    guid_column: str | None = None
    """Of Parquet files, in place of the usual one."""
    weights: str | None = None
    """Names the encoder's weights; default: a hash of the files and the names."""


def sources(request: ImportRequest, limit: int) -> list[FeatureFile]:
    """Opens the files; refuses all that are none of features at once."""
    sources: list[FeatureFile] = []
    problems = []
    for path in request.files:
        try:
            sources += _open(path, request, limit)
        except RefusedError as error:
            problems.append(f"{path}: {error}")
    rows = sum(source.rows for source in sources)
    if rows > limit:
        problems.append(f"the files have {rows} rows, the splits of the store {limit}")
    if problems:
        raise DataError(f"{len(problems)} problem(s) with the files to import.", HINT, problems)
    return sources


def _open(path: Path, request: ImportRequest, limit: int) -> list[FeatureFile]:
    column = request.guid_column
    if path.is_dir():
        return clip_retrieval_sources(path, request.modality, limit, column)
    if path.suffix == ".npy":
        return [npy_source(path)]
    if path.suffix == ".npz":
        return [npz_source(path, limit)]
    if path.suffix == ".parquet":
        return [parquet_source(path, limit, column)]
    raise RefusedError("expected is .npy, .npz, .parquet or a folder of clip-retrieval")


def guids(
    request: ImportRequest, sources: Sequence[FeatureFile], splits: Mapping[str, SampleTable]
) -> list[str]:
    """Names of all rows."""
    unnamed = sum(source.rows for source in sources if source.guids is None)
    given: list[str] = []
    if request.guids is not None:
        given = _listed(request.guids)
        if len(given) != unnamed:
            raise DataError(
                f"{request.guids} has {len(given)} names, the files have {unnamed} rows "
                "without names.",
                "Write one name a line, in the order of the rows.",
            )
    elif unnamed:
        split, given = in_order(splits, unnamed)
        say(f"The {unnamed} rows have no names: taken to be in the order of the split {split}.")
    names, used = [], 0
    for source in sources:
        own = source.guids
        if own is None:
            own, used = given[used : used + source.rows], used + source.rows
        names += own
    return names


def _listed(path: Path) -> list[str]:
    try:
        return read_regular(path, _MAX_GUIDS_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", "Write one name a line.") from error


def unlike(sources: Sequence[FeatureFile]) -> list[str]:
    """How files differ from the first one."""
    first, problems = sources[0], []
    for source in sources[1:]:
        for what in ("dim", "tokens", "dtype"):
            here, there = getattr(source, what), getattr(first, what)
            if here != there:
                problems.append(f"{source.path}: {what} {here}, {first.path} has {there}")
    return problems


def pieces(sources: Sequence[FeatureFile]) -> Iterator[tuple[int, FeatureFile, Rows]]:
    """All rows piece by piece, with the number of the first one of each."""
    start = 0
    for source in sources:
        end = start + source.rows
        try:
            for rows in source.pieces():
                yield start, source, rows
                start += len(rows)
        except RefusedError as error:
            raise DataError(f"{source.path}: {error}", HINT) from error
        if start != end:
            raise DataError(f"{source.path}: it has other rows than it says.", HINT)
