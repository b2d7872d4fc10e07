"""Stored rows of one encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmsa_cache.features.rows import SampleRows
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import FeatureWriter
from tests.support.shards import make_keys


def write_rows(root: Path, pooled: np.ndarray, modality: str = "text") -> tuple[Path, SampleRows]:
    """Features of one vector a row, a sample each; their folder, and all of them as wanted rows."""
    rows = len(pooled)
    keys = make_keys(0, rows)
    shard = Shard(
        keys,
        [""] * rows,
        np.zeros(rows + 1, np.int64),
        np.zeros((0, pooled.shape[1]), np.float16),
        pooled.astype(np.float16)[:, None],
        ("mean",),
    )
    fields = {"modality": modality, "encoder": "vectors", "rows": rows}
    writer = FeatureWriter(root, StoredEncoder.of(EncoderIdentity.of_fields(fields)))
    with writer.claim(lambda: None):
        writer.publish(shard)
    return writer.folder, SampleRows(keys, np.arange(rows)[:, None])
