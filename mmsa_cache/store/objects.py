"""The features of one encoder in an object store, sealed by workers of several drivers.

A shard is one object, named by the sha256 of its content, so a listing of the store is enough to
know the shards and to verify them. The index is written last, from a listing, so that drivers do
not lose each other's shards: the last one to write it has seen all.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.console import say
from mmsa_cache.errors import StaleCacheError
from mmsa_cache.files.disk import make_folders
from mmsa_cache.files.objects import ObjectFolder
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.key_table import KeyTable, as_sortable

from . import shard_bytes, shard_file
from .encoder import ENCODER, StoredEncoder, read_encoder
from .fingerprint import differences
from .index import INDEX, MAX_INDEX_BYTES, IndexChange, ShardEntry
from .keys import KEY_BYTES, Keys
from .schema import Shard

_SHARD = re.compile(r"([0-9a-f]{64})\.h5")
_HEAD, _MORE = 1 << 14, 1 << 12
"""Bytes of the first read of a shard, and fewest of further ones: the keys come first, but the
directory lies between the data."""
_HEADS_AT_ONCE = 256
"""Shards whose heads are in memory at a time."""
_PAUSE, _SHARE = 15.0, 20.0
"""Fewest seconds between two listings by `has`, and fewest multiples of a listing's duration."""


def object_name(entry: ShardEntry) -> str:
    """Name of a shard's object: its complete sha256, of which file names have the start."""
    return f"{entry.sha256}.h5"


def parse_object_name(name: str) -> str | None:
    """The sha256 of a shard by its object's name; None for other objects."""
    match = _SHARD.fullmatch(name)
    return match and match[1]


@dataclass(frozen=True, slots=True)
class ObjectSealer:
    """Puts shards into an object store; can be pickled for other machines, without credentials."""

    objects: ObjectFolder
    """Folder of the encoder's features."""
    fingerprint: str
    """Fingerprint of the encoder."""

    def seal(self, shards: Sequence[Shard]) -> ShardEntry:
        """Seals shards as one.

        Raises:
            CacheError: It was not sealed.
        """
        content = shard_bytes.encode(shards, self.fingerprint)
        entry = shard_bytes.shard_entry(content, shards)
        self.objects.put(object_name(entry), b"".join(content))
        return entry


class ObjectWriter:
    """The features of one encoder in an object store, as seen by a driver.

    Attributes:
        folder: URL of the features, for users.
        sealer: Puts shards there.
    """

    def __init__(self, target: ObjectFolder, encoder: StoredEncoder) -> None:
        self._objects = target.below(encoder.subfolder)
        self.folder = self._objects.url
        self.sealer = ObjectSealer(self._objects, encoder.fingerprint)
        self._encoder = encoder
        self._shards: dict[ShardEntry, Keys] = {}
        self._seen: set[str] = set()
        """Names of all objects that were read, shards or not."""
        self._refused: set[str] = set()
        """Names of those that are no shards."""
        self._keys = KeyTable(KEY_BYTES)
        self._distinct_rows = 0
        """Number of distinct keys of the shards that were seen."""
        self._unreported: dict[str, int] = {}
        """New rows of shards that were listed before `adopt` was called with them."""
        self._next_listing = 0.0
        """Time of the next listing by `has`; 0 before the first one."""

    @property
    def rows(self) -> int:
        """Rows of the shards that were seen, repeated keys included."""
        return sum(entry.rows for entry in self._shards)

    @property
    def bytes(self) -> int:
        """Size of the shards that were seen."""
        return sum(entry.bytes for entry in self._shards)

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """Which rows are sealed, (rows,); those of other drivers as of the last listing.

        Raises:
            CacheError: The object store refuses, or does not answer.
        """
        started = time.monotonic()
        if started >= self._next_listing:
            new = self._read_new_shards(self._objects.sizes())
            if self._next_listing:  # else they are older than this driver
                self._unreported |= new
            ended = time.monotonic()
            self._next_listing = ended + max(_PAUSE, _SHARE * (ended - started))
        return self._keys.find(keys) >= 0

    def adopt(self, entries: Sequence[ShardEntry]) -> int:
        """Counts sealed shards of workers.

        Returns:
            Number of new rows.

        Raises:
            CacheError: As of `has`.
        """
        sizes = {object_name(entry): entry.bytes for entry in entries}
        self._seen -= self._refused & sizes.keys()  # sealed in place of an object that was no shard
        self._unreported |= self._read_new_shards(sizes)
        return sum(self._unreported.pop(name, 0) for name in sizes)

    def finish(self) -> None:
        """Writes the encoder's record, then the index of all shards in the listing.

        Shards without a row of their own are left out.

        Raises:
            StaleCacheError: The folder holds features of another encoder.
            CacheError: As of `has`.
        """
        self._read_new_shards(self._objects.sizes())
        while self._shards:
            self._write_encoder()
            shard_count = len(self._shards)
            lines = [IndexChange(add=entry).line() for entry in self._covering_shards()]
            self._objects.put(INDEX, b"".join(lines))
            self._read_new_shards(self._objects.sizes())
            if len(self._shards) == shard_count:  # else another driver may have written the index
                return

    def _covering_shards(self) -> list[ShardEntry]:
        """The shards that have a row which no larger shard has."""
        entries = sorted(self._shards, key=lambda entry: (-entry.rows, entry.sha256))
        if self._distinct_rows == self.rows:
            return entries
        keys = as_sortable(np.concatenate([self._shards[entry] for entry in entries]))
        _, first = np.unique(keys, return_index=True)
        ends = np.cumsum([entry.rows for entry in entries])
        return [entries[index] for index in np.unique(np.searchsorted(ends, first, side="right"))]

    def _write_encoder(self) -> None:
        encoder = self._encoder
        with temporary_folder() as root:
            folder = encoder.folder(root)
            make_folders(folder)
            if ENCODER in self._objects.sizes():
                self._objects.fetch({ENCODER: folder / ENCODER}, {ENCODER: MAX_INDEX_BYTES})
                stored = read_encoder(folder)
                if stored.fingerprint != encoder.fingerprint:  # the first eight digits are equal
                    raise StaleCacheError(
                        f"{self.folder} holds the features of another encoder.",
                        "Extract into another --target.",
                        differences(encoder.identity.fields, stored.identity.fields),
                    )
                encoder = encoder.with_names_of(stored)
            encoder.write(folder)
            self._objects.put_files({ENCODER: folder / ENCODER})

    def _read_new_shards(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Reads the keys of shards that were not seen yet.

        Args:
            sizes: Name → bytes of objects.

        Returns:
            Name → number of new rows.
        """
        sizes = {
            n: size for n, size in sizes.items() if n not in self._seen and parse_object_name(n)
        }
        names = sorted(sizes)
        new: dict[str, int] = {}
        for start in range(0, len(names), _HEADS_AT_ONCE):
            batch = names[start : start + _HEADS_AT_ONCE]
            keys_by_name = self._read_keys({name: sizes[name] for name in batch})
            if not keys_by_name:
                continue
            for name, keys in keys_by_name.items():
                entry = ShardEntry(sha256=name[:64], rows=len(keys), bytes=sizes[name])
                self._shards[entry] = keys
                self._seen.add(name)
            all_keys = np.concatenate(list(keys_by_name.values()))
            _, new_rows = np.unique(as_sortable(all_keys), return_index=True)
            new_rows = new_rows[self._keys.find(all_keys[new_rows]) < 0]
            ends = np.cumsum([len(keys) for keys in keys_by_name.values()])
            shard_indices = np.searchsorted(ends, new_rows, "right")
            counts = np.bincount(shard_indices, minlength=len(keys_by_name))
            new |= dict(zip(keys_by_name, counts.tolist(), strict=True))
            self._keys.add(all_keys)
            self._distinct_rows += len(new_rows)
        return new

    def _read_keys(self, sizes: Mapping[str, int]) -> dict[str, Keys]:
        """Reads the keys of shards by ranges, those of all shards at once."""
        heads = {name: _PartialObject(size) for name, size in sizes.items()}
        keys: dict[str, Keys] = {}
        while heads:
            names = list(heads)
            parts = self._objects.ranges(names, [heads[name].wanted for name in names])
            for name, part in zip(names, parts, strict=True):
                head = heads[name]
                if part is None:  # gone
                    del heads[name]
                elif len(part) != head.wanted[1] - head.wanted[0]:
                    self._refuse(heads, name, "it is shorter than its listing says")
                else:
                    head.add(part)
                    try:
                        keys[name] = shard_file.read_keys(head, head.size, self.sealer.fingerprint)
                        del heads[name]
                    except _NotFetchedError:
                        pass
                    except shard_file.UNREADABLE as error:
                        self._refuse(heads, name, str(error))
        return {name: keys[name] for name in sizes if name in keys}

    def _refuse(self, heads: dict[str, _PartialObject], name: str, reason: str) -> None:
        say(f"Note: {self.folder}/{name} is no shard of this encoder ({reason}): left out.")
        self._seen.add(name)
        self._refused.add(name)
        del heads[name]


class _NotFetchedError(Exception):
    """A range of an object was read that has not been fetched."""


class _PartialObject(io.RawIOBase):
    """A file of some ranges of an object; ``wanted`` is the next range to be fetched."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self._at = size, 0
        self._parts: list[tuple[int, bytes]] = []
        self.wanted = 0, min(size, _HEAD)

    def add(self, content: bytes) -> None:
        """Adds the wanted range."""
        self._parts.append((self.wanted[0], content))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self.size, self._at + len(buffer))
        for first, content in self._parts:
            if first <= self._at and end <= first + len(content):
                count = max(0, end - self._at)
                buffer[:count] = content[self._at - first : end - first]
                self._at += count
                return count
        self.wanted = self._at, min(self.size, max(end, self._at + _MORE))
        raise _NotFetchedError
