"""Arrow files and streams, as ``save_to_disk`` of ``datasets`` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.containers.arrow import arrow_batches
from mmsa_cache.data.containers.container import validate_batch

from . import Note
from .arrow_table import ArrowTable, TypedRows, open_typed_table, typed_rows

_ROWS = 256
"""Rows that are Python objects at a time."""


def open_table(path: Path, root: Path, data: DataSettings, note: Note) -> ArrowTable:
    """Opens an Arrow file; see `mmsa_cache.data.tables`."""
    return open_typed_table(path, root, data, _ArrowFile)


class _ArrowFile:
    """See `arrow_table.TypedFile`."""

    def __init__(self, path: Path) -> None:
        self.schema, self._batches = arrow_batches(path)

    def batches(self, columns: Sequence[str], pictures: str | None) -> Iterator[TypedRows]:
        names = [*columns, *([pictures] if pictures else [])]
        for batch in self._batches:
            try:
                used = validate_batch(batch.select(names))
            except pa.ArrowException as error:
                raise ValueError(f"it is damaged: {error}") from error
            for first in range(0, len(used), _ROWS):
                yield typed_rows(used.slice(first, _ROWS), columns, pictures)
