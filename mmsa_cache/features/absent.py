"""Features of a modality that samples lack."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmsa_cache.store.keys import KEY_BYTES, as_keys
from mmsa_cache.store.schema import FEATURE_DTYPE, SHARED, Shard

from .modality import ModalityFeatures


def missing_features(
    dim: int, vectors: Mapping[str, int], positions: int, samples: int = 1
) -> ModalityFeatures:
    """Features that no sample has, as long as those that a model expects.

    Args:
        dim: Features of a position.
        vectors: The pooled vectors that the model reads, and their features.
        positions: Positions of a row, at least one.
        samples: How many have none.
    """
    pools = {name: size for name, size in vectors.items() if name != SHARED}
    width = next(iter(pools.values()), dim)
    shard = Shard(
        as_keys([bytes(KEY_BYTES)]),
        [""],
        np.array([0, positions]),
        np.zeros((positions, width), FEATURE_DTYPE),
        np.zeros((1, len(pools), width), FEATURE_DTYPE),
        tuple(pools),
        np.zeros((1, vectors[SHARED]), FEATURE_DTYPE) if SHARED in vectors else None,
    )
    return ModalityFeatures([shard], "a missing modality", table=np.full((samples, 1), -1))
