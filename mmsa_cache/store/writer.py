"""Writing and sealing a cache.

A shard is made in memory, hashed, written under a temporary name, fsynced, entered in the
receipt ``manifest.partial.json``, renamed, and its directory fsynced. The receipt comes before the
rename, so every published shard has its hash. When the last shard is there the receipt becomes
``manifest.json``. Nothing published is ever opened for writing again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mmsa_cache import hashing
from mmsa_cache.disk import (
    DISK,
    TEMPORARY,
    Disk,
    discard,
    make_folders,
    sync,
    write_atomically,
    write_new,
    writing,
)
from mmsa_cache.errors import CacheError, DamagedCacheError

from . import shard_file
from .fingerprint import Fields
from .lookup import check_fields
from .manifest import MANIFEST, RECEIPT, Manifest, ShardEntry, lock_path, read_manifest
from .reader import check_bytes, check_each, check_size
from .schema import Shard, shard_name
from .shard_file import AGAIN


class CacheWriter:
    """Publishes the shards of one cache; what an earlier run published stays.

    Args:
        directory: Folder of this cache.
        fields: Its fingerprint's fields.
        rows: Rows in all.
        disk: What it is written to.
    """

    def __init__(self, directory: Path, fields: Fields, rows: int, disk: Disk = DISK) -> None:
        self._directory = directory
        self._manifest = Manifest(fields=fields, rows=rows, shards=())
        self._fingerprint = hashing.digest(fields)
        self._disk = disk

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Holds the cache's lock; calls ``waiting`` once if another process has it.

        Raises:
            DiskError: Nothing can be written there.
            StaleCacheError: The cache there was made from something else.
            DamagedCacheError: A sealed shard is not what was sealed.
        """
        lock = FileLock(lock_path(self._directory))
        with writing(self._directory):
            make_folders(self._directory.parent, self._disk)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                waiting()
                lock.acquire()
        try:
            with writing(self._directory):
                make_folders(self._directory, self._disk)  # another process may have removed it
                self._recover()
            yield
        finally:
            lock.release()

    @property
    def complete(self) -> bool:
        return (self._directory / MANIFEST).is_file()

    @property
    def done(self) -> int:
        """Number of shards that are published (always the first ones)."""
        return len(self._manifest.shards)

    @property
    def rows_done(self) -> int:
        return sum(entry.rows for entry in self._manifest.shards)

    @property
    def bytes_done(self) -> int:
        """Size of the published shards."""
        return sum(entry.bytes for entry in self._manifest.shards)

    def _recover(self) -> None:
        """Resumes an earlier run: keeps sealed shards, removes temporary files."""
        for path in self._directory.glob(f"{TEMPORARY}*"):
            self._disk.remove(path)
        name = MANIFEST if self.complete else RECEIPT
        if not (self._directory / name).is_file():
            return
        found = read_manifest(self._directory, name)
        check_fields(self._directory, found, self._manifest.fields)
        # Where the receipt was written and the rename was not, the shard is made again.
        kept = list(itertools.takewhile(lambda e: os.path.lexists(self._place(e)), found.shards))
        # A finished cache is only looked over; it is hashed where it is opened or verified.
        check = check_size if self.complete else check_bytes
        check_each(lambda entry: check(self._directory, entry), kept)
        missing = found.shards[len(kept) :]
        later = [entry for entry in missing[1:] if os.path.lexists(self._place(entry))]
        if missing and (self.complete or later):
            raise DamagedCacheError(f"{self._place(missing[0])} is missing.", AGAIN)
        self._manifest = found.with_shards(kept)

    def _place(self, entry: ShardEntry) -> Path:
        return self._directory / entry.name

    def publish(self, shard: Shard) -> None:
        """Seals the next shard.

        Raises:
            DiskError: It was not sealed.
        """
        content = shard_file.encode(shard, self._fingerprint)
        digest = hashlib.sha256(content).hexdigest()
        entry = ShardEntry(
            name=shard_name(self.done), rows=len(shard.guids), bytes=len(content), sha256=digest
        )
        grown = self._manifest.with_shards((*self._manifest.shards, entry))
        temporary = self._directory / f"{TEMPORARY}{entry.name}"
        with writing(self._place(entry)):
            write_new(temporary, content, self._disk)
            try:
                write_atomically(self._directory / RECEIPT, grown.as_bytes(), self._disk)
                self._disk.rename(temporary, self._place(entry))
            except BaseException:
                discard(temporary, self._disk)
                raise
            sync(self._directory, self._disk)
        self._manifest = grown

    def finish(self) -> None:
        """Turns the receipt into the manifest.

        Raises:
            CacheError: Rows are missing.
            DiskError: The cache stays unfinished.
        """
        if self.complete:
            return
        if not self._manifest.complete:
            raise CacheError(f"{self._directory}: rows are missing, the cache stays unfinished.")
        with writing(self._directory / MANIFEST):
            self._disk.rename(self._directory / RECEIPT, self._directory / MANIFEST)
            sync(self._directory, self._disk)
