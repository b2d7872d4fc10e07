"""Writing the features of one encoder, by one process or by many.

A shard is made in memory, hashed, written under a temporary name, fsynced, renamed, and entered in
the index. What is not in the index does not count; what is in it is never written again. Writers
share rows without talking: the first one to seal a row wins. Shards that others sealed, and did not
live to enter, are adopted.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.disk import (
    DISK,
    Disk,
    discard,
    make_folders,
    sync,
    writing,
)
from mmsa_cache.errors import CacheError, DamagedCacheError, StaleCacheError
from mmsa_cache.key_table import KeyTable
from mmsa_cache.leftover import TEMPORARY, is_left_over
from mmsa_cache.locks import Check, locked

from . import shard_file
from .encoder import ENCODER, StoredEncoder, read_encoder
from .fingerprint import differences
from .index import SHARD_FILES, Change, Index, ShardEntry
from .keys import KEY_BYTES, Keys
from .schema import Shard
from .sealer import FolderSealer
from .verified import check_bytes

MERGED_BYTES = 512 << 20
"""Bytes that shards are merged to."""
_MOST_SMALL = 8
"""Shards below half of that which may stand beside each other."""


class FeatureWriter:
    """Adds rows to the features of one encoder.

    Args:
        root: The store.
        encoder: Whose features.
        disk: What it is written to.

    Attributes:
        folder: Where they are.
        sealer: Puts shards there for `adopt`.
    """

    def __init__(self, root: Path, encoder: StoredEncoder, disk: Disk = DISK) -> None:
        self.folder = encoder.folder(root)
        self.sealer = FolderSealer(self.folder, encoder.fingerprint, disk)
        self._encoder = encoder
        self._fingerprint = encoder.fingerprint
        self._disk = disk
        self._index = Index(self.folder)
        self._keys = KeyTable(KEY_BYTES)
        self._known: set[str] = set()
        self._noted = -1
        """Bytes of the index whose shards are known; −1: it has to be looked at."""
        self._check_lock: Check
        self._one = threading.RLock()  # a thread may publish while another one looks rows up

    @contextlib.contextmanager
    def claim(self, waiting: Callable[[], None], part: tuple[int, int] = (0, 1)) -> Iterator[None]:
        """Keeps other processes from computing the same part of the rows.

        Args:
            waiting: Called once if another process computes it.
            part: Number of the part from 0, and of parts.

        Raises:
            DiskError: Nothing can be written there.
            CacheError: What is there cannot be continued.
        """
        claim = self.folder.parent / f".{self.folder.name}.{part[0] + 1}-of-{part[1]}.claim"
        with contextlib.ExitStack() as stack:
            with writing(self.folder):
                make_folders(self.folder.parent, self._disk)
                stack.enter_context(locked(claim, waiting))
                self._prepare()
            yield

    def _prepare(self) -> None:
        """Makes the folder, takes away what killed writers left, reads what is sealed."""
        with self._lock():
            make_folders(self.folder, self._disk)
            if (self.folder / ENCODER).exists():
                self._rename(read_encoder(self.folder))
            else:
                self._encoder.write(self.folder, self._disk)
            self._index, self._noted = Index.read(self.folder), -1
            missing = [e for e in self._index.entries.values() if not self._has_file(e)]
            if missing:  # deleted to be made again
                change = Change(drop=tuple(entry.name for entry in missing))
                self._append(change)
            self._sweep()

    def _rename(self, there: StoredEncoder) -> None:
        """Notes how the encoder is asked for now."""
        if there.fingerprint != self._fingerprint:  # eight equal hexadecimal digits
            raise StaleCacheError(
                f"{self.folder} holds the features of another encoder.",
                "Extract into another --cache folder.",
                differences(
                    self._encoder.identity.fields,
                    there.identity.fields,
                    found_has="the store has",
                    expected_is="wanted is",
                ),
            )
        encoder = self._encoder.also_named(there)
        if encoder != there:
            encoder.write(self.folder, self._disk)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with locked(self.folder.parent / f".{self.folder.name}.lock") as self._check_lock:
            yield

    def _append(self, *changes: Change) -> None:
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
            if path.stem in self._index.entries:
                continue
            entry = None if path.stem in self._index.dropped else shard_file.entry_of(path)
            if entry is None:
                self._disk.remove(path)
            else:
                found.append(entry)
        self._enter(found)
        for path in self.folder.glob(f"{TEMPORARY}*"):
            if is_left_over(path):
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
            return self._keys.places(keys) >= 0

    @property
    def rows(self) -> int:
        """Sealed rows."""
        return self._index.rows

    @property
    def bytes(self) -> int:
        """Size of the sealed shards."""
        return self._index.bytes

    def publish(self, *shards: Shard) -> int:
        """Seals rows as one shard, without those that another writer sealed meanwhile.

        Args:
            shards: The rows, each once.

        Returns:
            Rows that were sealed.

        Raises:
            DiskError: None was.
        """
        with (
            writing(self.folder),
            self.sealer.written(shards) as (temporary, entry),
            self._lock(),
            self._one,
        ):
            new = [~self.has(shard.keys) for shard in shards]
            if all(own.all() for own in new):
                self._seal(temporary, entry)
                self._note(entry.name, shards)
                return entry.rows
            rest = [
                shard.take(np.flatnonzero(own))
                for shard, own in zip(shards, new, strict=True)
                if own.any()
            ]
            if not rest:
                return 0
            with self.sealer.written(rest) as (smaller, fewer):
                self._seal(smaller, fewer)
            self._note(fewer.name, rest)
            return fewer.rows

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
        with writing(self.folder), self._lock(), self._one:
            return self._enter([entry for entry in entries if self._has_file(entry)])

    def _enter(self, entries: Sequence[ShardEntry]) -> int:
        """Enters shards whose files are there; the lock is held."""
        self._refresh()
        self._noted = -1  # what is noted below may not come to be entered
        needless: list[ShardEntry] = []
        new: list[ShardEntry] = []
        for entry in entries:
            if entry.name in self._known:
                continue
            try:
                shard = self._map(entry)
            except DamagedCacheError:  # no shard of this encoder
                needless.append(entry)
                continue
            own = self._keys.places(shard.keys) < 0
            if not own.all():
                needless.append(entry)
                if not own.any():
                    continue
                shard = shard.take(np.flatnonzero(own))
                entry = self.sealer.seal([shard])
            self._note(entry.name, [shard])
            new.append(entry)
        if new:
            self._append(*(Change(add=entry) for entry in new))
        self._noted = self._index.size
        for entry in needless:
            self._disk.remove(self.folder / entry.file)
        return sum(entry.rows for entry in new)

    def _seal(self, temporary: Path, entry: ShardEntry, drop: tuple[str, ...] = ()) -> None:
        """Gives a shard its name and enters it in the index; the lock is held."""
        self._disk.rename(temporary, self.folder / entry.file)
        try:
            sync(self.folder, self._disk)
            self._append(Change(add=entry, drop=drop))
        except BaseException:
            with contextlib.suppress(CacheError):  # it may have been entered all the same
                if entry.name not in Index.read(self.folder).entries:
                    discard(self.folder / entry.file, self._disk)
            raise

    def finish(self) -> None:
        """Merges small shards while there are many; others may publish between two merges.

        Raises:
            DiskError: Some were not merged; nothing is lost.
            DamagedCacheError: A shard is not what was sealed.
        """
        while True:
            with writing(self.folder), self._lock():
                self._refresh()
                small = [e for e in self._index.entries.values() if e.bytes < MERGED_BYTES // 2]
                if len(small) <= _MOST_SMALL:
                    return
                sizes = itertools.accumulate(entry.bytes for entry in small)
                first = [e for e, end in zip(small, sizes, strict=True) if end <= MERGED_BYTES]
                self._replace(first, [self._map(entry) for entry in first])

    def keep_only(self, keys: Keys) -> int:
        """Drops all rows but some.

        Returns:
            Bytes that were freed.

        Raises:
            DiskError: Some stay.
        """
        wanted = KeyTable(KEY_BYTES)
        wanted.add(keys)
        with writing(self.folder), self._lock():
            self._refresh()
            before = self._index.bytes
            for entry in list(self._index.entries.values()):
                shard = self._map(entry)
                kept = np.flatnonzero(wanted.places(shard.keys) >= 0)
                if len(kept) < len(shard):
                    self._replace([entry], [shard.take(kept)] if len(kept) else [])
        return before - self._index.bytes

    def _replace(self, entries: Sequence[ShardEntry], shards: Sequence[Shard]) -> None:
        """Puts one shard in the place of some; the lock is held."""
        names = tuple(entry.name for entry in entries)
        if shards:
            for old in entries:  # damage is not sealed again
                check_bytes(self.folder, old)
            with self.sealer.written(shards) as (temporary, entry):
                self._seal(temporary, entry, names)
        else:
            self._append(Change(drop=names))
        for old in entries:
            self._disk.remove(self.folder / old.file)
