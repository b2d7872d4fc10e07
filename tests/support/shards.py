"""A small cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import CacheWriter

FIELDS = {"encoder": "tiny", "size": 8}


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir())}


def make_shard(first: int, rows: int, seed: int, dim: int = 6) -> Shard:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, rows)
    return Shard(
        [f"p{first + i}" for i in range(rows)],
        np.zeros(rows, np.int32),
        [""] * rows,
        np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
        rng.standard_normal((lengths.sum(), dim)).astype(np.float16),
        rng.standard_normal((rows, 2, dim)).astype(np.float16),
        ("cls", "mean"),
    )


SHARDS = [make_shard(0, 4, 1), make_shard(4, 4, 2), make_shard(8, 2, 3)]


def write(directory: Path, count: int = 3) -> Path:
    writer = CacheWriter(directory, FIELDS, 10)
    with writer.lock(lambda: None):
        for shard in SHARDS[writer.done : count]:
            writer.publish(shard)
        if count == 3:
            writer.finish()
    return directory
