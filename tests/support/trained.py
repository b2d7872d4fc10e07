"""Small settings and features for trainings."""

from __future__ import annotations

import numpy as np

from fuse.setting import Setting
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.store.schema import Shard
from tests.support.shards import make_keys

NAMES = ("positive", "neutral", "negative")
DIM = 16


def modality(labels: np.ndarray, seed: int, pools: tuple[str, ...]) -> ModalityFeatures:
    """Each class has its own direction, so that every model can learn it."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((3, DIM)) * 2
    lengths = rng.integers(1, 4, len(labels))
    tokens = [
        centres[y] + 0.3 * rng.standard_normal((n, DIM))
        for y, n in zip(labels, lengths, strict=True)
    ]
    pooled = np.stack([np.stack([t[0], t.mean(0)]) for t in tokens])
    shard = Shard(
        make_keys(0, len(labels)),
        [""] * len(labels),
        np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
        np.concatenate(tokens).astype(np.float16),
        pooled.astype(np.float16),
        pools,
    )
    return ModalityFeatures([shard], "made up")


SMALL = Setting(
    text_dim=16, image_dim=16, layers=1, learning_rate=3e-3, epochs=15, patience=15, dropout=0.1
)
