"""Names, shapes and dtypes of a shard's HDF5 file.

A shard holds the features of some rows of one encoder; a row is one input, see `keys`.

==============  =========================  ========  =============================================
dataset         shape                      dtype     content
==============  =========================  ========  =============================================
``keys``        (rows, 16)                 uint8     hash of what a row was computed from
``operations``  (rows,)                    S*        augmentation ("" for originals)
``offsets``     (rows + 1,)                int64     row r is ``tokens[offsets[r]:offsets[r+1]]``
``tokens``      (positions, dim)           float16   positions of all rows, contiguous
``pooled``      (rows, pools, dim)         float16   attribute ``pools`` names the second axis
``shared``      (rows, shared_dim)         float16   joint models only: the shared space's embedding
==============  =========================  ========  =============================================

File attributes: ``schema`` (version) and ``fingerprint`` (sha256 hex of the encoder's fields).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .keys import KEY_BYTES, Keys

SCHEMA_VERSION: Literal[2] = 2
DATASETS = ("keys", "operations", "offsets", "tokens", "pooled")
SHARED = "shared"
"""Dataset of a joint model's embeddings, and the name of that pool."""
FEATURE_DTYPE = np.dtype("<f2")


@dataclass(frozen=True, slots=True)
class Shard:
    """The features of some rows."""

    keys: Keys
    """(rows, 16)"""
    operations: Sequence[str]
    """(rows,)"""
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
        rows, dim = len(self.keys), self.tokens.shape[-1]
        shapes = {
            "keys": (self.keys.shape, (rows, KEY_BYTES)),
            "operations": ((len(self.operations),), (rows,)),
            "offsets": (self.offsets.shape, (rows + 1,)),
            "tokens": (self.tokens.shape, (int(self.offsets[-1]), dim)),
            "pooled": (self.pooled.shape, (rows, len(self.pools), dim)),
        }
        if self.shared is not None:
            shapes["shared"] = (self.shared.shape, (rows, *self.shared.shape[1:2]))
        wrong = [
            f"{k}: {shape}, expected {expected}"
            for k, (shape, expected) in shapes.items()
            if shape != expected
        ]
        if self.offsets[0] != 0 or bool((self.offsets[1:] < self.offsets[:-1]).any()):
            wrong.append("offsets: must start at 0 and never fall")
        if wrong:
            raise ValueError(f"A shard's parts do not fit together: {'; '.join(wrong)}")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Bytes of the features."""
        shared = 0 if self.shared is None else self.shared.nbytes
        return self.tokens.nbytes + self.pooled.nbytes + shared

    def take(self, rows: NDArray[np.int64]) -> Shard:
        """Copies rows, given in ascending order."""
        spans = [self.tokens[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        return Shard(
            self.keys[rows],
            [self.operations[row] for row in rows],
            np.cumsum([0, *map(len, spans)], dtype=np.int64),
            np.concatenate([self.tokens[:0], *spans]),
            self.pooled[rows],
            self.pools,
            None if self.shared is None else self.shared[rows],
        )
