"""The manifest of a cache: its fields and its shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsa_cache import hashing
from mmsa_cache.disk import parse_json, read_plain
from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError, StaleCacheError

from . import schema
from .schema import shard_name
from .shard_file import AGAIN

MANIFEST = "manifest.json"
RECEIPT = "manifest.partial.json"
MAX_MANIFEST_BYTES = 16 << 20  # of 100,000 shards


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """What the manifest says of one shard."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a cache is: its fields, its pools and its shards."""

    fields: dict[str, Any]
    rows: int
    shards: tuple[ShardEntry, ...]

    @property
    def fingerprint(self) -> str:
        return hashing.digest(self.fields)

    @property
    def complete(self) -> bool:
        return sum(entry.rows for entry in self.shards) == self.rows


def read_manifest(directory: Path, name: str = MANIFEST) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        CacheNotFoundError: There is none.
        DamagedCacheError: It is not a manifest of this schema.
    """
    path = directory / name
    try:
        raw = parse_json(read_plain(path, MAX_MANIFEST_BYTES, links=False))
    except FileNotFoundError as error:
        raise CacheNotFoundError(
            f"There is no finished cache in {directory}.", "Run mmsa extract."
        ) from error
    except (OSError, ValueError) as error:
        raise DamagedCacheError(f"{path} cannot be read: {error}", AGAIN) from error
    try:
        if raw["schema"] != schema.SCHEMA_VERSION:
            raise StaleCacheError(
                f"{path} has schema {str(raw['schema'])[:20]}, this program writes "
                f"{schema.SCHEMA_VERSION}.",
                "Extract again into another --cache folder.",
            )
        entries = tuple(
            ShardEntry(str(e["name"]), _count(e["rows"]), _count(e["bytes"]), str(e["sha256"]))
            for e in raw["shards"]
        )
        manifest = Manifest(dict(raw["fields"]), _count(raw["rows"]), entries)
        stated = raw["fingerprint"]
    except (LookupError, TypeError, ValueError) as error:
        raise DamagedCacheError(f"{path} is not a manifest: {str(error)[:200]}", AGAIN) from error
    for i, entry in enumerate(entries):
        if entry.name != shard_name(i):
            raise DamagedCacheError(f"{path}: shard {i} is called {entry.name[:100]!r}.", AGAIN)
    if stated != manifest.fingerprint:
        raise DamagedCacheError(f"{path}: its fields do not give its fingerprint.", AGAIN)
    return manifest


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 48:
        raise ValueError(f"{str(value)[:50]!r} is no count")
    return value


def lock_path(directory: Path) -> Path:
    """The lock of a cache: whoever writes it or removes it holds this."""
    return directory.parent / f".{directory.name}.lock"


def note_path(directory: Path) -> Path:
    """Where it is noted which shards of a cache were found whole, and when they were touched."""
    return directory.parent / f".{directory.name}.verified"
