"""Encodes shards as an HDF5 file in memory, so that HDF5 never meets a full or failing disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from . import schema
from .index import ShardEntry
from .schema import Shard

_ALIGNMENT = 64
"""Datasets start at a multiple of so many bytes, so that they can be memory-mapped."""
_LARGE = 1 << 20
"""Features of fewer bytes are copied, which is faster than writing more pieces."""
Pieces = list[memoryview]
"""Consecutive parts of a file's content."""


def encode(shards: Sequence[Shard], fingerprint: str) -> Pieces:
    """Encodes one shard, or several as one.

    HDF5 only writes the bytes around large features, which are not copied: they are not in memory
    twice, and the GIL is not held while they would be copied.

    Args:
        shards: Shards with the same pools.
        fingerprint: Fingerprint of the encoder.
    """
    output = _HDF5Output()
    first = shards[0]
    offsets, end = [np.zeros(1, np.int64)], 0
    for shard in shards:
        offsets.append(shard.offsets[1:] + end)
        end += int(shard.offsets[-1])
    with h5py.File(
        output, "w", libver="v110", alignment_threshold=1, alignment_interval=_ALIGNMENT
    ) as file:
        file.attrs["schema"] = schema.SCHEMA_VERSION
        file.attrs["fingerprint"] = np.bytes_(fingerprint)
        file.create_dataset("keys", data=np.concatenate([shard.keys for shard in shards]))
        operations = [operation for shard in shards for operation in shard.operations]
        file.create_dataset("operations", data=_fixed_length(operations))
        file.create_dataset("offsets", data=np.concatenate(offsets).astype("<i8"))
        features = _create_features(file, "tokens", [shard.tokens for shard in shards])
        features += _create_features(file, "pooled", [shard.pooled for shard in shards])
        file["pooled"].attrs["pools"] = _fixed_length(first.pools)
        if first.shared is not None:
            shared = [s.shared for s in shards if s.shared is not None]
            features += _create_features(file, schema.SHARED, shared)
    return _join_pieces(features, output)


def shard_entry(content: Pieces, shards: Sequence[Shard]) -> ShardEntry:
    """The index entry of an encoded file of shards."""
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    size = sum(piece.nbytes for piece in content)
    return ShardEntry(sha256=digest.hexdigest(), rows=sum(map(len, shards)), bytes=size)


class _HDF5Output(io.RawIOBase):
    """A write-only file for HDF5, which does not read a file that it creates."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        """Offset and content of each write; later ones overwrite earlier ones."""
        self.size = self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self.pieces.append((self._at, bytes(data)))
        self._at += len(data)
        self.size = max(self.size, self._at)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size


def _join_pieces(features: Sequence[tuple[int, memoryview]], output: _HDF5Output) -> Pieces:
    """Joins located features and what HDF5 wrote between them; the rest is zeros."""
    large = [part for part in features if part[1].nbytes >= _LARGE]
    small = [*output.pieces, *(part for part in features if part[1].nbytes < _LARGE)]
    pieces, end = [], 0
    for offset, data in [*sorted(large, key=lambda part: part[0]), (output.size, memoryview(b""))]:
        gap = bytearray(offset - end)
        for start, piece in small:
            if end <= start < offset:
                gap[start - end : start - end + len(piece)] = piece
        pieces += [memoryview(gap), data]
        end = offset + data.nbytes
    return [piece for piece in pieces if piece.nbytes]


def _create_features(
    file: h5py.File, name: str, parts: Sequence[NDArray[np.float16]]
) -> list[tuple[int, memoryview]]:
    """Creates a dataset of features; returns the offset and content of its parts."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    dataset = file.create_dataset(name, shape, schema.FEATURE_DTYPE)
    if not dataset.size:
        return []
    dataset[:1] = 0  # with the first element HDF5 allocates the whole dataset
    offset, located = int(dataset.id.get_offset()), []
    for part in parts:
        data = np.ascontiguousarray(part, schema.FEATURE_DTYPE).reshape(-1).view(np.uint8).data
        located.append((offset, data))
        offset += data.nbytes
    return located


def _fixed_length(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Texts as fixed-length UTF-8 of at least one byte, which HDF5 stores without a heap."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")
