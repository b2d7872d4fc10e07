"""Stored rows of one modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmsa_cache.store.schema import Shard
from tests.support.shards import ENCODER, make_keys, writer_of


def write_rows(root: Path, pooled: np.ndarray) -> Path:
    """Features of one vector a row, the keys those of `make_keys`; their folder in a store."""
    rows = len(pooled)
    shard = Shard(
        make_keys(0, rows),
        [""] * rows,
        np.zeros(rows + 1, np.int64),
        np.zeros((0, pooled.shape[1]), np.float16),
        pooled.astype(np.float16)[:, None],
        ("mean",),
    )
    writer = writer_of(root, ENCODER)
    with writer.claim(lambda: None):
        writer.publish(shard)
    return writer.folder
