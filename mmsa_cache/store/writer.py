"""Writes the features of one encoder, by one process or by many.

A shard is encoded in memory, hashed, written under a temporary name, fsynced, renamed and entered
in the index. Only shards in the index count, and they are never written again.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mmsa_cache.errors import CacheError, StaleCacheError
from mmsa_cache.files.disk import DISK, Disk, discard, explain_write_errors, make_folders, sync
from mmsa_cache.files.locks import hold_lock
from mmsa_cache.key_table import KeyTable

from .encoder import ENCODER, StoredEncoder, read_encoder
from .fingerprint import differences
from .index import Index, IndexChange, ShardEntry
from .keys import KEY_BYTES, Keys
from .schema import Shard
from .sealed_rows import SealedRows
from .shard_file import check_bytes

MERGED_BYTES = 512 << 20
"""Most bytes of a merged shard."""
_MOST_SMALL = 8
"""Most shards below half of that which are not merged."""


class FeatureWriter(SealedRows):
    """Adds rows to the features of one encoder.

    Args:
        root: The store.
        encoder: The encoder.
        disk: Where to write.

    Attributes:
        folder: The feature folder.
        sealer: Puts shards there for `adopt`.
    """

    def __init__(self, root: Path, encoder: StoredEncoder, disk: Disk = DISK) -> None:
        super().__init__(encoder.folder(root), encoder.fingerprint, disk)
        self._encoder = encoder

    @contextlib.contextmanager
    def claim(self, waiting: Callable[[], None], part: tuple[int, int] = (0, 1)) -> Iterator[None]:
        """Keeps other processes from computing the same part of the rows.

        Args:
            waiting: Called once if another process computes it.
            part: Index of the part and number of parts.

        Raises:
            DiskError: The folder cannot be written.
            CacheError: The existing features cannot be continued.
        """
        claim = self.folder.parent / f".{self.folder.name}.{part[0] + 1}-of-{part[1]}.claim"
        with contextlib.ExitStack() as stack:
            with explain_write_errors(self.folder):
                make_folders(self.folder.parent, self._disk)
                stack.enter_context(hold_lock(claim, waiting))
                self._prepare()
            yield

    def _prepare(self) -> None:
        """Creates the folder, removes files of killed writers, and reads the index."""
        with self._lock():
            make_folders(self.folder, self._disk)
            if (self.folder / ENCODER).exists():
                self._update_record(read_encoder(self.folder))
            else:
                self._encoder.write(self.folder, self._disk)
            self._index, self._noted_size = Index.read(self.folder), -1
            missing = [e for e in self._index.entries.values() if not self._has_file(e)]
            if missing:  # deleted to be computed again
                change = IndexChange(drop=tuple(entry.name for entry in missing))
                self._append(change)
            self._sweep()

    def _update_record(self, stored: StoredEncoder) -> None:
        """Writes the current settings and names of the encoder into its record."""
        if stored.fingerprint != self._fingerprint:  # the first eight digits are equal
            raise StaleCacheError(
                f"{self.folder} holds the features of another encoder.",
                "Extract into another --cache folder.",
                differences(self._encoder.identity.fields, stored.identity.fields),
            )
        encoder = self._encoder.with_names_of(stored)
        if encoder != stored:
            encoder.write(self.folder, self._disk)

    def add_names(self, encoder: StoredEncoder) -> None:
        """Adds the names that the same encoder has elsewhere in the settings."""
        self._encoder = encoder.with_names_of(self._encoder)

    def publish(self, *shards: Shard) -> int:
        """Seals rows as one shard, without those that another writer has sealed meanwhile.

        Args:
            shards: The rows, each once.

        Returns:
            Number of sealed rows.

        Raises:
            DiskError: No row was sealed.
        """
        with (
            explain_write_errors(self.folder),
            self.sealer.write_temporary(shards) as (temporary, entry),
            self._lock(),
            self._thread_lock,
        ):
            new = [~self.has(shard.keys) for shard in shards]
            if all(is_new.all() for is_new in new):
                self._seal(temporary, entry)
                self._note(entry.name, shards)
                return entry.rows
            rest = [
                shard.take(np.flatnonzero(is_new))
                for shard, is_new in zip(shards, new, strict=True)
                if is_new.any()
            ]
            if not rest:
                return 0
            with self.sealer.write_temporary(rest) as (smaller, fewer):
                self._seal(smaller, fewer)
            self._note(fewer.name, rest)
            return fewer.rows

    def _seal(self, temporary: Path, entry: ShardEntry, drop: tuple[str, ...] = ()) -> None:
        """Renames a shard to its final name and enters it in the index; the lock is held."""
        self._disk.rename(temporary, self.folder / entry.file)
        try:
            sync(self.folder, self._disk)
            self._append(IndexChange(add=entry, drop=drop))
        except BaseException:
            with contextlib.suppress(CacheError):  # it may have been entered nevertheless
                if entry.name not in Index.read(self.folder).entries:
                    discard(self.folder / entry.file, self._disk)
            raise

    def finish(self) -> None:
        """Merges small shards until few are left; others may publish between two merges.

        Raises:
            DiskError: Some were not merged; nothing is lost.
            DamagedCacheError: A shard is not what was sealed.
        """
        with explain_write_errors(self.folder), self._lock():
            self._sweep()  # workers may have been ended while they sealed
        while True:
            with explain_write_errors(self.folder), self._lock():
                self._refresh()
                small = [e for e in self._index.entries.values() if e.bytes < MERGED_BYTES // 2]
                if len(small) <= _MOST_SMALL:
                    return
                sizes = itertools.accumulate(entry.bytes for entry in small)
                first = [e for e, end in zip(small, sizes, strict=True) if end <= MERGED_BYTES]
                merged = self._replace(first, [self._map(entry) for entry in first])
                self._noted_names -= {entry.name for entry in first}  # their rows stay noted
                self._noted_names |= merged
                self._noted_size = self._index.size

    def keep_only(self, keys: Callable[[], Keys]) -> tuple[int, int]:
        """Drops all rows except those of some keys.

        Args:
            keys: Gives the keys to keep. It is called while no writer can add rows, so that rows
                that were requested before they were added are kept.

        Returns:
            Number of dropped rows, and of freed bytes.

        Raises:
            DiskError: Not all were dropped.
        """
        table = KeyTable(KEY_BYTES)
        with explain_write_errors(self.folder), self._lock():
            table.add(keys())
            self._refresh()
            before = self.rows, self.bytes
            for entry in list(self._index.entries.values()):
                shard = self._map(entry)
                rows = np.flatnonzero(table.find(shard.keys) >= 0)
                if len(rows) < len(shard):
                    self._replace([entry], [shard.take(rows)] if len(rows) else [])
        return before[0] - self.rows, before[1] - self.bytes

    def _replace(self, entries: Sequence[ShardEntry], shards: Sequence[Shard]) -> set[str]:
        """Replaces shards by one or none and returns its name, if any; the lock is held."""
        names = tuple(entry.name for entry in entries)
        new: set[str] = set()
        if shards:
            for old in entries:  # damaged rows must not be sealed again
                check_bytes(self.folder, old)
            with self.sealer.write_temporary(shards) as (temporary, entry):
                self._seal(temporary, entry, names)
                new.add(entry.name)
        else:
            self._append(IndexChange(drop=names))
        for old in entries:
            self._disk.remove(self.folder / old.file)
        return new
