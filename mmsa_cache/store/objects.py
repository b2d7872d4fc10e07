"""The features of one encoder in an object store, sealed by many workers of many drivers.

A shard is put whole, under the sha256 of its content: the listing alone says which shards there
are, and which bytes each must have. The index is written last, from a listing, so that two drivers
lose nothing of each other: the one that writes it last has seen all that the other one sealed.
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
"""Bytes of a shard that are read at first, and at least after that: the keys come first in it, its
directory lies between the data."""
_SIDE_BY_SIDE = 256
"""Shards whose heads are in memory at a time."""
_PAUSE, _SHARE = 15.0, 20.0
"""Seconds between two listings for `has`, at least, and times what the last one took."""


def object_name(entry: ShardEntry) -> str:
    """Name of a shard's object: all of its sha256, which the name of a file has the start of."""
    return f"{entry.sha256}.h5"


def parse_object_name(name: str) -> str | None:
    """The sha256 that an object's name gives a shard; None of other objects."""
    match = _SHARD.fullmatch(name)
    return match and match[1]


@dataclass(frozen=True, slots=True)
class ObjectSealer:
    """Puts shards into an object store; can be sent to other machines, without credentials."""

    objects: ObjectFolder
    """Of the encoder's features."""
    fingerprint: str
    """The encoder's."""

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
    """The features of one encoder in an object store, as a driver sees them.

    Attributes:
        folder: Where they are, for people.
        sealer: Puts shards there.
    """

    def __init__(self, target: ObjectFolder, encoder: StoredEncoder) -> None:
        self._objects = target.below(encoder.subfolder)
        self.folder = self._objects.url
        self.sealer = ObjectSealer(self._objects, encoder.fingerprint)
        self._encoder = encoder
        self._shards: dict[ShardEntry, Keys] = {}
        self._seen: set[str] = set()
        """Names of objects that were looked at: shards, and what is none."""
        self._refused: set[str] = set()
        """The latter."""
        self._keys = KeyTable(KEY_BYTES)
        self._distinct = 0
        """Rows of the shards that were seen, twins counted once."""
        self._unsaid: dict[str, int] = {}
        """New rows of shards that a listing had before anybody said that they are sealed."""
        self._due = 0.0
        """When `has` lists again."""

    @property
    def rows(self) -> int:
        """Rows of the shards that were seen, twins counted each."""
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
        if time.monotonic() >= self._due:
            started = time.monotonic()
            new = self._look(self._objects.sizes())
            if self._due:  # else they were there before anything was sealed for this driver
                self._unsaid |= new
            self._due = time.monotonic() + max(_PAUSE, _SHARE * (time.monotonic() - started))
        return self._keys.find(keys) >= 0

    def adopt(self, entries: Sequence[ShardEntry]) -> int:
        """Counts shards as sealed; they are in the listing already.

        Returns:
            Rows that are new.

        Raises:
            CacheError: As of `has`.
        """
        sizes = {object_name(entry): entry.bytes for entry in entries}
        self._seen -= self._refused & sizes.keys()  # sealed again, in place of what was none
        self._unsaid |= self._look(sizes)
        return sum(self._unsaid.pop(name, 0) for name in sizes)

    def finish(self) -> None:
        """Writes the encoder's record, then the index of all shards that the listing has.

        A shard whose rows others have too is left out.

        Raises:
            StaleCacheError: There are features of another encoder.
            CacheError: As of `has`.
        """
        self._look(self._objects.sizes())
        while self._shards:
            self._write_encoder()
            known = len(self._shards)
            lines = [IndexChange(add=entry).line() for entry in self._needed()]
            self._objects.put(INDEX, b"".join(lines))
            self._look(self._objects.sizes())
            if len(self._shards) == known:  # else another driver may have written before this one
                return

    def _needed(self) -> list[ShardEntry]:
        """The shards that have a row which no larger one has."""
        entries = sorted(self._shards, key=lambda entry: (-entry.rows, entry.sha256))
        if self._distinct == self.rows:
            return entries
        keys = as_sortable(np.concatenate([self._shards[entry] for entry in entries]))
        _, first = np.unique(keys, return_index=True)
        ends = np.cumsum([entry.rows for entry in entries])
        return [entries[at] for at in np.unique(np.searchsorted(ends, first, side="right"))]

    def _write_encoder(self) -> None:
        encoder = self._encoder
        with temporary_folder() as place:
            folder = encoder.folder(place)
            make_folders(folder)
            if ENCODER in self._objects.sizes():
                self._objects.fetch({ENCODER: folder / ENCODER}, {ENCODER: MAX_INDEX_BYTES})
                there = read_encoder(folder)
                if there.fingerprint != encoder.fingerprint:  # eight equal hexadecimal digits
                    raise StaleCacheError(
                        f"{self.folder} holds the features of another encoder.",
                        "Extract into another --target.",
                        differences(encoder.identity.fields, there.identity.fields),
                    )
                encoder = encoder.with_names_of(there)
            encoder.write(folder)
            self._objects.put_files({ENCODER: folder / ENCODER})

    def _look(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Reads the keys of shards that were not seen before; how many rows of each are new."""
        sizes = {
            n: size for n, size in sizes.items() if n not in self._seen and parse_object_name(n)
        }
        names = sorted(sizes)
        new: dict[str, int] = {}
        for at in range(0, len(names), _SIDE_BY_SIDE):
            found = self._read_keys({name: sizes[name] for name in names[at : at + _SIDE_BY_SIDE]})
            if not found:
                continue
            for name, keys in found.items():
                entry = ShardEntry(sha256=name[:64], rows=len(keys), bytes=sizes[name])
                self._shards[entry] = keys
                self._seen.add(name)
            every = np.concatenate(list(found.values()))
            _, first = np.unique(as_sortable(every), return_index=True)
            first = first[self._keys.find(every[first]) < 0]
            ends = np.cumsum([len(keys) for keys in found.values()])
            counts = np.bincount(np.searchsorted(ends, first, "right"), minlength=len(found))
            new |= dict(zip(found, counts.tolist(), strict=True))
            self._keys.add(every)
            self._distinct += len(first)
        return new

    def _read_keys(self, sizes: Mapping[str, int]) -> dict[str, Keys]:
        """The keys of shards, by ranges of all of them side by side."""
        heads = {name: _Parts(size) for name, size in sizes.items()}
        found: dict[str, Keys] = {}
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
                        found[name] = shard_file.read_keys(head, head.size, self.sealer.fingerprint)
                        del heads[name]
                    except _NotHereError:
                        pass
                    except shard_file.UNREADABLE as error:
                        self._refuse(heads, name, str(error))
        return {name: found[name] for name in sizes if name in found}

    def _refuse(self, heads: dict[str, _Parts], name: str, reason: str) -> None:
        say(f"Note: {self.folder}/{name} is no shard of this encoder ({reason}): left out.")
        self._seen.add(name)
        self._refused.add(name)
        del heads[name]


class _NotHereError(Exception):
    """A part of an object is to be read that was not fetched."""


class _Parts(io.RawIOBase):
    """An object of which some parts are here; says which one is wanted next."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self._at = size, 0
        self._parts: list[tuple[int, bytes]] = []
        self.wanted = 0, min(size, _HEAD)

    def add(self, content: bytes) -> None:
        """Gives it the part that it wanted."""
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
        raise _NotHereError
