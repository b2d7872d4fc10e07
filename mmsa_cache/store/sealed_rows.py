"""The sealed rows of one encoder in a folder, and adding shards to the folder's index.

Writers share a folder without communicating: the first one to enter a row in the index wins. Shards
that a writer sealed but was killed before it entered them are adopted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.errors import DamagedCacheError
from mmsa_cache.files.abandoned import TEMPORARY, is_abandoned_file
from mmsa_cache.files.disk import Disk, discard, explain_write_errors
from mmsa_cache.files.locks import LockCheck, hold_lock
from mmsa_cache.key_table import KeyTable

from . import shard_file
from .index import SHARD_FILES, Index, IndexChange, ShardEntry
from .keys import KEY_BYTES, Keys
from .schema import Shard
from .sealer import FolderSealer


def lock_path(folder: Path) -> Path:
    """Path of the lock for changing the features in a folder."""
    return folder.parent / f".{folder.name}.lock"


class SealedRows:
    """Knows which rows are sealed, and enters shards in the index.

    Args:
        folder: The feature folder.
        fingerprint: Fingerprint of the encoder.
        disk: Where to write.

    Attributes:
        folder: As above.
        sealer: Puts shards there for `adopt`.
    """

    def __init__(self, folder: Path, fingerprint: str, disk: Disk) -> None:
        self.folder = folder
        self.sealer = FolderSealer(folder, fingerprint, disk)
        self._fingerprint = fingerprint
        self._disk = disk
        self._index = Index(self.folder)
        self._keys = KeyTable(KEY_BYTES)
        self._noted_names: set[str] = set()
        self._noted_size = -1
        """Bytes of the index whose shards were noted; −1 forces a refresh."""
        self._check_lock: LockCheck
        self._thread_lock = threading.RLock()  # one thread may publish while another looks up rows

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with hold_lock(lock_path(self.folder)) as self._check_lock:
            yield

    def _append(self, *changes: IndexChange) -> None:
        """Changes the index after checking that the lock is still held."""
        self._check_lock()
        self._index.append(changes, self._disk)

    def _has_file(self, entry: ShardEntry) -> bool:
        return (self.folder / entry.file).exists()

    def _sweep(self) -> None:
        """Adopts shards that the index lacks and removes other such files; the lock is held."""
        entries: list[ShardEntry] = []
        self._check_lock()  # else a file could be removed that another writer is about to enter
        for path in sorted(self.folder.glob(SHARD_FILES)):
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder or path.stem in self._index.entries:
                continue
            entry = None if path.stem in self._index.dropped else shard_file.read_entry(path)
            if entry is None:
                self._disk.remove(path)
            else:
                entries.append(entry)
        self._enter(entries)
        for path in self.folder.glob(f"{TEMPORARY}*"):
            if is_abandoned_file(path):
                discard(path, self._disk)

    def _refresh(self) -> None:
        """Notes the shards that other writers added."""
        while True:
            if self._index.changed():
                self._index = Index.read(self.folder, self._index)
            elif self._noted_size == self._index.size:
                return
            if not self._noted_names <= self._index.entries.keys():
                # Another writer merged or removed shards.
                self._keys, self._noted_names = KeyTable(KEY_BYTES), set()
            try:
                for name in [n for n in self._index.entries if n not in self._noted_names]:
                    self._note(name, [self._map(self._index.entries[name])])
            except DamagedCacheError:
                if not self._index.changed():  # else the shard was merged just now
                    raise
            else:
                self._noted_size = self._index.size
                return

    def _note(self, name: str, shards: Sequence[Shard]) -> None:
        for shard in shards:
            self._keys.add(shard.keys)
        self._noted_names.add(name)

    def _map(self, entry: ShardEntry) -> Shard:
        path = self.folder / entry.file
        return shard_file.map_shard(path, entry.rows, entry.bytes, self._fingerprint)

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """Which rows are sealed, (rows,).

        Raises:
            CacheError: A shard of another writer cannot be read.
        """
        with self._thread_lock:
            self._refresh()
            return self._keys.find(keys) >= 0

    @property
    def rows(self) -> int:
        """Number of sealed rows."""
        return self._index.rows

    @property
    def bytes(self) -> int:
        """Size of the sealed shards."""
        return self._index.bytes

    def adopt(self, entries: Sequence[ShardEntry]) -> int:
        """Enters shards that others sealed in the index, without rows that are sealed already.

        Args:
            entries: Entries of the shards; those without a file are ignored, as after another
                writer has entered and merged them.

        Returns:
            Number of new rows.

        Raises:
            DiskError: Not all were entered.
            CacheError: A shard of another writer cannot be read.
        """
        with explain_write_errors(self.folder), self._lock(), self._thread_lock:
            return self._enter([entry for entry in entries if self._has_file(entry)])

    def _enter(self, entries: Sequence[ShardEntry]) -> int:
        """Enters shards whose files exist; the lock is held."""
        self._refresh()
        self._noted_size = -1  # shards that are noted below may fail to be entered
        needless: set[str] = set()
        new: list[ShardEntry] = []
        for entry in entries:
            if entry.name in self._noted_names:
                continue
            try:
                shard = self._map(entry)
            except DamagedCacheError:  # no shard of this encoder
                needless.add(entry.file)
                continue
            new_rows = self._keys.find(shard.keys) < 0
            if not new_rows.all():
                needless.add(entry.file)
                if not new_rows.any():
                    continue
                shard = shard.take(np.flatnonzero(new_rows))
                entry = self.sealer.seal([shard])
            self._note(entry.name, [shard])
            new.append(entry)
        if new:
            self._append(*(IndexChange(add=entry) for entry in new))
        self._noted_size = self._index.size
        for file in needless:
            self._disk.remove(self.folder / file)
        return sum(entry.rows for entry in new)
