"""Sealing of a shard: written whole to a temporary name, hashed, and named by its content."""

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
    """Puts shards into a feature folder that is there; others enter them in its index.

    It can be sent to other processes, and to machines that see the folder under the same path.
    """

    folder: Path
    fingerprint: str
    """The encoder's."""
    disk: Disk = DISK
    """What is written to."""

    @contextlib.contextmanager
    def written(self, shards: Sequence[Shard]) -> Iterator[tuple[Path, ShardEntry]]:
        """A temporary file of shards as one; it goes unless it is renamed."""
        content = shard_bytes.encode(shards, self.fingerprint)
        temporary = self.folder / f"{TEMPORARY}shard.{process_mark()}.{next(_marks)}"
        try:
            with ThreadPoolExecutor(1, "hash") as beside:  # it takes about as long as to write
                entry = beside.submit(shard_bytes.shard_entry, content, shards)
                write_new(temporary, content, self.disk)
            yield temporary, entry.result()
        finally:
            if temporary.exists():
                discard(temporary, self.disk)

    def seal(self, shards: Sequence[Shard]) -> ShardEntry:
        """Seals shards as one; it does not count before `FeatureWriter.adopt`.

        Raises:
            DiskError: It was not sealed.
        """
        with explain_write_errors(self.folder), self.written(shards) as (temporary, entry):
            self.disk.rename(temporary, self.folder / entry.file)
            sync(self.folder, self.disk)
        return entry
