"""Seals shards: writes them to a temporary file, hashes it, and names it by its content."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.files.abandoned import TEMPORARY, process_mark
from mmsa_cache.files.disk import DISK, Disk, discard, explain_write_errors, sync, write_new

from . import shard_bytes
from .index import ShardEntry
from .schema import Shard

_marks = itertools.count()


@dataclass(frozen=True, slots=True)
class FolderSealer:
    """Puts shards into an existing feature folder, without entering them in its index.

    Can be pickled for other processes, and for machines that see the folder under the same path.
    """

    folder: Path
    fingerprint: str
    """Fingerprint of the encoder."""
    disk: Disk = DISK
    """Where to write."""

    @contextlib.contextmanager
    def write_temporary(self, shards: Sequence[Shard]) -> Iterator[tuple[Path, ShardEntry]]:
        """Writes shards as one temporary file, which is removed unless it is renamed."""
        content = shard_bytes.encode(shards, self.fingerprint)
        temporary = self.folder / f"{TEMPORARY}shard.{process_mark()}.{next(_marks)}"
        try:
            with ThreadPoolExecutor(1, "hash") as threads:  # hashing takes as long as writing
                entry = threads.submit(shard_bytes.shard_entry, content, shards)
                write_new(temporary, content, self.disk)
            yield temporary, entry.result()
        finally:
            if temporary.exists():
                discard(temporary, self.disk)

    def seal(self, shards: Sequence[Shard]) -> ShardEntry:
        """Seals shards as one; `FeatureWriter.adopt` enters it in the index.

        Raises:
            DiskError: It was not sealed.
        """
        with explain_write_errors(self.folder), self.write_temporary(shards) as (temporary, entry):
            self.disk.rename(temporary, self.folder / entry.file)
            sync(self.folder, self.disk)
        return entry
