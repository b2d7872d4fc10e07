"""Small features of one encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmsa_cache.files.disk import DISK, Disk
from mmsa_cache.store import shard_bytes
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.identity import EncoderIdentity
from mmsa_cache.store.index import INDEX, IndexChange, ShardEntry
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.reader import open_features
from mmsa_cache.store.schema import Shard
from mmsa_cache.store.verification import VERIFIED
from mmsa_cache.store.writer import FeatureWriter

FIELDS = {"modality": "text", "encoder": "tiny", "size": 8}
ENCODER = StoredEncoder.of(EncoderIdentity.of_fields(FIELDS))
Row = tuple[str, bytes, bytes, bytes]
"""Operation and the bytes of tokens, pooled vectors and the shared one."""


def make_keys(first: int, rows: int) -> Keys:
    """Keys that numbers give."""
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (first + rows, 16), np.uint8)[first:]


def make_shard(first: int, rows: int, seed: int, dim: int = 6) -> Shard:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, rows)
    return Shard(
        make_keys(first, rows),
        [""] * rows,
        np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
        rng.standard_normal((lengths.sum(), dim)).astype(np.float16),
        rng.standard_normal((rows, 2, dim)).astype(np.float16),
        ("cls", "mean"),
    )


SHARDS = [make_shard(0, 4, 1), make_shard(4, 4, 2), make_shard(8, 2, 3)]


def rows_in(shards: Iterable[Shard]) -> dict[bytes, Row]:
    """What shards hold of each key; no key may come twice."""
    rows: dict[bytes, Row] = {}
    for shard in shards:
        for row, key in enumerate(shard.keys):
            assert key.tobytes() not in rows, "a row is there twice"
            rows[key.tobytes()] = (
                shard.operations[row],
                shard.tokens[shard.offsets[row] : shard.offsets[row + 1]].tobytes(),
                shard.pooled[row].tobytes(),
                b"" if shard.shared is None else shard.shared[row].tobytes(),
            )
    return rows


def rows_of(folder: Path, *, verify: bool = True) -> dict[bytes, Row]:
    """What the features in a folder hold of each key; none may be there twice."""
    return rows_in(open_features(folder, verify=verify).shards)


def writer_of(root: Path, encoder: StoredEncoder = ENCODER, disk: Disk = DISK) -> FeatureWriter:
    return FeatureWriter(root, encoder, disk)


def write(root: Path, count: int = 3, disk: Disk = DISK) -> Path:
    """Seals the first shards in a store; the features' folder."""
    writer = writer_of(root, disk=disk)
    with writer.claim(lambda: None):
        for shard in SHARDS[:count]:
            if not writer.has(shard.keys).all():
                writer.publish(shard)
        writer.finish()
    return writer.folder


def write_many(root: Path, keys: Keys) -> Path:
    """A shard for each key, without the time that sealing takes."""
    folder = write(root, 0)
    one = make_shard(0, 1, 1)
    source = b"".join(shard_bytes.encode([one], ENCODER.fingerprint))
    with (folder / INDEX).open("wb") as index:
        for key in keys:
            content = source.replace(one.keys.tobytes(), key.tobytes())
            digest = hashlib.sha256(content).hexdigest()
            entry = ShardEntry(sha256=digest, rows=1, bytes=len(content))
            (folder / entry.file).write_bytes(content)
            index.write(IndexChange(add=entry).line())
    return folder


def contents(directory: Path) -> dict[str, bytes]:
    """The files, but for what is noted of their times."""
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir()) if p.name != VERIFIED}
