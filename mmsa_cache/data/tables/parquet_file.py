"""Parquet files, read page by page; pictures are read only if some may be null."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.containers.parquet import ParquetReader, leaf_name

from . import Note
from .arrow_table import ArrowTable, TypedRows, open_typed_table, typed_rows

_ROWS, _ROWS_OF_PICTURES = 4096, 16
"""Rows that are decoded at a time."""


def open_table(path: Path, root: Path, data: DataSettings, note: Note) -> ArrowTable:
    """Opens a Parquet file; see `mmsa_cache.data.tables`."""
    return open_typed_table(path, root, data, _ParquetFile)


class _ParquetFile:
    """See `arrow_table.TypedFile`."""

    def __init__(self, path: Path) -> None:
        self._file = ParquetReader(path)
        self.schema = self._file.schema

    def batches(self, columns: Sequence[str], pictures: str | None) -> Iterator[TypedRows]:
        for group in range(self._file.metadata.num_row_groups):
            if pictures is not None and not (columns and self._has_all_pictures(group, pictures)):
                names = [*columns, pictures]
                for batch in self._file.batches(group, names, _ROWS_OF_PICTURES):
                    yield typed_rows(batch, columns, pictures)
                continue
            for batch in self._file.batches(group, columns, _ROWS):
                plain = {name: batch.column(name) for name in columns}
                yield TypedRows(plain, [True] * len(batch) if pictures else ())

    def _has_all_pictures(self, group: int, pictures: str) -> bool:
        """Whether a row group states that its pictures have no nulls."""
        leaf = leaf_name(self.schema.field(pictures))
        return any(c.path == leaf and c.nulls == 0 for c in self._file.chunks[group])
