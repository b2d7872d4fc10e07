"""Shards to the bytes of one HDF5 file, made in memory: HDF5 never meets a full or failing disk."""

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


def encode(shards: Sequence[Shard], fingerprint: str) -> memoryview:
    """The file of one shard, or of several as one.

    HDF5 writes what lies around the features alone; they are copied to their places afterwards,
    which unlike its own way does not keep other threads from Python all the while.

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
        features = [_place(file, "tokens", [shard.tokens for shard in shards])]
        features.append(_place(file, "pooled", [shard.pooled for shard in shards]))
        file["pooled"].attrs["pools"] = _fixed(first.pools)
        if first.shared is not None:
            shared = [s.shared for s in shards if s.shared is not None]
            features.append(_place(file, schema.SHARED, shared))
    pieces = [*around.pieces, *(piece for part in features for piece in part)]
    return _together(pieces, around.size).data


_Piece = tuple[int, NDArray[np.uint8]]
"""Bytes and where they begin in the file."""


class _Written(io.RawIOBase):
    """A file that is only written to; HDF5 reads nothing back of one that it makes."""

    def __init__(self) -> None:
        self.pieces: list[_Piece] = []
        """In the order in which they were written; later ones count."""
        self.size = self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self.pieces.append((self._at, np.frombuffer(bytes(data), np.uint8)))
        self._at += len(data)
        self.size = max(self.size, self._at)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size


def _together(pieces: Sequence[_Piece], size: int) -> NDArray[np.uint8]:
    """The bytes of a file; zeros between its pieces."""
    whole, end = np.empty(size, np.uint8), 0
    for at, data in sorted(pieces, key=lambda piece: piece[0]):
        whole[end:at] = 0
        end = max(end, at + len(data))
    whole[end:] = 0
    for at, data in pieces:
        whole[at : at + len(data)] = data
    return whole


def sealed(shards: Sequence[Shard], fingerprint: str) -> tuple[memoryview, ShardEntry]:
    """`encode`, and what an index says of that file."""
    content = encode(shards, fingerprint)
    digest = hashlib.sha256(content).hexdigest()
    return content, ShardEntry(sha256=digest, rows=sum(map(len, shards)), bytes=len(content))


def _place(file: h5py.File, name: str, parts: Sequence[NDArray[np.float16]]) -> list[_Piece]:
    """Makes room for a dataset; its parts, and where they belong."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    dataset = file.create_dataset(name, shape, schema.FEATURE_DTYPE)
    if not dataset.size:
        return []
    dataset[:1] = 0  # with the first element HDF5 gives all of them their place
    at, pieces = int(dataset.id.get_offset()), []
    for part in parts:
        data = np.ascontiguousarray(part, schema.FEATURE_DTYPE).view(np.uint8).reshape(-1)
        pieces.append((at, data))
        at += data.nbytes
    return pieces


def _fixed(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Fixed-length UTF-8 bytes (HDF5 keeps those in place, without a heap); at least one byte."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")
