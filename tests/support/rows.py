"""The rows of a small store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsa_cache.store.reader import open_features
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import FeatureWriter
from tests.support.shards import ENCODER, Row, rows_of, writer_of

Rows = dict[bytes, Row]


@contextmanager
def claimed(root: Path, part: tuple[int, int] = (0, 1)) -> Iterator[FeatureWriter]:
    """A writer of the store that may compute a part of the rows."""
    writer = writer_of(root)
    with writer.claim(lambda: None, part):
        yield writer


def stored(root: Path) -> list[Shard]:
    return list(open_features(ENCODER.folder(root)).shards)


def row_bytes(root: Path) -> Rows:
    """See `rows_of`."""
    return rows_of(ENCODER.folder(root))
