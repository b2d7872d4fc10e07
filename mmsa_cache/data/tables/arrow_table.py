"""What Parquet and Arrow have in common as tables: typed columns, some of them pictures.

A column of pictures holds bytes, or a struct of ``bytes`` and ``path`` as ``datasets`` writes it;
where a row has no bytes its path counts.
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

from .columns import Columns, find_columns

Cell = str | int | float | bool | None
_INFO = "dataset_info.json"
_MAX_INFO = 16 << 20
_MANY_TEXTS, _MOST_RATIO = 256 << 20, 20
"""Characters of texts that a file may have at will, and how far more than it has bytes: of a text
that rows share, each row has one in memory."""
_CUT = MAX_TEXT_BYTES + 4
"""Bytes of a text that is cut, still being longer than a text may be."""


@dataclass(frozen=True, slots=True)
class TypedRows:
    """Some rows of a table."""

    columns: Mapping[str, pa.Array]
    """Of those that hold no pictures."""
    inside: Sequence[bool] = ()
    """Whether the bytes of each row's picture are there; empty without such a column."""
    paths: Sequence[str | None] = ()
    """Where it is else."""


class TypedFile(Protocol):
    """A file of typed columns."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    def pieces(self, columns: Sequence[str], pictures: str | None) -> Iterator[TypedRows]:
        """All rows.

        Args:
            columns: Those to be read that hold no pictures.
            pictures: The one that does.

        Raises:
            ValueError: The file is damaged.
        """


class ArrowTable:
    """A table of typed columns, see `TableFile`; only columns that are used are read.

    Args:
        path: The file.
        root: Where the places of pictures start.
        source: The open file.
        data: Names of columns.

    Raises:
        DataError: A column that is to be used cannot be.
    """

    def __init__(self, path: Path, root: Path, source: TypedFile, data: DataSettings) -> None:
        self._path, self._source = path, source
        # What is no text is seen where rows are checked.
        self._errors = "replace" if data.encoding_errors == "replace" else "surrogateescape"
        self._place = path.relative_to(root).as_posix()
        self.columns = tuple(source.schema.names)
        self._used = find_columns(self.columns, data.columns)
        once = [name for name in self._used.used if self.columns.count(name) == 1]
        fields = {name: source.schema.field(name) for name in once}
        self._fields = tuple(fields)
        self._picture = next((n for n in fields if _is_pictures(fields[n], self._used)), None)
        for name, field in fields.items():
            if name != self._picture and not _is_plain(field.type):
                raise DataError(
                    f"{path.name}: the column {name!r} holds {field.type}, which is no "
                    "text, number or picture.",
                    "Name another one: --column text=NAME (image, label, guid), or [data.columns].",
                )
        self.names = _class_names(path, source.schema)

    def records(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """Row, counted from 1, and the cells of the columns that are used."""
        plain = [name for name in self._fields if name != self._picture]
        row, characters_left = 0, max(_MANY_TEXTS, _MOST_RATIO * self._path.stat().st_size)
        try:
            for rows in self._source.pieces(plain, self._picture):
                cells = {name: self._cells(name, rows.columns[name]) for name in plain}
                texts = (c for column in cells.values() for c in column if isinstance(c, str))
                characters_left -= sum(map(len, texts))
                if characters_left < 0:
                    raise ValueError("its texts take far more memory than the file")
                if self._picture is not None:
                    cells[self._picture] = self._places(row, rows)
                names = tuple(cells)
                for values in zip(*cells.values(), strict=True) if names else ():
                    row += 1
                    yield row, dict(zip(names, values, strict=True))
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path.name}: cannot be read: {error}") from error

    def _places(self, first: int, rows: TypedRows) -> list[Cell]:
        paths = rows.paths or [None] * len(rows.inside)
        return [
            member_path(self._place, f"{self._picture}/{first + index}")
            if is_inside
            else (path or "")
            for index, (is_inside, path) in enumerate(zip(rows.inside, paths, strict=True))
        ]

    def _cells(self, name: str, column: pa.Array) -> list[Cell]:
        if name in self.names:  # datasets writes −1 where there is no class
            return [None if cell == -1 else cell for cell in column.to_pylist()]
        return text_cells(column, self._errors)


def open_typed_table(
    path: Path, root: Path, data: DataSettings, source: Callable[[Path], TypedFile]
) -> ArrowTable:
    """Opens a table; see `mmsa_cache.data.tables`.

    Args:
        path: As of `open_table`; so are the next two.
        root: Data folder.
        data: Names of columns.
        source: Opens the file.
    """
    check_table_path(path, root, data)
    try:
        return ArrowTable(path, root, source(path), data)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: {error}") from error


def typed_rows(batch: pa.RecordBatch, columns: Sequence[str], pictures: str | None) -> TypedRows:
    """Some rows with their pictures, of which only is looked at which are there."""
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
    """Texts, numbers and truth values.

    Args:
        column: Of a type that `_is_plain`; a text that is too long is cut, and is still too long.
        errors: What happens to bytes that are no UTF-8, as of `bytes.decode`.
    """
    if pa.types.is_dictionary(column.type):  # one text for all rows that share it
        indices, values = column.indices, column.dictionary
        if len(values) > len(indices):  # a page's, of which few rows are here
            used = indices.dictionary_encode()
            indices, values = used.indices, values.take(used.dictionary)
        cells = text_cells(values, errors)
        return [None if index is None else cells[index] for index in indices.to_pylist()]
    if pa.types.is_decimal(column.type):
        return [None if cell is None else float(cell) for cell in column.to_pylist()]
    if _is_text(column.type) and (pc.max(pc.binary_length(column)).as_py() or 0) > MAX_TEXT_BYTES:
        column = pc.binary_slice(column.cast(pa.large_binary()), 0, _CUT)
    with contextlib.suppress(UnicodeDecodeError):
        cells = column.to_pylist()
        return [c.decode(errors=errors) if isinstance(c, bytes) else c for c in cells]
    return text_cells(column.cast(pa.large_binary()), errors)


def check_table_path(path: Path, root: Path, data: DataSettings) -> None:
    """Checks that a table lies in the data folder.

    Raises:
        BadFileError: It does not, or is no regular file.
    """
    name = path.relative_to(root).as_posix()
    stat_inside(root.resolve(), name, MAX_CONTAINER_BYTES, follow_links=data.follow_links)


def _is_pictures(field: pa.Field, used: Columns) -> bool:
    kind = field.type
    if field.name != used.image:
        return False
    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
    kind = _plain(kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_plain(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return _is_text(kind) or pa.types.is_decimal(kind) or any(test(kind) for test in tests)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
    return any(test(kind) for test in (*tests, pa.types.is_large_binary))


def _class_names(path: Path, schema: pa.Schema) -> Mapping[str, tuple[str, ...]]:
    """Class names of the columns of codes, as the library ``datasets`` keeps them."""
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
