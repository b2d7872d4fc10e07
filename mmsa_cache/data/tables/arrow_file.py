"""Arrow files and streams, as ``save_to_disk`` of ``datasets`` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from mmsa_cache.config.sections import DataSettings
from mmsa_cache.data.containers.arrow import arrow_batches
from mmsa_cache.data.containers.container import sound

from . import Note
from .arrow_table import ArrowTable, TypedRows, opened, piece_of

_ROWS = 256
"""Rows that are Python objects at a time."""


def open_table(path: Path, root: Path, data: DataSettings, note: Note) -> ArrowTable:
    """Opens an Arrow file; see `mmsa_cache.data.tables`."""
    return opened(path, root, data, _Source)


class _Source:
    """See `arrow_table.Source`."""

    def __init__(self, path: Path) -> None:
        self.schema, self._batches = arrow_batches(path)

    def pieces(self, columns: Sequence[str], pictures: str | None) -> Iterator[TypedRows]:
        wanted = [*columns, *([pictures] if pictures else [])]
        for batch in self._batches:
            try:
                used = sound(batch.select(wanted))
            except pa.ArrowException as error:
                raise ValueError(f"it is damaged: {error}") from error
            for first in range(0, len(used), _ROWS):
                yield piece_of(used.slice(first, _ROWS), columns, pictures)
