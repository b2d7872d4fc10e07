"""Parquet files, read page by page; pictures only where it is not known that all are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.containers.parquet import leaf_of, open_parquet
from mmsa_cache.errors import DataError

from . import Note
from .arrow_table import ArrowTable, Piece, checked_path, piece_of

_ROWS, _ROWS_OF_PICTURES = 4096, 16
"""Rows that are decoded at a time."""


def open_table(path: Path, root: Path, data: DataSettings, note: Note) -> ArrowTable:
    """Opens a Parquet file; see `mmsa_cache.data.tables`."""
    checked_path(path, root, data)
    try:
        return ArrowTable(path, root, _Source(path), data)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name}: {error}") from error


class _Source:
    """See `arrow_table.Source`."""

    def __init__(self, path: Path) -> None:
        self._file = open_parquet(path)
        self.schema = self._file.schema_arrow

    def pieces(self, columns: Sequence[str], pictures: str | None) -> Iterator[Piece]:
        for group in range(self._file.metadata.num_row_groups):
            complete = bool(columns and pictures and self._has_all(group, pictures))
            wanted = [*columns] if complete or not pictures else [*columns, pictures]
            rows = _ROWS if wanted == [*columns] else _ROWS_OF_PICTURES
            try:
                for batch in self._file.iter_batches(rows, row_groups=[group], columns=wanted):
                    if complete:
                        plain = {name: batch.column(name) for name in columns}
                        yield Piece(plain, [True] * len(batch))
                    else:
                        yield piece_of(batch, columns, pictures)
            except pa.ArrowException as error:
                raise ValueError(f"it is damaged: {error}") from error

    def _has_all(self, group: int, pictures: str) -> bool:
        """Whether a row group states that no row is without a picture."""
        leaf = leaf_of(self.schema.field(pictures))
        about = self._file.metadata.row_group(group)
        chunks = [about.column(place) for place in range(about.num_columns)]
        found = next(chunk for chunk in chunks if chunk.path_in_schema == leaf)
        statistics = found.statistics if found.is_stats_set else None
        return bool(statistics and statistics.has_null_count and statistics.null_count == 0)
