"""A bank, and what it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmsa_cache.compose.bench.generated import numbered_keys, numbered_rows, write_generated
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.rows import SampleRows
from mmsa_cache.store.schema import Shard

ROWS = 6
WANTED = {
    "text": numbered_rows(range(ROWS), [0] * ROWS),
    # The pictures of the samples lie the other way round.
    "image": SampleRows(numbered_keys(ROWS), np.arange(ROWS)[::-1, None].copy()),
}


def write(root: Path, modality: str, positions: int) -> Path:
    rng = np.random.default_rng(positions)
    shard = Shard(
        numbered_keys(ROWS),
        [""] * ROWS,
        positions * np.arange(ROWS + 1, dtype=np.int64),
        rng.standard_normal((ROWS * positions, 4)).astype(np.float16),
        rng.standard_normal((ROWS, 1, 4)).astype(np.float16),
        ("mean",),
    )
    return write_generated(root, modality, [shard])


def make_bank(root: Path) -> FeatureBank:
    text, image = write(root, "text", 3), write(root, "image", 16)
    return FeatureBank(
        ModalityFeatures.open(text, WANTED["text"]),
        ModalityFeatures.open(image, WANTED["image"]),
        [f"p{i}" for i in range(ROWS)],
        [0, 1, 2, 0, 1, 2],
    )
