"""Shards to the bytes of one HDF5 file, without a disk: HDF5 never meets a full or failing one."""

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

_ALIGNED = 64
"""Bytes that datasets begin at a multiple of, so that they can be used where they lie."""


_ALONE = 1 << 20
"""Bytes of features that are a piece of their own: to copy fewer is quicker than to write twice."""
Pieces = list[memoryview]
"""The bytes of a file, one piece after the other."""


def encode(shards: Sequence[Shard], fingerprint: str) -> Pieces:
    """The file of one shard, or of several as one.

    HDF5 writes what lies around the features alone; those stay where they are. So a large shard is
    not in memory twice, and no thread is kept from Python while it is copied.

    Args:
        shards: The features, all with the same pools.
        fingerprint: The encoder's.
    """
    around = _Written()
    first = shards[0]
    offsets, end = [np.zeros(1, np.int64)], 0
    for shard in shards:
        offsets.append(shard.offsets[1:] + end)
        end += int(shard.offsets[-1])
    with h5py.File(
        around, "w", libver="v110", alignment_threshold=1, alignment_interval=_ALIGNED
    ) as file:
        file.attrs["schema"] = schema.SCHEMA_VERSION
        file.attrs["fingerprint"] = np.bytes_(fingerprint)
        file.create_dataset("keys", data=np.concatenate([shard.keys for shard in shards]))
        operations = [operation for shard in shards for operation in shard.operations]
        file.create_dataset("operations", data=_fixed(operations))
        file.create_dataset("offsets", data=np.concatenate(offsets).astype("<i8"))
        features = _places(file, "tokens", [shard.tokens for shard in shards])
        features += _places(file, "pooled", [shard.pooled for shard in shards])
        file["pooled"].attrs["pools"] = _fixed(first.pools)
        if first.shared is not None:
            shared = [s.shared for s in shards if s.shared is not None]
            features += _places(file, schema.SHARED, shared)
    return _in_order(features, around)


def shard_entry(content: Pieces, shards: Sequence[Shard]) -> ShardEntry:
    """What an index says of the file of shards."""
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    size = sum(piece.nbytes for piece in content)
    return ShardEntry(sha256=digest.hexdigest(), rows=sum(map(len, shards)), bytes=size)


class _Written(io.RawIOBase):
    """A file that is only written to; HDF5 reads nothing back of one that it makes."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        """Where they begin, and what they are; what was written later counts."""
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


def _in_order(features: Sequence[tuple[int, memoryview]], around: _Written) -> Pieces:
    """Features, and between them what HDF5 wrote there; zeros elsewhere."""
    alone = [part for part in features if part[1].nbytes >= _ALONE]
    others = [*around.pieces, *(part for part in features if part[1].nbytes < _ALONE)]
    found, end = [], 0
    for at, data in [*sorted(alone, key=lambda part: part[0]), (around.size, memoryview(b""))]:
        between = bytearray(at - end)
        for place, piece in others:
            if end <= place < at:
                between[place - end : place - end + len(piece)] = piece
        found += [memoryview(between), data]
        end = at + data.nbytes
    return [piece for piece in found if piece.nbytes]


def _places(
    file: h5py.File, name: str, parts: Sequence[NDArray[np.float16]]
) -> list[tuple[int, memoryview]]:
    """Makes room for a dataset; its parts, and where they belong."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    dataset = file.create_dataset(name, shape, schema.FEATURE_DTYPE)
    if not dataset.size:
        return []
    dataset[:1] = 0  # with the first element HDF5 gives all of them their place
    at, places = int(dataset.id.get_offset()), []
    for part in parts:
        data = np.ascontiguousarray(part, schema.FEATURE_DTYPE).reshape(-1).view(np.uint8).data
        places.append((at, data))
        at += data.nbytes
    return places


def _fixed(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Fixed-length UTF-8 bytes (HDF5 keeps those in place, without a heap); at least one byte."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")
