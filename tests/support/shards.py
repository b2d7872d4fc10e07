"""Small features of one encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import FeatureWriter

FIELDS = {"modality": "text", "encoder": "tiny", "size": 8}
ENCODER = StoredEncoder.of(EncoderIdentity.of_fields(FIELDS))


def make_keys(first: int, rows: int) -> Keys:
    """Keys that numbers give."""
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (first + rows, 16), np.uint8)[first:]


def make_shard(first: int, rows: int, seed: int, dim: int = 6) -> Shard:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, rows)
    return Shard(
        make_keys(first, rows),
        [""] * rows,
        np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
        rng.standard_normal((lengths.sum(), dim)).astype(np.float16),
        rng.standard_normal((rows, 2, dim)).astype(np.float16),
        ("cls", "mean"),
    )


SHARDS = [make_shard(0, 4, 1), make_shard(4, 4, 2), make_shard(8, 2, 3)]


def writer_of(root: Path, encoder: StoredEncoder = ENCODER) -> FeatureWriter:
    return FeatureWriter(root, encoder)


def write(root: Path, count: int = 3) -> Path:
    """Seals the first shards in a store; the features' folder."""
    writer = writer_of(root)
    with writer.claim(lambda: None):
        for shard in SHARDS[:count]:
            writer.publish(shard)
        writer.finish()
    return writer.folder


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir())}
