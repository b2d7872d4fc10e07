"""The manifest of a cache: its fields and its shards."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from mmsa_cache import hashing
from mmsa_cache.disk import parse_json, read_plain
from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError, StaleCacheError
from mmsa_cache.validation import validated

from . import schema
from .fingerprint import Fields
from .schema import shard_name
from .shard_file import AGAIN

MANIFEST = "manifest.json"
RECEIPT = "manifest.partial.json"
MAX_MANIFEST_BYTES = 16 << 20  # of 100,000 shards


_Count = Annotated[int, Strict(), Field(gt=0, lt=1 << 48)]


class ShardEntry(BaseModel):
    """What the manifest says of one shard."""

    model_config = ConfigDict(frozen=True)

    name: str
    rows: _Count
    bytes: _Count
    sha256: str


class Manifest(BaseModel):
    """What a cache is: its fields and its shards."""

    model_config = ConfigDict(frozen=True)

    fields: Annotated[Fields, Strict()]
    rows: _Count
    shards: tuple[ShardEntry, ...]

    @property
    def fingerprint(self) -> str:
        return hashing.digest(self.fields)

    @property
    def complete(self) -> bool:
        return sum(entry.rows for entry in self.shards) == self.rows

    def with_shards(self, shards: Iterable[ShardEntry]) -> Manifest:
        """The same cache with other shards."""
        return self.model_copy(update={"shards": tuple(shards)})

    def as_bytes(self) -> bytes:
        """The content of its file."""
        head = {"schema": schema.SCHEMA_VERSION, "fingerprint": self.fingerprint}
        content = {**head, **self.model_dump(mode="json")}
        return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


class _Stored(Manifest):
    """A manifest as its file states it."""

    version: int = Field(alias="schema")
    fingerprint_stated: str = Field(alias="fingerprint")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for number, entry in enumerate(self.shards):
            if entry.name != shard_name(number):
                raise ValueError(f"shard {number} is called {entry.name[:100]!r}")
        if self.fingerprint_stated != self.fingerprint:
            raise ValueError("its fields do not give its fingerprint")
        return self


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
    found = raw.get("schema") if isinstance(raw, dict) else None
    if found not in (None, schema.SCHEMA_VERSION):
        raise StaleCacheError(
            f"{path} has schema {str(found)[:20]}, this program writes {schema.SCHEMA_VERSION}.",
            "Extract again into another --cache folder.",
        )
    stored = validated(_Stored, raw, f"{path} is not a manifest.", AGAIN, DamagedCacheError)
    return Manifest.model_construct(fields=stored.fields, rows=stored.rows, shards=stored.shards)


def lock_path(directory: Path) -> Path:
    """The lock of a cache, held while it is written or removed."""
    return directory.parent / f".{directory.name}.lock"


def note_path(directory: Path) -> Path:
    """File that notes when the shards of a cache were last verified."""
    return directory.parent / f".{directory.name}.verified"
