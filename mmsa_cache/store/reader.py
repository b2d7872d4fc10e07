"""Opening and verifying a cache."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmsa_cache.disk import parse_json, read_plain, write_atomically
from mmsa_cache.errors import DamagedCacheError
from mmsa_cache.native.cores import usable_cores

from . import shard_file
from .manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    RECEIPT,
    Manifest,
    ShardEntry,
    note_path,
    read_manifest,
)
from .schema import Shard
from .shard_file import AGAIN

_TICK = 0.05
"""Seconds in which two writes may get the same time from the system's clock."""


def open_shards(directory: Path, *, verify: bool = True, name: str = MANIFEST) -> Iterator[Shard]:
    """Opens the shards of a finished cache in order.

    Args:
        directory: The cache's folder.
        verify: Re-hash every file that was touched since it was last verified.
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
    """Hashes the shards whose size or times changed since they were last verified.

    The change time, which no program can set, moves with every write; so what another program did
    to a file is seen at the next open, and an untouched cache opens without being read through.

    Raises:
        DamagedCacheError: Names the first file that is not what was sealed.
    """
    note = note_path(directory)
    known: dict[str, list[Any]] = {}
    with contextlib.suppress(OSError, ValueError):
        raw = parse_json(read_plain(note, MAX_MANIFEST_BYTES, links=False))
        known = raw if isinstance(raw, dict) else {}
    looked = time.time()
    times = {entry.name: _times(directory, entry) for entry in manifest.shards}
    now = {entry.name: [entry.sha256, *times[entry.name]] for entry in manifest.shards}
    touched = [e for e in manifest.shards if known.get(e.name) != now[e.name]]
    if not touched:
        return
    check_each(lambda entry: check_bytes(directory, entry), touched)
    # Times are those from before the hashing: what was written meanwhile is hashed next time. So
    # is what was written just before, since a further write may have got the same time.
    settled = {
        name: now[name] for name, (_, *last) in times.items() if max(last) < 1e9 * (looked - _TICK)
    }
    with contextlib.suppress(OSError):  # a cache that may only be read is hashed every time
        write_atomically(note, json.dumps(settled).encode())


def _times(directory: Path, entry: ShardEntry) -> tuple[int, int, int]:
    found = check_size(directory, entry)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def check_each(check: Callable[[ShardEntry], Any], entries: Sequence[ShardEntry]) -> None:
    """Checks entries side by side: hashing releases the interpreter."""
    with ThreadPoolExecutor(usable_cores()) as pool:
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
            check_bytes(directory, entry)
            _map(directory, entry, manifest)
        except DamagedCacheError as error:
            problems.append(error.message)
    if name == MANIFEST and not manifest.complete:
        problems.append(f"{directory / MANIFEST}: its shards hold fewer rows than it states")
    return problems


def check_size(directory: Path, entry: ShardEntry) -> os.stat_result:
    return shard_file.check_size(directory / entry.name, entry.bytes)


def check_bytes(directory: Path, entry: ShardEntry) -> None:
    shard_file.check_bytes(directory / entry.name, entry.bytes, entry.sha256)


def _map(directory: Path, entry: ShardEntry, manifest: Manifest) -> Shard:
    path = directory / entry.name
    return shard_file.map_shard(path, entry.rows, entry.bytes, manifest.fingerprint)
