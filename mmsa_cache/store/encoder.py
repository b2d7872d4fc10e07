"""The encoder whose features a folder holds: ``encoder.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError, StaleCacheError
from mmsa_cache.files import hashing
from mmsa_cache.files.disk import DISK, Disk, write_atomically
from mmsa_cache.files.untrusted import parse_json, read_regular
from mmsa_cache.names import DEFAULT_ENCODER
from mmsa_cache.validation import validate

from .fingerprint import Fields, cache_name
from .identity import EncoderIdentity, StoredIdentity
from .problems import read_error, rebuild_hint
from .schema import SCHEMA_VERSION

ENCODER = "encoder.json"
FEATURES = "features"
"""Folder of all features in a store."""
_MAX_BYTES = 1 << 20


class StoredEncoder(BaseModel):
    """An encoder, and the settings that it was extracted with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[2] = Field(default=SCHEMA_VERSION, alias="schema")
    identity: StoredIdentity = Field(alias="fields")
    names: tuple[str, ...] = (DEFAULT_ENCODER,)
    """Its names in the settings."""
    told: Fields = Field(default_factory=dict)
    """The sections of the settings that define it."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Library → version at the first extraction."""

    @classmethod
    def of(
        cls,
        identity: EncoderIdentity,
        names: tuple[str, ...] = (DEFAULT_ENCODER,),
        told: Fields | None = None,
        versions: dict[str, str] | None = None,
    ) -> StoredEncoder:
        """Makes a record of its fields."""
        values = {"names": names, "told": told or {}, "versions": versions or {}}
        return cls.model_validate({"fields": identity, **values})

    @property
    def fingerprint(self) -> str:
        """sha256 of the identity's fields (hex)."""
        return hashing.digest(self.identity.fields)

    @property
    def subfolder(self) -> str:
        """Its folder, relative to the store."""
        name = cache_name(self.identity.name, self.identity.fields)
        return f"{FEATURES}/{self.identity.modality}/{name}"

    def folder(self, root: Path) -> Path:
        """Its folder in a store."""
        return root / self.subfolder

    def write(self, folder: Path, disk: Disk = DISK) -> None:
        """Writes the record into an existing folder.

        Raises:
            DiskError: It cannot be written; an earlier one is unchanged.
        """
        content = self.model_dump(by_alias=True)
        content["fields"] = self.identity.fields
        content["sha256"] = hashing.digest(content)
        text = json.dumps(content, indent=1, sort_keys=True)
        write_atomically(folder / ENCODER, text.encode() + b"\n", disk)

    def with_names_of(self, other: StoredEncoder) -> StoredEncoder:
        """This record with the names of another one of the same encoder, its own last."""
        names = tuple(dict.fromkeys((*other.names, *self.names)))
        return self.model_copy(update={"names": names, "versions": other.versions or self.versions})


def read_encoder(folder: Path) -> StoredEncoder:
    """Reads the record of a folder.

    Raises:
        CacheNotFoundError: There is none.
        StaleCacheError: It is of another schema.
        DamagedCacheError: It is not what was written.
    """
    path = folder / ENCODER
    try:
        raw = parse_json(read_regular(path, _MAX_BYTES, links=False))
        unchanged = isinstance(raw, dict) and raw.pop("sha256", None) == hashing.digest(raw)
    except FileNotFoundError as error:
        raise CacheNotFoundError(
            f"There are no features in {folder}.", "Run mmsa extract."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise read_error(path, error, rebuild_hint(folder)) from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema not in (None, SCHEMA_VERSION):
        raise StaleCacheError(
            f"{path} has schema {str(schema)[:20]}, this program reads {SCHEMA_VERSION}.",
            "Extract again into another --cache folder.",
        )
    if not unchanged:
        raise DamagedCacheError(f"{path} was changed after it was written.", rebuild_hint(folder))
    message = f"{path} is not the record of an encoder."
    stored = validate(StoredEncoder, raw, message, rebuild_hint(folder), DamagedCacheError)
    name = cache_name(stored.identity.name, stored.identity.fields)
    if folder.parts[-2:] != (stored.identity.modality, name):
        expected_path = f"{stored.identity.modality}/{name}"
        raise DamagedCacheError(
            f"{path} belongs into a folder {expected_path}.", rebuild_hint(folder)
        )
    return stored
