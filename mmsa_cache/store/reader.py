"""Opens and verifies the features of an encoder."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError
from mmsa_cache.key_table import KeyTable

from . import shard_file
from .encoder import StoredEncoder, read_encoder
from .index import Index, ShardEntry
from .keys import KEY_BYTES, Keys
from .problems import rebuild_hint
from .schema import Shard
from .shard_file import check_bytes
from .verification import verify_changed


@dataclass(frozen=True)
class Features:
    """The memory-mapped features of one encoder."""

    folder: Path
    encoder: StoredEncoder
    shards: tuple[Shard, ...]

    @functools.cached_property
    def _table(self) -> KeyTable:
        table = KeyTable(KEY_BYTES)
        for shard in self.shards:
            table.add(shard.keys)
        return table

    @property
    def starts(self) -> NDArray[np.int64]:
        """First row of each shard, counted over all shards, (shards + 1,)."""
        return np.cumsum([0, *map(len, self.shards)], dtype=np.int64)

    def find_rows(self, keys: Keys) -> NDArray[np.int64]:
        """Row of each key, counted over all shards; −1 if it is missing, (rows,)."""
        return self._table.find(keys)


def open_features(folder: Path, *, verify: bool = True) -> Features:
    """Maps all shards of an encoder without keeping descriptors.

    Args:
        folder: The feature folder.
        verify: Whether to hash the files that changed since they were last verified.

    Raises:
        CacheNotFoundError: Nothing is sealed there.
        DamagedCacheError: Names the file and its damage.
        DeviceError: The system has no descriptor, map or memory left.
    """
    encoder = read_encoder(folder)
    while True:
        index = Index.read(folder)
        if not index.entries:
            raise CacheNotFoundError(f"Nothing is sealed in {folder}.", "Run mmsa extract.")
        try:
            if verify:
                verify_changed(folder, list(index.entries.values()))
            shards = tuple(_map(folder, entry, encoder) for entry in index.entries.values())
        except DamagedCacheError:
            if not index.changed():  # else shards were merged just now
                raise
        else:
            break
    if len({_layout(shard) for shard in shards}) > 1:
        raise DamagedCacheError(f"{folder}: shards have different pools.", rebuild_hint(folder))
    return Features(folder, encoder, shards)


def _layout(shard: Shard) -> tuple[object, ...]:
    """Properties that are equal in all shards of an encoder."""
    shared = None if shard.shared is None else shard.shared.shape[1:]
    return shard.pools, shard.tokens.shape[1:], shared


def verify_features(folder: Path) -> list[str]:
    """Hashes every sealed shard and returns one line for each damaged file.

    Raises:
        CacheError: The index or the encoder's record cannot be read.
    """
    encoder = read_encoder(folder)
    while True:
        index, problems = Index.read(folder), []
        for entry in index.entries.values():
            try:
                check_bytes(folder, entry)
                _map(folder, entry, encoder)
            except DamagedCacheError as error:
                problems.append(error.message)
        if not problems or not index.changed():  # else shards were merged just now
            return problems


def _map(folder: Path, entry: ShardEntry, encoder: StoredEncoder) -> Shard:
    path = folder / entry.file
    return shard_file.map_shard(path, entry.rows, entry.bytes, encoder.fingerprint)
