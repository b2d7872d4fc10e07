"""The rows of one encoder's features in a folder: those that its index names, and entering more.

Writers share a folder without talking: the first one to enter a row wins. Shards that others
sealed, and did not live to enter, are adopted.
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
    """The lock that whoever changes the features in a folder holds."""
    return folder.parent / f".{folder.name}.lock"


class SealedRows:
    """Knows which rows are sealed, and enters shards in the index.

    Args:
        folder: The features'.
        fingerprint: The encoder's.
        disk: What it is written to.

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
        self._known: set[str] = set()
        self._noted = -1
        """Bytes of the index whose shards are known; −1: it has to be looked at."""
        self._check_lock: LockCheck
        self._one = threading.RLock()  # a thread may publish while another one looks rows up

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with hold_lock(lock_path(self.folder)) as self._check_lock:
            yield

    def _append(self, *changes: IndexChange) -> None:
        """Changes the index, if the lock is held indeed."""
        self._check_lock()
        self._index.append(changes, self._disk)

    def _has_file(self, entry: ShardEntry) -> bool:
        return (self.folder / entry.file).exists()

    def _sweep(self) -> None:
        """Adopts shards that no index names, removes other such files; the lock is held."""
        found: list[ShardEntry] = []
        self._check_lock()  # lest what another one is about to enter is removed
        for path in sorted(self.folder.glob(SHARD_FILES)):
            folder = path.is_dir() and not path.is_symlink()
            if folder or path.stem in self._index.entries:
                continue
            entry = None if path.stem in self._index.dropped else shard_file.read_entry(path)
            if entry is None:
                self._disk.remove(path)
            else:
                found.append(entry)
        self._enter(found)
        for path in self.folder.glob(f"{TEMPORARY}*"):
            if is_abandoned_file(path):
                discard(path, self._disk)

    def _refresh(self) -> None:
        """Looks at what other writers added since."""
        while True:
            if self._index.changed():
                self._index = Index.read(self.folder, self._index)
            elif self._noted == self._index.size:
                return
            if not self._known <= self._index.entries.keys():
                self._keys, self._known = (
                    KeyTable(KEY_BYTES),
                    set(),
                )  # merged, or removed, by somebody
            try:
                for name in [n for n in self._index.entries if n not in self._known]:
                    self._note(name, [self._map(self._index.entries[name])])
            except DamagedCacheError:
                if not self._index.changed():  # else it was merged just now
                    raise
            else:
                self._noted = self._index.size
                return

    def _note(self, name: str, shards: Sequence[Shard]) -> None:
        for shard in shards:
            self._keys.add(shard.keys)
        self._known.add(name)

    def _map(self, entry: ShardEntry) -> Shard:
        path = self.folder / entry.file
        return shard_file.map_shard(path, entry.rows, entry.bytes, self._fingerprint)

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """Which rows are sealed by now, (rows,).

        Raises:
            CacheError: What another writer added cannot be read.
        """
        with self._one:
            self._refresh()
            return self._keys.find(keys) >= 0

    @property
    def rows(self) -> int:
        """Sealed rows."""
        return self._index.rows

    @property
    def bytes(self) -> int:
        """Size of the sealed shards."""
        return self._index.bytes

    def adopt(self, entries: Sequence[ShardEntry]) -> int:
        """Enters shards in the index that others sealed, without rows that are there already.

        Args:
            entries: What they say of them; a shard that is not there, since another writer has
                entered and merged it or the folder is another one, counts as nothing.

        Returns:
            Rows that are new.

        Raises:
            DiskError: Not all were entered.
            CacheError: What another writer added cannot be read.
        """
        with explain_write_errors(self.folder), self._lock(), self._one:
            return self._enter([entry for entry in entries if self._has_file(entry)])

    def _enter(self, entries: Sequence[ShardEntry]) -> int:
        """Enters shards whose files are there; the lock is held."""
        self._refresh()
        self._noted = -1  # what is noted below may not come to be entered
        needless: set[str] = set()
        new: list[ShardEntry] = []
        for entry in entries:
            if entry.name in self._known:
                continue
            try:
                shard = self._map(entry)
            except DamagedCacheError:  # no shard of this encoder
                needless.add(entry.file)
                continue
            own = self._keys.find(shard.keys) < 0
            if not own.all():
                needless.add(entry.file)
                if not own.any():
                    continue
                shard = shard.take(np.flatnonzero(own))
                entry = self.sealer.seal([shard])
            self._note(entry.name, [shard])
            new.append(entry)
        if new:
            self._append(*(IndexChange(add=entry) for entry in new))
        self._noted = self._index.size
        for file in needless:
            self._disk.remove(self.folder / file)
        return sum(entry.rows for entry in new)
