"""The effect of half precision on features: the same rows computed in each precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from extract.encoders.compute import COMPUTE
from extract.encoders.protocol import ResolvedEncoder
from mmsa_cache.store.schema import Shard

from .plan import Reader, Row
from .shards import encode_rows


def precision_effect(
    spec: ResolvedEncoder,
    rows: Sequence[Row],
    reader: Reader,
    device: torch.device,
    batch_size: int,
) -> dict[str, dict[str, float]]:
    """Compares the stored features of each precision with those of float32.

    Returns:
        `difference` of each precision.
    """

    def encode(compute: str) -> Shard:
        encoder = spec.computed_in(compute).load(device)
        return encode_rows(rows, reader, encoder, device, batch_size)

    exact = encode("float32")
    return {name: difference(exact, encode(name)) for name in COMPUTE if name != "float32"}


def difference(exact: Shard, rough: Shard) -> dict[str, float]:
    """Differences between the features of two shards of the same rows.

    Returns:
        ``mean_absolute`` and ``largest_absolute``: differences over all positions and pools;
        ``mean_magnitude`` of the exact features; ``mean_cosine`` and ``lowest_cosine`` between
        pooled vectors.
    """
    expected = _flatten(exact)
    absolute = np.abs(_flatten(rough) - expected)
    a, b = exact.pooled.astype(np.float64), rough.pooled.astype(np.float64)
    cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return {
        "mean_absolute": float(absolute.mean()),
        "largest_absolute": float(absolute.max()),
        "mean_magnitude": float(np.abs(expected).mean()),
        "mean_cosine": float(cosine.mean()),
        "lowest_cosine": float(cosine.min()),
    }


def _flatten(shard: Shard) -> NDArray[np.float64]:
    """All features, (values,)."""
    return np.concatenate([shard.tokens.ravel(), shard.pooled.ravel()]).astype(np.float64)
