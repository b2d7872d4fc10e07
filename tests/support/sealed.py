"""Shards as the file system knows them."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.store.index import SHARD_FILES


def sealed(directory: Path) -> dict[str, tuple[int, int, int]]:
    """What tells whether a shard was made again."""
    found = {path.name: path.stat() for path in directory.glob(SHARD_FILES)}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for name, s in found.items()}
