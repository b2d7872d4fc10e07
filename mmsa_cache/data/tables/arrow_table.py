"""Tables of typed columns: common parts of Parquet and Arrow.

A column of pictures holds bytes, or a struct of ``bytes`` and ``path`` as ``datasets`` writes it;
the path is used if the bytes are null.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.containers.container import MAX_CONTAINER_BYTES
from mmsa_cache.data.files import MAX_TEXT_BYTES, stat_inside
from mmsa_cache.data.picture_paths import member_path
from mmsa_cache.errors import DataError
from mmsa_cache.files.untrusted import parse_json, read_regular
from mmsa_cache.json_value import object_at

from . import Cell
from .columns import Columns, find_columns

_INFO = "dataset_info.json"
_MAX_INFO = 16 << 20
_MANY_TEXTS, _MOST_RATIO = 256 << 20, 20
"""A file's texts may have so many characters, or so many times its bytes: rows that share a text
each have a copy in memory."""
_CUT_BYTES = MAX_TEXT_BYTES + 4
"""Longer texts are cut to this size, which is still longer than a text may be."""


@dataclass(frozen=True, slots=True)
class TypedRows:
    """Consecutive rows of a table."""

    columns: Mapping[str, pa.Array]
    """The columns without pictures."""
    inside: Sequence[bool] = ()
    """Whether each row has the bytes of its picture; empty without a column of pictures."""
    paths: Sequence[str | None] = ()
    """Path of each row's picture; empty without such a column."""


class TypedFile(Protocol):
    """A file of typed columns."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    def batches(self, columns: Sequence[str], pictures: str | None) -> Iterator[TypedRows]:
        """Streams all rows.

        Args:
            columns: Columns to read, without pictures.
            pictures: The column of pictures, if any.

        Raises:
            ValueError: The file is damaged.
        """


class ArrowTable:
    """A table of typed columns, see `TableFile`; only the columns with a role are read.

    Args:
        path: The file.
        root: Where the paths of pictures start.
        file: The open file.
        data: Names of columns.

    Raises:
        DataError: A column with a role holds values of another type.
    """

    def __init__(self, path: Path, root: Path, file: TypedFile, data: DataSettings) -> None:
        self._path, self._file = path, file
        # Bytes that are not UTF-8 become lone surrogates, which checking the row reports.
        self._errors = "replace" if data.encoding_errors == "replace" else "surrogateescape"
        self._relative_path = path.relative_to(root).as_posix()
        self.columns = tuple(file.schema.names)
        self._used = find_columns(self.columns, data.columns)
        once = [name for name in self._used.used if self.columns.count(name) == 1]
        fields = {name: file.schema.field(name) for name in once}
        self._fields = tuple(fields)
        self._picture = next((n for n in fields if _holds_pictures(fields[n], self._used)), None)
        for name, field in fields.items():
            if name != self._picture and not _is_plain_type(field.type):
                raise DataError(
                    f"{path.name}: the column {name!r} holds {field.type}, which is no "
                    "text, number or picture.",
                    "Name another one: --column text=NAME (image, label, guid), or [data.columns].",
                )
        self.names = _class_names(path, file.schema)

    def records(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """See `TableFile`; cells of the columns with a role."""
        plain = [name for name in self._fields if name != self._picture]
        row, characters_left = 0, max(_MANY_TEXTS, _MOST_RATIO * self._path.stat().st_size)
        try:
            for rows in self._file.batches(plain, self._picture):
                cells = {name: self._cells(name, rows.columns[name]) for name in plain}
                texts = (c for column in cells.values() for c in column if isinstance(c, str))
                characters_left -= sum(map(len, texts))
                if characters_left < 0:
                    raise ValueError("its texts take far more memory than the file")
                if self._picture is not None:
                    cells[self._picture] = self._picture_cells(row, rows)
                names = tuple(cells)
                for values in zip(*cells.values(), strict=True) if names else ():
                    row += 1
                    yield row, dict(zip(names, values, strict=True))
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path.name}: cannot be read: {error}") from error

    def _picture_cells(self, first: int, rows: TypedRows) -> list[Cell]:
        paths = rows.paths or [None] * len(rows.inside)
        return [
            member_path(self._relative_path, f"{self._picture}/{first + index}")
            if is_inside
            else (path or "")
            for index, (is_inside, path) in enumerate(zip(rows.inside, paths, strict=True))
        ]

    def _cells(self, name: str, column: pa.Array) -> list[Cell]:
        if name in self.names:  # datasets writes −1 where there is no class
            return [None if cell == -1 else cell for cell in column.to_pylist()]
        return text_cells(column, self._errors)


def open_typed_table(
    path: Path, root: Path, data: DataSettings, open_file: Callable[[Path], TypedFile]
) -> ArrowTable:
    """Opens a table; see `mmsa_cache.data.tables.open_table`.

    Args:
        path: The table.
        root: The data folder.
        data: Names of columns.
        open_file: Opens the file.
    """
    check_table_path(path, root, data)
    try:
        return ArrowTable(path, root, open_file(path), data)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: {error}") from error


def typed_rows(batch: pa.RecordBatch, columns: Sequence[str], pictures: str | None) -> TypedRows:
    """Rows of a batch; of the pictures it is only looked up which are null."""
    plain = {name: batch.column(name) for name in columns}
    if pictures is None:
        return TypedRows(plain)
    held, paths = batch.column(pictures), None
    if pa.types.is_struct(held.type):
        if held.type.get_field_index("path") >= 0:
            paths = pc.struct_field(held, "path").to_pylist()
        held = pc.struct_field(held, "bytes")
    return TypedRows(plain, held.is_valid().to_pylist(), paths or ())


def text_cells(column: pa.Array, errors: str) -> list[Cell]:
    """Converts texts, numbers and truth values; texts that are too long are cut to `_CUT_BYTES`.

    Args:
        column: A column of an `_is_plain_type`.
        errors: Handling of bytes that are not UTF-8, as of `bytes.decode`.
    """
    if pa.types.is_dictionary(column.type):  # rows share a text
        indices, values = column.indices, column.dictionary
        if len(values) > len(indices):  # the dictionary of a page of which few rows are here
            used = indices.dictionary_encode()
            indices, values = used.indices, values.take(used.dictionary)
        cells = text_cells(values, errors)
        return [None if index is None else cells[index] for index in indices.to_pylist()]
    if pa.types.is_decimal(column.type):
        return [None if cell is None else float(cell) for cell in column.to_pylist()]
    if (
        _is_text_type(column.type)
        and (pc.max(pc.binary_length(column)).as_py() or 0) > MAX_TEXT_BYTES
    ):
        column = pc.binary_slice(column.cast(pa.large_binary()), 0, _CUT_BYTES)
    with contextlib.suppress(UnicodeDecodeError):
        cells = column.to_pylist()
        return [c.decode(errors=errors) if isinstance(c, bytes) else c for c in cells]
    return text_cells(column.cast(pa.large_binary()), errors)


def check_table_path(path: Path, root: Path, data: DataSettings) -> None:
    """Checks that a table is in the data folder.

    Raises:
        BadFileError: It is not, or it is not a regular file.
    """
    name = path.relative_to(root).as_posix()
    stat_inside(root.resolve(), name, MAX_CONTAINER_BYTES, follow_links=data.follow_links)


def _holds_pictures(field: pa.Field, used: Columns) -> bool:
    kind = field.type
    if field.name != used.image:
        return False
    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
    kind = _value_type(kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_plain_type(kind: pa.DataType) -> bool:
    kind = _value_type(kind)
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return _is_text_type(kind) or pa.types.is_decimal(kind) or any(test(kind) for test in tests)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text_type(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
    return any(test(kind) for test in (*tests, pa.types.is_large_binary))


def _class_names(path: Path, schema: pa.Schema) -> Mapping[str, tuple[str, ...]]:
    """Class names of the columns of codes, as the library ``datasets`` stores them."""
    class_names: dict[str, tuple[str, ...]] = {}
    with contextlib.suppress(OSError, ValueError):
        metadata = (schema.metadata or {}).get(b"huggingface")
        if metadata is not None:
            features = object_at(parse_json(metadata), "info", "features")
        else:
            info = parse_json(read_regular(path.with_name(_INFO), _MAX_INFO))
            features = object_at(info, "features")
        for name, feature in features.items():
            names = feature.get("names") if isinstance(feature, dict) else None
            if isinstance(names, list) and names and all(isinstance(n, str) for n in names):
                class_names[name] = tuple(names)
    return {name: names for name, names in class_names.items() if name in schema.names}
