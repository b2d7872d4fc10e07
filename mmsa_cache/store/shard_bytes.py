"""Shards to the bytes of one HDF5 file, made in memory: HDF5 never meets a full or failing disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import h5py
import numpy as np
from numpy.typing import NDArray

from . import schema
from .index import ShardEntry
from .schema import Shard

_ALIGNED = 64
"""Bytes that datasets begin at a multiple of, so that they can be used where they lie."""


def encode(shards: Sequence[Shard], fingerprint: str) -> memoryview:
    """The file of one shard, or of several as one.

    Args:
        shards: The features, all with the same pools.
        fingerprint: The encoder's.
    """
    content = io.BytesIO()
    first = shards[0]
    offsets, end = [np.zeros(1, np.int64)], 0
    for shard in shards:
        offsets.append(shard.offsets[1:] + end)
        end += int(shard.offsets[-1])
    with h5py.File(
        content, "w", libver="v110", alignment_threshold=1, alignment_interval=_ALIGNED
    ) as file:
        file.attrs["schema"] = schema.SCHEMA_VERSION
        file.attrs["fingerprint"] = np.bytes_(fingerprint)
        file.create_dataset("keys", data=np.concatenate([shard.keys for shard in shards]))
        operations = [operation for shard in shards for operation in shard.operations]
        file.create_dataset("operations", data=_fixed(operations))
        file.create_dataset("offsets", data=np.concatenate(offsets).astype("<i8"))
        _store(file, "tokens", [shard.tokens for shard in shards])
        _store(file, "pooled", [shard.pooled for shard in shards])
        file["pooled"].attrs["pools"] = _fixed(first.pools)
        if first.shared is not None:
            _store(file, schema.SHARED, [s.shared for s in shards if s.shared is not None])
    return content.getbuffer()


def sealed(shards: Sequence[Shard], fingerprint: str) -> tuple[memoryview, ShardEntry]:
    """`encode`, and what an index says of that file."""
    content = encode(shards, fingerprint)
    digest = hashlib.sha256(content).hexdigest()
    return content, ShardEntry(sha256=digest, rows=sum(map(len, shards)), bytes=len(content))


def _store(file: h5py.File, name: str, parts: Sequence[NDArray[np.float16]]) -> None:
    """Writes a dataset part by part, so that a large one is not in memory twice."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    dataset = file.create_dataset(name, shape, schema.FEATURE_DTYPE)
    row = 0
    for part in parts:
        if part.size:
            dataset[row : row + len(part)] = part
        row += len(part)


def _fixed(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Fixed-length UTF-8 bytes (HDF5 keeps those in place, without a heap); at least one byte."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")
