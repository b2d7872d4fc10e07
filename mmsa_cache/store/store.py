"""Writing, sealing, opening and verifying a feature cache.

A shard is made in memory, hashed, written whole under a temporary name, fsynced, entered in the
receipt ``manifest.partial.json``, renamed, and its directory fsynced. The receipt comes before the
rename, so every published shard has its hash. When the last shard is there the receipt becomes
``manifest.json``. Nothing published is ever opened for writing again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mmsa_cache.disk import (
    DISK,
    TEMPORARY,
    Disk,
    discard,
    make_folders,
    parse_json,
    read_plain,
    sync,
    write_atomically,
    write_new,
    writing,
)
from mmsa_cache.errors import CacheError, CacheNotFoundError, DamagedCacheError, StaleCacheError

from . import fingerprint, schema, shard_file
from .schema import Shard, shard_name
from .shard_file import AGAIN

MANIFEST = "manifest.json"
RECEIPT = "manifest.partial.json"
_MAX_MANIFEST_BYTES = 16 << 20  # of 100,000 shards
_TICK = 0.05
"""Seconds in which two writes may get the same time from the system's clock."""


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """What the manifest says of one shard."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a cache is: its fields, its pools and its shards."""

    fields: dict[str, Any]
    rows: int
    shards: tuple[ShardEntry, ...]

    @property
    def fingerprint(self) -> str:
        return fingerprint.digest(self.fields)

    @property
    def complete(self) -> bool:
        return sum(entry.rows for entry in self.shards) == self.rows


def read_manifest(directory: Path, name: str = MANIFEST) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        CacheNotFoundError: There is none.
        DamagedCacheError: It is not a manifest of this schema.
    """
    path = directory / name
    try:
        raw = parse_json(read_plain(path, _MAX_MANIFEST_BYTES, links=False))
    except FileNotFoundError as error:
        raise CacheNotFoundError(
            f"There is no finished cache in {directory}.", "Run mmsa extract."
        ) from error
    except (OSError, ValueError) as error:
        raise DamagedCacheError(f"{path} cannot be read: {error}", AGAIN) from error
    try:
        if raw["schema"] != schema.SCHEMA_VERSION:
            raise StaleCacheError(
                f"{path} has schema {str(raw['schema'])[:20]}, this program writes "
                f"{schema.SCHEMA_VERSION}.",
                "Extract again into another --cache folder.",
            )
        entries = tuple(
            ShardEntry(str(e["name"]), _count(e["rows"]), _count(e["bytes"]), str(e["sha256"]))
            for e in raw["shards"]
        )
        manifest = Manifest(dict(raw["fields"]), _count(raw["rows"]), entries)
        stated = raw["fingerprint"]
    except (LookupError, TypeError, ValueError) as error:
        raise DamagedCacheError(f"{path} is not a manifest: {str(error)[:200]}", AGAIN) from error
    for i, entry in enumerate(entries):
        if entry.name != shard_name(i):
            raise DamagedCacheError(f"{path}: shard {i} is called {entry.name[:100]!r}.", AGAIN)
    if stated != manifest.fingerprint:
        raise DamagedCacheError(f"{path}: its fields do not give its fingerprint.", AGAIN)
    return manifest


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 48:
        raise ValueError(f"{str(value)[:50]!r} is no count")
    return value


def find_cache(parent: Path, encoder: str, fields: dict[str, Any]) -> Path:
    """The folder of the finished cache with exactly these fields.

    Raises:
        StaleCacheError: Only caches with other fields lie there; the nearest one's are named.
        CacheNotFoundError: None lies there.
    """
    directory = parent / fingerprint.cache_name(encoder, fields)
    if (directory / MANIFEST).is_file():
        _check_fields(directory, read_manifest(directory), fields)
        return directory
    if (directory / RECEIPT).is_file():
        raise CacheNotFoundError(
            f"The extraction into {directory} was not finished.", "Run mmsa extract: it resumes."
        )
    nearest = nearest_cache(parent, fields)
    if nearest is None:
        raise CacheNotFoundError(f"There is no cache in {parent}.", "Run mmsa extract.")
    raise _stale(*nearest)


def _check_fields(directory: Path, manifest: Manifest, fields: dict[str, Any]) -> None:
    """A folder's name has only the beginning of the fingerprint, and folders can be moved."""
    if manifest.fingerprint != fingerprint.digest(fields):
        raise _stale(directory, fingerprint.differences(fields, manifest.fields))


def _stale(directory: Path, differences: Sequence[str]) -> StaleCacheError:
    return StaleCacheError(
        f"The cache {directory} was made from something else.",
        "Run mmsa extract with these settings, or go back to those of the cache.",
        differences,
    )


def nearest_cache(parent: Path, fields: dict[str, Any]) -> tuple[Path, list[str]] | None:
    """The finished cache that differs in the fewest fields, and these differences."""
    found = []
    for path in sorted(parent.glob(f"*/{MANIFEST}")):
        with contextlib.suppress(CacheError):
            manifest = read_manifest(path.parent)
            found.append((path.parent, fingerprint.differences(fields, manifest.fields)))
    return min(found, key=lambda item: len(item[1]), default=None)


def lock_path(directory: Path) -> Path:
    """The lock of a cache: whoever writes it or removes it holds this."""
    return directory.parent / f".{directory.name}.lock"


def note_path(directory: Path) -> Path:
    """Where it is noted which shards of a cache were found whole, and when they were touched."""
    return directory.parent / f".{directory.name}.verified"


class CacheWriter:
    """Publishes the shards of one cache; what an earlier run published stays.

    Args:
        directory: Folder of this cache.
        fields: Its fingerprint's fields.
        rows: Rows in all.
        disk: What it is written to.
    """

    def __init__(
        self, directory: Path, fields: dict[str, Any], rows: int, disk: Disk = DISK
    ) -> None:
        self._directory = directory
        self._manifest = Manifest(fields, rows, ())
        self._fingerprint = fingerprint.digest(fields)
        self._disk = disk

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Holds the cache's lock; calls ``waiting`` once if another process has it.

        Raises:
            DiskError: Nothing can be written there.
            StaleCacheError: What lies there was made from something else.
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
        """Takes up what an earlier run left: sealed shards stay, temporaries go."""
        for path in self._directory.glob(f"{TEMPORARY}*"):
            self._disk.remove(path)
        name = MANIFEST if self.complete else RECEIPT
        if not (self._directory / name).is_file():
            return
        found = read_manifest(self._directory, name)
        _check_fields(self._directory, found, self._manifest.fields)
        # Where the receipt was written and the rename was not, the shard is made again.
        kept = list(itertools.takewhile(lambda e: os.path.lexists(self._place(e)), found.shards))
        # A finished cache is only looked over; it is hashed where it is opened or verified.
        check = _check_size if self.complete else _check_bytes
        _each(lambda entry: check(self._directory, entry), kept)
        missing = found.shards[len(kept) :]
        later = [entry for entry in missing[1:] if os.path.lexists(self._place(entry))]
        if missing and (self.complete or later):
            raise DamagedCacheError(f"{self._place(missing[0])} is missing.", AGAIN)
        self._manifest = Manifest(found.fields, found.rows, tuple(kept))

    def _place(self, entry: ShardEntry) -> Path:
        return self._directory / entry.name

    def publish(self, shard: Shard) -> None:
        """Seals the next shard.

        Raises:
            DiskError: It was not sealed.
        """
        content = shard_file.encode(shard, self._fingerprint)
        digest = hashlib.sha256(content).hexdigest()
        entry = ShardEntry(shard_name(self.done), len(shard.guids), len(content), digest)
        known = self._manifest
        grown = Manifest(known.fields, known.rows, (*known.shards, entry))
        temporary = self._directory / f"{TEMPORARY}{entry.name}"
        with writing(self._place(entry)):
            write_new(temporary, content, self._disk)
            try:
                self._write_receipt(grown)
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

    def _write_receipt(self, manifest: Manifest) -> None:
        content = {
            "schema": schema.SCHEMA_VERSION,
            "fingerprint": self._fingerprint,
            "rows": manifest.rows,
            "shards": [
                {"name": e.name, "rows": e.rows, "bytes": e.bytes, "sha256": e.sha256}
                for e in manifest.shards
            ],
            "fields": manifest.fields,
        }
        write_atomically(
            self._directory / RECEIPT,
            json.dumps(content, indent=1, sort_keys=True).encode() + b"\n",
            self._disk,
        )


def open_shards(directory: Path, *, verify: bool = True, name: str = MANIFEST) -> Iterator[Shard]:
    """Opens the shards of a finished cache in order.

    Args:
        directory: The cache's folder.
        verify: Re-hash every file first that was not found whole since it was last touched.
        name: `RECEIPT` opens the sealed shards of an unfinished cache.

    Raises:
        CacheNotFoundError: There is no finished cache.
        DamagedCacheError: Names the file and what is wrong with it.
    """
    manifest = read_manifest(directory, name)
    if name == MANIFEST and not manifest.complete:
        raise DamagedCacheError(f"{directory}: the manifest's shards lack rows.", AGAIN)
    if verify:
        _verify_touched(directory, manifest)
    for entry in _published(directory, manifest, name):
        yield _map(directory, entry, manifest)


def _published(directory: Path, manifest: Manifest, name: str) -> tuple[ShardEntry, ...]:
    """The shards that must be there: a receipt names one before it is published."""
    entries = manifest.shards
    if name == RECEIPT and entries and not (directory / entries[-1].name).exists():
        return entries[:-1]
    return entries


def _verify_touched(directory: Path, manifest: Manifest) -> None:
    """Hashes the shards whose size or times differ from when they were last found whole.

    The change time, which no program can set, moves with every write; so what another program did
    to a file is seen at the next open, and an untouched cache opens without being read through.

    Raises:
        DamagedCacheError: Names the first file that is not what was sealed.
    """
    note = note_path(directory)
    known: dict[str, list[Any]] = {}
    with contextlib.suppress(OSError, ValueError):
        raw = parse_json(read_plain(note, _MAX_MANIFEST_BYTES, links=False))
        known = raw if isinstance(raw, dict) else {}
    looked = time.time()
    times = {entry.name: _times(directory, entry) for entry in manifest.shards}
    now = {entry.name: [entry.sha256, *times[entry.name]] for entry in manifest.shards}
    touched = [e for e in manifest.shards if known.get(e.name) != now[e.name]]
    if not touched:
        return
    _each(lambda entry: _check_bytes(directory, entry), touched)
    # Times are those from before the hashing: what was written meanwhile is hashed next time. So
    # is what was written just before, since a further write may have got the same time.
    settled = {
        name: now[name] for name, (_, *last) in times.items() if max(last) < 1e9 * (looked - _TICK)
    }
    with contextlib.suppress(OSError):  # a cache that may only be read is hashed every time
        write_atomically(note, json.dumps(settled).encode())


def _times(directory: Path, entry: ShardEntry) -> tuple[int, int, int]:
    found = _check_size(directory, entry)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _each(check: Callable[[ShardEntry], Any], entries: Sequence[ShardEntry]) -> None:
    """Checks entries side by side: hashing releases the interpreter."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(check, entries):
            pass


def verify_cache(directory: Path) -> list[str]:
    """Re-hashes every shard that was sealed; returns one line for each damaged file.

    Raises:
        CacheError: The manifest, or the receipt of an unfinished cache, cannot be read.
    """
    name = MANIFEST if (directory / MANIFEST).is_file() else RECEIPT
    problems = []
    manifest = read_manifest(directory, name)
    for entry in _published(directory, manifest, name):
        try:
            _check_bytes(directory, entry)
            _map(directory, entry, manifest)
        except DamagedCacheError as error:
            problems.append(error.message)
    if name == MANIFEST and not manifest.complete:
        problems.append(f"{directory / MANIFEST}: its shards hold fewer rows than it states")
    return problems


def _check_size(directory: Path, entry: ShardEntry) -> os.stat_result:
    return shard_file.check_size(directory / entry.name, entry.bytes)


def _check_bytes(directory: Path, entry: ShardEntry) -> None:
    shard_file.check_bytes(directory / entry.name, entry.bytes, entry.sha256)


def _map(directory: Path, entry: ShardEntry, manifest: Manifest) -> Shard:
    path = directory / entry.name
    return shard_file.map_shard(path, entry.rows, entry.bytes, manifest.fingerprint)
