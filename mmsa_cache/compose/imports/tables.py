"""Features in Parquet files, and the output folder of clip-retrieval."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmsa_cache.data.containers.chunks import Chunk, chunks
from mmsa_cache.files.untrusted import open_regular, read_at
from mmsa_cache.names import join_names

from .arrays import open_npy
from .source import (
    MAX_GUID_BYTES,
    MAX_ROW_BYTES,
    PIECE_BYTES,
    FeatureFile,
    RefusedError,
    Rows,
    check_form,
    equal_rows,
    rows_at_once,
)

EMBEDDING, TOKENS, GUID = "embedding", "tokens", "guid"
_BUFFER = 1 << 20
_MAX_FOOTER_BYTES = 16 << 20
_MAX_EXPANSION = 32
"""Most bytes that one byte of a file may unpack to."""
_FLOATS = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}
_FOLDERS = {"image": "img_emb", "text": "text_emb"}
"""Folders of clip-retrieval by modality."""
_NAMES = ("image_path", "key")
"""Columns of its metadata that name a row."""


@contextlib.contextmanager
def _open_table(
    path: Path, limit: int, *names: str
) -> Iterator[tuple[pq.ParquetFile, list[Chunk]]]:
    """Opens a Parquet file without reading rows.

    Args:
        path: The file.
        limit: Most rows.
        names: Columns of names, of which each different name is decoded once.

    Yields:
        The file, and its column chunks.
    """
    try:
        if not path.is_file():
            raise RefusedError("it cannot be read: there is no such file")
        with contextlib.ExitStack() as stack:
            plain = stack.enter_context(open_regular(path))
            metadata, parts = _read_metadata(plain)
            columns = {metadata.schema.column(i).path for i in range(metadata.num_columns)}
            file = stack.enter_context(
                pq.ParquetFile(
                    plain,
                    metadata=metadata,
                    read_dictionary=columns & {*names},
                    pre_buffer=False,
                    buffer_size=_BUFFER,
                )
            )
            if not 0 < file.metadata.num_rows <= limit:
                raise RefusedError(
                    f"it has {file.metadata.num_rows} rows, the store's splits have {limit}"
                )
            yield file, parts
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        reason = str(error).partition("\n")[0][:300]
        raise RefusedError(f"it cannot be read: {reason}") from error


def _read_metadata(file: BufferedReader) -> tuple[pq.FileMetaData, list[Chunk]]:
    """The metadata of a file and its column chunks; refuses an oversized footer."""
    size = file.seek(0, os.SEEK_END)
    file.seek(-min(8, size), os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    if length > _MAX_FOOTER_BYTES:
        raise ValueError(f"its footer claims {length} bytes")
    metadata = pq.read_metadata(file)
    groups = chunks(lambda count, at: read_at(file.fileno(), count, at), size, metadata)
    return metadata, [chunk for group in groups for chunk in group]


def _check_claim(column: str, claimed: int, path: Path) -> None:
    """Refuses a column that would unpack to far more bytes than the file has."""
    size = path.stat().st_size
    if claimed > _MAX_EXPANSION * size + PIECE_BYTES:
        raise RefusedError(f"{column} claims {claimed} bytes in a file of {size}")


def open_parquet(path: Path, limit: int, column: str | None = None) -> FeatureFile:
    """Opens columns ``guid`` and ``embedding`` or, where rows have positions, ``tokens``.

    Args:
        path: The file.
        limit: Most rows that can belong to the store.
        column: Column of the names, instead of ``guid``.

    Raises:
        RefusedError: It has other columns.
    """
    column = column or GUID
    with _open_table(path, limit, column) as (file, parts):
        schema, rows = file.schema_arrow, file.metadata.num_rows
        values = TOKENS if TOKENS in schema.names else EMBEDDING
        if values not in schema.names:
            raise RefusedError(
                f"its columns are {', '.join(schema.names[:20])}; expected is {EMBEDDING}"
            )
        dtype, depth = _list_type(_column_type(schema, values))
        if dtype is None or depth != (2 if values == TOKENS else 1):
            kind = "lists of lists" if values == TOKENS else "lists"
            raise RefusedError(
                f"{values} is {_column_type(schema, values)}, expected are {kind} of floats"
            )
        count = sum(chunk.values for chunk in _chunks_of(parts, values))
        _check_claim(values, count * dtype.itemsize, path)
        each = max(1, -(-count // rows))
        guids = _read_names(file, parts, column, path)
        dim = _read_dim(file, values)
    check_form((rows, dim), dtype)
    if values == EMBEDDING and count > 2 * rows * dim:  # the metadata may lie
        raise RefusedError(f"{values} claims {count} numbers in {rows} rows of {dim}")
    if each * dtype.itemsize > MAX_ROW_BYTES:
        raise RefusedError(f"{values} claims {count} numbers in {rows} rows: too many")
    step = rows_at_once(each * dtype.itemsize)

    def pieces() -> Iterator[Rows]:
        with _open_table(path, limit, column) as (file, _):
            for batch in file.iter_batches(step, columns=[values], use_threads=False):
                yield _to_rows(batch.column(0), dim, tokens=values == TOKENS)

    return FeatureFile(path, rows, dim, values == TOKENS, dtype, guids, pieces)


def _column_type(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of a column."""
    if schema.names.count(name) > 1:
        raise RefusedError(f"several columns are called {name}")
    return schema.field(name).type


def _list_type(kind: pa.DataType) -> tuple[np.dtype[Any] | None, int]:
    """The float type inside lists, None for other types, and the depth of the lists."""
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    dtype = _FLOATS.get(kind)
    return (None if dtype is None else np.dtype(dtype)), depth


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _chunks_of(parts: Sequence[Chunk], name: str) -> list[Chunk]:
    """The chunks of a column."""
    return [chunk for chunk in parts if f"{chunk.path}.".startswith(f"{name}.")]


def _read_names(file: pq.ParquetFile, parts: Sequence[Chunk], column: str, path: Path) -> list[str]:
    """Reads a column of names."""
    if column not in file.schema_arrow.names:
        raise RefusedError(
            f"it has no column {column}, but {join_names(file.schema_arrow.names)}; "
            "name one with --guid-column"
        )
    kind = _column_type(file.schema_arrow, column)
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)):
        raise RefusedError(f"{column} is {kind}, expected are names")
    claimed = sum(chunk.unpacked for chunk in _chunks_of(parts, column))
    _check_claim(column, claimed, path)
    names: list[str] = []
    for batch in file.iter_batches(4096, columns=[column], use_threads=False):
        values = batch.column(0)
        if values.null_count:
            raise RefusedError(f"{column} lacks names")
        distinct = values.dictionary if types.is_dictionary(values.type) else values
        lengths = pc.binary_length(distinct.cast(pa.large_string()))
        if (pc.max(lengths).as_py() or 0) > MAX_GUID_BYTES:
            raise RefusedError(f"{column}: a name is too long")
        names += values.cast(pa.large_string()).to_pylist()
    return names


def _read_dim(file: pq.ParquetFile, values: str) -> int:
    """Number of features of the first vector that is not empty."""
    for batch in file.iter_batches(1, columns=[values], use_threads=False):
        vector = batch.column(0)
        if values == TOKENS:
            vector = vector.flatten()
        lengths = pc.list_value_length(vector).drop_null()
        if len(lengths) and lengths[0].as_py():
            return int(lengths[0].as_py())
    raise RefusedError(f"{values} has no features at all")


def _to_rows(column: pa.Array, dim: int, *, tokens: bool) -> Rows:
    """Converts lists of numbers; rows of another form are listed as bad and hold a zero vector."""
    if not tokens and not column.null_count:
        lengths = pc.list_value_length(column)
        if pc.all(pc.equal(lengths, dim)).as_py():
            return equal_rows(_numbers(column).reshape(-1, dim))
    dtype = _list_type(column.type)[0]
    bad: dict[int, str] = {}
    parts: list[np.ndarray] = []
    for row in range(len(column)):
        value = column[row]
        vectors = value.values if tokens and value.is_valid else column.slice(row, 1)
        lengths = pc.fill_null(pc.list_value_length(vectors), 0)
        wrong = [length for length in pc.unique(lengths).to_pylist() if length != dim]
        if not value.is_valid or not len(vectors):
            bad[row] = "it has no features"
        elif wrong:
            bad[row] = f"it has {wrong[0]} features, the first row has {dim}"
        if row in bad:
            parts.append(np.zeros((1, dim), dtype))
            continue
        parts.append(_numbers(vectors).reshape(-1, dim))
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return Rows(np.concatenate(parts), offsets, bad)


def _numbers(lists: pa.Array) -> np.ndarray:
    """The concatenated numbers of lists; missing ones are NaN."""
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False))


def open_clip_retrieval(
    folder: Path, modality: str, limit: int, column: str | None = None
) -> list[FeatureFile]:
    """Opens the output of ``clip-retrieval inference``: ``img_emb``, ``text_emb``, ``metadata``.

    Args:
        folder: The output folder.
        modality: Which of the embeddings.
        limit: Most rows that can belong to the store.
        column: Metadata column of the names; default: the stem of ``image_path``, or ``key``.

    Raises:
        RefusedError: The folder holds other files.
    """
    name = _FOLDERS[modality]
    arrays = _numbered(folder / name, f"{name}_", ".npy")
    tables = _numbered(folder / "metadata", "metadata_", ".parquet")
    if not arrays or arrays.keys() != tables.keys():
        raise RefusedError(
            f"it has {len(arrays)} files {name}/{name}_N.npy and {len(tables)} "
            "metadata/metadata_N.parquet; expected is one of each for every N"
        )
    sources = []
    for number in sorted(arrays, key=int):
        source = open_npy(arrays[number])
        try:
            guids = _read_metadata_names(tables[number], limit, column)
        except RefusedError as error:
            raise RefusedError(f"metadata/{tables[number].name}: {error}") from error
        if len(guids) != source.rows:
            raise RefusedError(
                f"{arrays[number].name} has {source.rows} rows, {tables[number].name} {len(guids)}"
            )
        sources.append(replace(source, guids=guids))
    return sources


def _numbered(folder: Path, start: str, end: str) -> dict[str, Path]:
    pattern = re.compile(rf"{re.escape(start)}(\d{{1,9}}){re.escape(end)}")
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    return {match[1]: path for path in names if (match := pattern.fullmatch(path.name))}


def _read_metadata_names(path: Path, limit: int, column: str | None) -> list[str]:
    columns: Sequence[str] = (column,) if column else _NAMES
    with _open_table(path, limit, *columns) as (file, parts):
        used = next((name for name in columns if name in file.schema_arrow.names), columns[0])
        names = _read_names(file, parts, used, path)
    return [PurePosixPath(name).stem for name in names] if used == "image_path" else names
