"""The effect of half precision on features: the same rows, computed in each precision."""

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
        See `difference`, by precision.
    """

    def stored(compute: str) -> Shard:
        encoder = spec.computed_in(compute).load(device)
        return encode_rows(rows, reader, encoder, device, batch_size)

    exact = stored("float32")
    return {name: difference(exact, stored(name)) for name in COMPUTE if name != "float32"}


def difference(exact: Shard, rough: Shard) -> dict[str, float]:
    """Differences between the features of two shards of the same rows.

    Returns:
        ``mean_absolute`` and ``largest_absolute`` difference over all positions and pools,
        ``mean_magnitude`` of the exact features to compare them with, and ``mean_cosine`` and
        ``lowest_cosine`` between the pooled vectors.
    """
    have, want = _numbers(rough), _numbers(exact)
    apart = np.abs(have - want)
    pairs = (exact.pooled.astype(np.float64), rough.pooled.astype(np.float64))
    norms = [np.linalg.norm(vectors, axis=-1) for vectors in pairs]
    cosine = (pairs[0] * pairs[1]).sum(-1) / (norms[0] * norms[1])
    return {
        "mean_absolute": float(apart.mean()),
        "largest_absolute": float(apart.max()),
        "mean_magnitude": float(np.abs(want).mean()),
        "mean_cosine": float(cosine.mean()),
        "lowest_cosine": float(cosine.min()),
    }


def _numbers(shard: Shard) -> NDArray[np.float64]:
    """All features, (numbers,)."""
    return np.concatenate([shard.tokens.ravel(), shard.pooled.ravel()]).astype(np.float64)
