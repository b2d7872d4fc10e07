"""Stores of random features, for measurements without data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from mmsa_cache.features.rows import SampleRows
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.keys import KEY_BYTES, Keys
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.writer import FeatureWriter

NOTE = "generated features"


def numbered_keys(rows: int) -> Keys:
    """Keys of rows 0 … `rows` − 1, the same at every call, (rows, 16)."""
    return np.random.default_rng(47).integers(0, 256, (rows, KEY_BYTES), np.uint8)


def numbered_rows(samples: ArrayLike, variants: ArrayLike) -> SampleRows:
    """The rows of a store with `numbered_keys`, by sample and variant.

    Args:
        samples: Sample of each row, (rows,).
        variants: Variant of each row, 0 for originals, (rows,).
    """
    sample, variant = np.asarray(samples), np.asarray(variants)
    table = np.full((sample.max() + 1, variant.max() + 1), -1)
    table[sample, variant] = np.arange(len(sample))
    return SampleRows(numbered_keys(len(sample)), table)


def generated_encoder(modality: str) -> StoredEncoder:
    """The encoder that generated features are stored under."""
    return StoredEncoder.of(EncoderIdentity.of_fields({"modality": modality, "encoder": NOTE}))


def write_generated(root: Path, modality: str, shards: Iterable[Shard]) -> Path:
    """Writes shards to a store, and merges them.

    Returns:
        The folder of the features.
    """
    writer = FeatureWriter(root, generated_encoder(modality))
    with writer.claim(lambda: None):
        for shard in shards:
            writer.publish(shard)
        writer.finish()
    return writer.folder
