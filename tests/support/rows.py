"""The rows of a small store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsa_cache.store.reader import open_features
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import FeatureWriter
from tests.support.shards import ENCODER, writer_of

Rows = dict[bytes, tuple[str, bytes, bytes]]


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


def rows_of(folder: Path) -> Rows:
    """Operation and features of every row of an encoder, by key; no row is there twice."""
    found = [
        (
            key.tobytes(),
            (
                shard.operations[i],
                shard.tokens[shard.offsets[i] : shard.offsets[i + 1]].tobytes(),
                shard.pooled[i].tobytes(),
            ),
        )
        for shard in open_features(folder).shards
        for i, key in enumerate(shard.keys)
    ]
    assert len(dict(found)) == len(found)
    return dict(found)
