"""Cached rows of one modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import CacheWriter


def write_rows(directory: Path, pooled: np.ndarray) -> Path:
    """A cache of one vector a row."""
    rows = len(pooled)
    shard = Shard(
        [f"p{i}" for i in range(rows)],
        np.zeros(rows, np.int32),
        [""] * rows,
        np.zeros(rows + 1, np.int64),
        np.zeros((0, pooled.shape[1]), np.float16),
        pooled.astype(np.float16)[:, None],
        ("mean",),
    )
    writer = CacheWriter(directory, {"vectors": rows}, rows)
    with writer.lock(lambda: None):
        writer.publish(shard)
        writer.finish()
    return directory
