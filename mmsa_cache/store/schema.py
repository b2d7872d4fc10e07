"""The HDF5 names, shapes and dtypes of a shard: the one contract of both stages.

A shard holds the features of some rows; a row is one (sample, variant), variant 0 the original.

==============  =========================  ========  =============================================
dataset         shape                      dtype     content
==============  =========================  ========  =============================================
``guids``       (rows,)                    S*        sample name, UTF-8
``variant``     (rows,)                    int32     0 = original, 1…K = augmented copies
``operations``  (rows,)                    S*        augmentation used ("" for originals)
``offsets``     (rows + 1,)                int64     row r is ``tokens[offsets[r]:offsets[r+1]]``
``tokens``      (positions, dim)           float16   all kept positions, back to back, contiguous
``pooled``      (rows, pools, dim)         float16   attribute ``pools`` names the second axis
``shared``      (rows, shared_dim)         float16   joint models only: the shared space's embedding
==============  =========================  ========  =============================================

File attributes: ``schema`` (version) and ``fingerprint`` (sha256 hex of the cache's fields).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 1
DATASETS = ("guids", "variant", "operations", "offsets", "tokens", "pooled")
SHARED = "shared"
"""Dataset of a joint model's embeddings, and the name of that pool."""
FEATURE_DTYPE = np.dtype("<f2")


def shard_name(index: int) -> str:
    """File name of the index-th shard."""
    return f"shard-{index:05d}.h5"


@dataclass(frozen=True, slots=True)
class Shard:
    """The features of consecutive rows."""

    guids: list[str]
    variant: NDArray[np.int32]
    """(rows,)"""
    operations: list[str]
    offsets: NDArray[np.int64]
    """(rows + 1,)"""
    tokens: NDArray[np.float16]
    """(positions, dim)"""
    pooled: NDArray[np.float16]
    """(rows, pools, dim)"""
    pools: tuple[str, ...]
    shared: NDArray[np.float16] | None = None
    """(rows, shared_dim)"""

    def __post_init__(self) -> None:
        rows, dim = len(self.guids), self.tokens.shape[-1]
        shapes = {
            "variant": (self.variant.shape, (rows,)),
            "operations": ((len(self.operations),), (rows,)),
            "offsets": (self.offsets.shape, (rows + 1,)),
            "tokens": (self.tokens.shape, (int(self.offsets[-1]), dim)),
            "pooled": (self.pooled.shape, (rows, len(self.pools), dim)),
        }
        if self.shared is not None:
            shapes["shared"] = (self.shared.shape, (rows, *self.shared.shape[1:2]))
        wrong = [
            f"{k}: {have}, expected {want}" for k, (have, want) in shapes.items() if have != want
        ]
        if self.offsets[0] != 0 or bool((np.diff(self.offsets) < 0).any()):
            wrong.append("offsets: must start at 0 and never fall")
        if wrong:
            raise ValueError("A shard's parts do not fit together: " + "; ".join(wrong))
